/* SPDX-License-Identifier: Apache-2.0 */
/* bench live: frames over OpenIGTLink into a run, masks out of it to a client, all in this
 * process and so on one clock. What a frame takes beyond the pipeline's own time is our overhead:
 * receiving, pairing with the pose, queues, sending. */
#include "bench.h"
#include "clock.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { WARM_UP = 10, HEADER = 58 };

/* Of one frame, in ms; 0: that has not happened. */
struct passage {
    double sent, begun, done, masked; /* begun, done: in the pipeline */
};

struct live {
    long frames;
    struct passage *passage; /* sender, run and client write fields of their own; read at the end */
    int client;              /* socket */
    uint64_t masks;
};

static double now_ms(void)
{
    return 1e3 * seconds_now();
}

/* A frame's stamp is its number from 1 on. */
static struct passage *passage_of(const struct live *l, double stamp)
{
    return stamp >= 1 && stamp <= (double)l->frames ? &l->passage[(long)stamp - 1] : NULL;
}

static void on_packet(void *ctx, const um_packet *packet, const um_frame *frame,
                      const um_truth *truth)
{
    struct passage *p = passage_of(ctx, packet->ts);
    (void)frame, (void)truth;
    if (!p)
        return;
    p->done = now_ms();
    p->begun = p->done - packet->ms.total;
}

static bool take(int fd, uint8_t *to, size_t n)
{
    for (ssize_t got; n > 0; n -= (size_t)got, to += got)
        if ((got = recv(fd, to, n, 0)) <= 0)
            return false;
    return true;
}

static uint64_t big_endian(const uint8_t *p)
{
    uint64_t v = 0;
    for (int i = 0; i < 8; i++)
        v = v << 8 | p[i];
    return v;
}

/* The client: when each mask was here, whole. */
static void *receive_masks(void *ctx)
{
    struct live *l = ctx;
    uint8_t head[HEADER], *body = NULL;
    size_t room = 0;
    while (take(l->client, head, sizeof head)) {
        uint64_t stamp = big_endian(head + 34), size = big_endian(head + 42);
        if (size > 64u << 20)
            break;
        if (size > room) {
            free(body);
            body = malloc(size);
            room = body ? size : 0;
        }
        if ((size && !body) || !take(l->client, body, size))
            break;
        struct passage *p = passage_of(l, (double)(stamp >> 32));
        if (strncmp((const char *)head + 2, "IMAGE", 12) == 0 && p) {
            p->masked = now_ms();
            l->masks++;
        }
    }
    free(body);
    return NULL;
}

static void find_port(void *ctx, const char *name, uint64_t n)
{
    if (strcmp(name, "port") == 0)
        *(int *)ctx = (int)n;
}

static int open_client(int port)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&at, sizeof at) != 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* A frame at its time; it has a pose, so that there is something to pair. */
static um_status send_all(struct live *l, um_igtl *to, um_frame *frame, double fps)
{
    um_status st = UM_OK;
    frame->has_pose = frame->has_spacing = frame->has_ts = 1;
    frame->spacing_mm[0] = frame->spacing_mm[1] = 0.1;
    for (int i = 0; i < 16; i++)
        frame->pose[i] = i % 5 == 0;
    double begin = now_ms();
    for (long i = 0; i < l->frames && st == UM_OK; i++) {
        double wait = begin + 1e3 * (double)i / fps - now_ms();
        struct timespec t = {.tv_sec = (time_t)(wait / 1e3)};
        t.tv_nsec = (long)((wait - 1e3 * (double)t.tv_sec) * 1e6);
        if (wait > 0)
            nanosleep(&t, NULL);
        frame->ts = (double)(i + 1);
        frame->id = (uint64_t)i;
        st = um_igtl_send_frame(to, frame, "Image_Reference");
        l->passage[i].sent = now_ms();
    }
    return st == UM_EOF ? um_set_error(UM_EIO, "bench live: the source closed the connection") : st;
}

/* What was sent last is on its way still, and a source that is cancelled does not give it. */
static um_status wait_for_last(const struct live *l, const um_run *run)
{
    um_run_counts now = {.struct_size = sizeof now};
    for (int i = 0; i < 1000; i++) {
        um_run_stats(run, &now);
        if (now.frames + now.replaced >= (uint64_t)l->frames)
            return UM_OK;
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    return um_set_error(UM_EIO, "bench live: frames were neither worked on nor counted");
}

static um_status report(const struct live *l, const um_device *dev, const um_frame *frame,
                        double fps, const um_run_counts *counts)
{
    double *ms = calloc((size_t)l->frames * 3, sizeof *ms), before = 0;
    size_t n = 0, all = (size_t)l->frames;
    if (!ms)
        return um_set_error(UM_ENOMEM, "bench live: times of frames");
    for (long i = 0; i < l->frames; i++) {
        const struct passage *p = &l->passage[i];
        if (!p->done)
            continue;
        /* The frame was there when it was begun, also where its sender lost the processor before it
         * read the clock. */
        double sent = p->sent < p->begun ? p->sent : p->begun;
        double free_at = before > sent ? before : sent; /* the frame before has the turn */
        before = p->done;
        if (!p->masked || i < WARM_UP)
            continue;
        ms[n] = p->masked - free_at - (p->done - p->begun);
        ms[all + n] = p->begun - free_at;
        ms[2 * all + n++] = p->masked - p->done;
    }
    printf(
        "{\"bench\":\"live\",\"fps\":%g,\"width\":%d,\"height\":%d,\"sent\":%ld,\"packets\":%llu,"
        "\"replaced\":%llu,\"masks\":%llu,",
        fps, frame->width, frame->height, l->frames, (unsigned long long)counts->frames,
        (unsigned long long)counts->replaced, (unsigned long long)l->masks);
    bench_print_ms("overhead", ms, n);
    printf(",");
    bench_print_ms("in", ms + all, n);
    printf(",");
    bench_print_ms("out", ms + 2 * all, n);
    printf(",");
    bench_print_machine(dev);
    printf("}\n");
    fflush(stdout);
    free(ms);
    return UM_OK;
}

static um_status measure(const struct options *o, const struct engine *e, um_frame *frame,
                         double fps)
{
    struct live l = {.frames = o->frames ? o->frames : 500, .client = -1};
    um_source *source = NULL;
    um_sink *sink = NULL;
    um_run *run = NULL;
    um_igtl *sender = NULL;
    um_run_settings set;
    um_run_counts counts = {.struct_size = sizeof counts};
    pthread_t client;
    bool started = false;
    int in = 0, out = 0;
    char address[40];
    um_run_settings_default(&set);
    l.passage = calloc((size_t)l.frames, sizeof *l.passage);
    um_status st = l.passage ? UM_OK : um_set_error(UM_ENOMEM, "times of frames");
    if (st == UM_OK)
        st = um_source_open(&source, "igtl-listen:127.0.0.1:0", NULL);
    if (st == UM_OK)
        st = um_sink_open(&sink, "igtl:127.0.0.1:0", NULL);
    if (st == UM_OK) {
        um_source_counts(source, find_port, &in);
        um_sink_counts(sink, find_port, &out);
        snprintf(address, sizeof address, "127.0.0.1:%d", in);
        set.pipeline = e->pipeline;
        set.source = source;
        set.sinks = &sink;
        set.n_sinks = 1;
        set.on_packet = on_packet;
        set.ctx = &l;
        l.client = open_client(out);
        started = l.client >= 0 && pthread_create(&client, NULL, receive_masks, &l) == 0;
        st = started ? um_run_open(&run, &set) : um_set_error(UM_EIO, "bench live: no client");
    }
    if (st == UM_OK)
        st = um_run_start(run);
    if (st == UM_OK)
        st = um_igtl_open(&sender, address);
    if (st == UM_OK)
        st = um_igtl_wait(sender, 5000);
    if (st == UM_OK)
        st = send_all(&l, sender, frame, fps);
    if (st == UM_OK)
        st = wait_for_last(&l, run);
    um_run_stop(run);
    if (st == UM_OK)
        st = um_run_join(run);
    if (run)
        um_run_stats(run, &counts);
    um_run_close(&run);
    um_sink_close(&sink);
    if (started)
        pthread_join(client, NULL);
    if (st == UM_OK)
        st = report(&l, e->dev, frame, fps, &counts);
    if (l.client >= 0)
        close(l.client);
    um_igtl_close(&sender);
    um_source_close(&source);
    free(l.passage);
    return st;
}

int bench_live(const struct options *o, const struct engine *e)
{
    static const double usual[] = {25, 60};
    um_source *phantom = NULL;
    um_frame *frame = NULL;
    um_status st = um_source_open(&phantom, "phantom:seed=1,frames=1,empty=0", NULL);
    if (st == UM_OK)
        st = um_source_read(phantom, &frame);
    if (st == UM_OK)
        st = um_pipeline_prepare(e->pipeline, frame->width, frame->height, frame->channels);
    for (int i = 0; i < (o->fps > 0 ? 1 : 2) && st == UM_OK; i++)
        st = measure(o, e, frame, o->fps > 0 ? (double)o->fps : usual[i]);
    um_frame_unref(&frame);
    um_source_close(&phantom);
    return st == UM_OK ? EXIT_DONE : cli_fail(st);
}
