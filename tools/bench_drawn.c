/* SPDX-License-Identifier: Apache-2.0 */
/* A source of frames that are drawn before anything is timed. The phantom takes some 6 ms of a
 * processor for a frame, and a run draws the next one while it computes: no camera does that. */
#include "bench.h"

#include <limits.h>

enum { MOST = 32 };

struct drawn {
    um_frame *drawn[MOST];
    int n;
};

static um_status open_drawn(void *priv, const char *arg, const um_source_settings *set, int wake_fd)
{
    struct drawn *p = priv;
    um_source *phantom = NULL;
    (void)wake_fd;
    um_status st = um_source_open(&phantom, arg, NULL);
    while (st == UM_OK && p->n < MOST && (set->frames == 0 || p->n < set->frames)) {
        st = um_source_read(phantom, &p->drawn[p->n]);
        p->n += st == UM_OK;
    }
    um_source_close(&phantom);
    return st;
}

static void drop(void *ctx)
{
    um_frame *drawn = ctx;
    um_frame_unref(&drawn);
}

static um_status read_drawn(void *priv, uint64_t index, um_frame **frame)
{
    struct drawn *p = priv;
    um_frame *f = p->drawn[index % (uint64_t)p->n];
    um_status st = um_frame_wrap(frame, f->width, f->height, f->channels, f->pixels, f->stride,
                                 drop, um_frame_ref(f));
    if (st != UM_OK)
        drop(f);
    return st;
}

static void close_drawn(void *priv)
{
    struct drawn *p = priv;
    for (int i = 0; i < p->n; i++)
        um_frame_unref(&p->drawn[i]);
}

static long count_drawn(const void *priv)
{
    (void)priv;
    return LONG_MAX;
}

um_status bench_register_drawn(void)
{
    static const um_source_ops ops = {.struct_size = sizeof ops,
                                      .scheme = "drawn",
                                      .usage = "drawn:phantom:",
                                      .priv_size = sizeof(struct drawn),
                                      .open = open_drawn,
                                      .read = read_drawn,
                                      .close = close_drawn,
                                      .length = count_drawn};
    return um_source_register(&ops);
}
