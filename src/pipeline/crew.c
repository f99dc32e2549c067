/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/crew.h"

#include "base/mem.h"
#include "base/thread.h"
#include "pipeline/pipeline.h"

#include <stdio.h>

enum { TEXT = 1024 };

struct member {
    um_crew *crew;
    um_pipeline *pipeline;
    um_pool *pool; /* its part of the device's threads */
    pthread_t thread;
    bool started;
    /* guarded by the crew's lock, as all below, but while `busy` the member's own */
    bool busy;
    um_frame *frame;
    struct um_crew_wish wish;
    um_status status;
    char text[TEXT]; /* of an error */
    const um_packet *packet;
};

struct um_crew {
    pthread_mutex_t lock;
    pthread_cond_t news; /* a frame was given, or one is done */
    bool quit;           /* guarded by lock */
    int members;
    struct member member[UM_INFLIGHT_MAX];
};

static void do_frame(struct member *m)
{
    um_pipeline *p = m->pipeline;
    um_status st = um_pipeline_change(p, &m->wish.conf, &m->wish.label, &m->wish.objects);
    if (st == UM_OK)
        st = um_pipeline_pass(p, &m->frame, &m->packet);
    if (st < UM_OK)
        snprintf(m->text, sizeof m->text, "%s", um_last_error());
    um_frame_unref(&m->frame);
    m->status = st;
}

static void *work(void *ctx)
{
    struct member *m = ctx;
    um_crew *c = m->crew;
    um_pool_bind(m->pool);
    pthread_mutex_lock(&c->lock);
    for (;;) {
        while (!m->busy && !c->quit)
            pthread_cond_wait(&c->news, &c->lock);
        if (c->quit)
            break;
        pthread_mutex_unlock(&c->lock);
        do_frame(m);
        pthread_mutex_lock(&c->lock);
        m->busy = false;
        pthread_cond_broadcast(&c->news);
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

static um_status open_member(um_crew *c, struct member *m, const um_pipeline_settings *settings,
                             int threads)
{
    um_pipeline_settings own = *settings;
    own.inflight = 1;
    own.crop_auto = 0;    /* the crew's owner looks at all frames, */
    own.shadow_every = 0; /* has it, */
    own.kpi = NULL;       /* and tells in order */
    m->crew = c;
    um_status st = um_pipeline_open(&m->pipeline, &own);
    if (st == UM_OK)
        st = um_pool_part(&m->pool, um_detector_device(own.detector)->pool, threads);
    if (st == UM_OK)
        st = um_thread_start(&m->thread, work, m, "frames in flight");
    m->started = st == UM_OK;
    return st;
}

um_status um_crew_open(um_crew **out, const um_pipeline_settings *settings)
{
    um_crew *c = *out = um_zalloc(sizeof *c);
    int n = settings->inflight, threads = um_device_threads(um_detector_device(settings->detector));
    if (!c)
        return um_fail(UM_ENOMEM, "%d frames in flight", n);
    um_status st = UM_OK;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->news, NULL);
    for (c->members = 0; st == UM_OK && c->members < n; c->members++)
        st = open_member(c, &c->member[c->members], settings,
                         threads / n + (c->members < threads % n));
    if (st != UM_OK)
        um_crew_close(out);
    return st;
}

void um_crew_close(um_crew **crew)
{
    um_crew *c = *crew;
    if (!c)
        return;
    *crew = NULL;
    pthread_mutex_lock(&c->lock);
    c->quit = true;
    pthread_cond_broadcast(&c->news);
    pthread_mutex_unlock(&c->lock);
    for (int i = 0; i < c->members; i++) {
        struct member *m = &c->member[i];
        if (m->started)
            pthread_join(m->thread, NULL);
        um_packet_unref(&m->packet);
        um_frame_unref(&m->frame);
        um_pipeline_close(&m->pipeline);
        um_pool_close(&m->pool);
    }
    pthread_cond_destroy(&c->news);
    pthread_mutex_destroy(&c->lock);
    um_free(c);
}

um_status um_crew_prepare(um_crew *c, int width, int height, int channels)
{
    um_status st = UM_OK;
    for (int i = 0; st == UM_OK && i < c->members; i++)
        st = um_pipeline_prepare(c->member[i].pipeline, width, height, channels);
    return st;
}

/* Until the frame that a member has is done. */
static void wait_for(um_crew *c, const struct member *m)
{
    pthread_mutex_lock(&c->lock);
    while (m->busy)
        pthread_cond_wait(&c->news, &c->lock);
    pthread_mutex_unlock(&c->lock);
}

um_status um_crew_forget(um_crew *c)
{
    um_status st = UM_OK;
    for (int i = 0; st == UM_OK && i < c->members; i++) {
        struct member *m = &c->member[i];
        wait_for(c, m);
        st = um_pipeline_forget(m->pipeline);
    }
    return st;
}

um_status um_crew_give(um_crew *c, int member, um_frame **frame, const struct um_crew_wish *wish)
{
    struct member *m = &c->member[member];
    um_status st = um_pipeline_plan(m->pipeline, *frame, wish->crop);
    if (st != UM_OK)
        return st;
    m->wish = *wish;
    m->frame = *frame;
    *frame = NULL;
    pthread_mutex_lock(&c->lock);
    m->busy = true;
    pthread_cond_broadcast(&c->news);
    pthread_mutex_unlock(&c->lock);
    return UM_OK;
}

um_status um_crew_take(um_crew *c, int member, const um_packet **packet)
{
    struct member *m = &c->member[member];
    wait_for(c, m);
    *packet = m->packet;
    m->packet = NULL;
    return m->status < UM_OK ? um_fail(m->status, "%s", m->text) : m->status;
}

uint64_t um_crew_session_bytes(const um_crew *c)
{
    uint64_t n = 0;
    for (int i = 0; i < c->members; i++)
        n += um_pipeline_session_bytes(c->member[i].pipeline);
    return n;
}
