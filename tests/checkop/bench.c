/* SPDX-License-Identifier: Apache-2.0 */
/* Time of the shapes of MobileSAM and SAM ViT-B at 1024 and of D-FINE at 640. */
#include "checkop.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const struct bench benches[] = {
    {"sam", UM_OP_NORMALIZE, 1, {768, 1024, 1, 1024, 1024, 3}, 0},
    {"sam", UM_OP_RESIZE, 1, {960, 1280, 1, 1024, 0}, 0},
    {"sam", UM_OP_RESIZE, 1, {960, 1024, 1, 768, 1}, 0},
    {"sam", UM_OP_CONV2D, 1, {1024, 1024, 3, 32, 3, 2, 1}, UM_ACT_GELU},
    {"sam", UM_OP_CONV2D, 1, {512, 512, 32, 64, 3, 2, 1}, UM_ACT_NONE},
    {"sam", UM_OP_MBCONV, 2, {256, 256, 64, 256, 64, 1, 1}, 0},
    {"sam", UM_OP_MBCONV, 1, {256, 256, 64, 128, 128, 2, 0}, 0},
    {"sam", UM_OP_WINDOW_BLOCK, 2, {128, 128, 7, 4, 32}, 0},
    {"sam", UM_OP_LAYER_NORM, 2, {128, 128, 128}, 0},
    {"sam", UM_OP_CONV2D, 2, {1, 16384, 128, 384, 1, 1, 0}, 0},
    {"sam", UM_OP_WINDOW_ATTENTION, 2, {128, 128, 7, 4, 32}, 0},
    {"sam", UM_OP_CONV2D, 2, {1, 16384, 128, 128, 1, 1, 0}, 0},
    {"sam", UM_OP_DWCONV, 2, {128, 128, 128, 3, 1}, 0},
    {"sam", UM_OP_MLP, 2, {128, 128, 128, 512}, 0},
    {"sam", UM_OP_MBCONV, 1, {128, 128, 128, 160, 160, 2, 0}, 0},
    {"sam", UM_OP_WINDOW_BLOCK, 6, {64, 64, 14, 5, 32}, 0},
    {"sam", UM_OP_LAYER_NORM, 6, {64, 64, 160}, 0},
    {"sam", UM_OP_CONV2D, 6, {1, 4096, 160, 480, 1, 1, 0}, 0},
    {"sam", UM_OP_WINDOW_ATTENTION, 6, {64, 64, 14, 5, 32}, 0},
    {"sam", UM_OP_CONV2D, 6, {1, 4096, 160, 160, 1, 1, 0}, 0},
    {"sam", UM_OP_DWCONV, 6, {64, 64, 160, 3, 1}, 0},
    {"sam", UM_OP_MLP, 6, {64, 64, 160, 640}, 0},
    {"sam", UM_OP_MBCONV, 1, {64, 64, 160, 320, 320, 1, 0}, 0},
    {"sam", UM_OP_WINDOW_BLOCK, 2, {64, 64, 7, 10, 32}, 0},
    {"sam", UM_OP_LAYER_NORM, 2, {64, 64, 320}, 0},
    {"sam", UM_OP_CONV2D, 2, {1, 4096, 320, 960, 1, 1, 0}, 0},
    {"sam", UM_OP_WINDOW_ATTENTION, 2, {64, 64, 7, 10, 32}, 0},
    {"sam", UM_OP_CONV2D, 2, {1, 4096, 320, 320, 1, 1, 0}, 0},
    {"sam", UM_OP_DWCONV, 2, {64, 64, 320, 3, 1}, 0},
    {"sam", UM_OP_MLP, 2, {64, 64, 320, 1280}, 0},
    {"sam", UM_OP_CONV2D, 1, {64, 64, 320, 256, 1, 1, 0}, 0},
    {"sam", UM_OP_CONV2D, 1, {64, 64, 256, 256, 3, 1, 1}, 0},
    {"sam", UM_OP_LAYER_NORM, 2, {64, 64, 256}, 0},
    {"sam decoder", UM_OP_ATTENTION, 2, {7, 7, 8, 32}, 0},
    {"sam decoder", UM_OP_ATTENTION, 3, {7, 4096, 8, 16}, 0},
    {"sam decoder", UM_OP_ATTENTION, 2, {4096, 7, 8, 16}, 0},
    {"sam decoder", UM_OP_TOKEN_TO_IMAGE, 3, {7, 64, 64, 128, 256}, 0},
    {"sam decoder", UM_OP_IMAGE_TO_TOKEN, 2, {7, 64, 64, 128, 256}, 0},
    {"sam decoder", UM_OP_CONV2D, 6, {1, 4096, 256, 128, 1, 1, 0}, 0},
    {"sam decoder", UM_OP_CONV2D, 2, {1, 4096, 128, 256, 1, 1, 0}, 0},
    {"sam decoder", UM_OP_CONV2D, 2, {1, 7, 256, 2048, 1, 1, 0}, UM_ACT_RELU},
    {"sam decoder", UM_OP_ADD, 5, {64, 64, 256, 0}, 0},
    {"sam decoder", UM_OP_LAYER_NORM, 2, {64, 64, 256}, 0},
    {"sam decoder", UM_OP_UPCONV2, 1, {64, 64, 256, 64}, 0},
    {"sam decoder", UM_OP_LAYER_NORM, 1, {128, 128, 64}, UM_ACT_GELU},
    {"sam decoder", UM_OP_UPCONV2, 1, {128, 128, 64, 32}, UM_ACT_GELU},
    {"sam decoder", UM_OP_MATMUL_NT, 1, {65536, 1, 32}, 0},
    {"sam decoder", UM_OP_MASK, 1, {256, 768, 1024, 960, 1280}, 0},
    {"sam decoder", UM_OP_MASK_STATS, 1, {960, 1280, 2}, 0},
    {"sam decoder", UM_OP_PACKET, 1, {960, 1280}, 0},
    {"sam decoder", UM_OP_CLEAN, 1, {960, 1280}, 0},
    {"sam vit-b", UM_OP_RELATIVE_ATTENTION, 4, {64, 64, 64, 12, 64}, 0},
    {"sam vit-b", UM_OP_RELATIVE_ATTENTION, 8, {64, 64, 14, 12, 64}, 0},
    {"sam vit-b", UM_OP_MLP, 12, {64, 64, 768, 3072}, 0},
    {"sam vit-b", UM_OP_CONV2D, 12, {1, 4096, 768, 2304, 1, 1, 0}, 0},
    {"sam vit-b", UM_OP_CONV2D, 12, {1, 4096, 768, 768, 1, 1, 0}, 0},
    {"dfine-n", UM_OP_NORMALIZE, 1, {640, 640, 1, 640, 640, 3}, 0},
    {"dfine-n", UM_OP_CONV2D, 1, {640, 640, 3, 16, 3, 2, 1}, UM_ACT_RELU},
    {"dfine-n", UM_OP_CONV2D, 1, {320, 320, 16, 8, 2, 1, 0}, UM_ACT_RELU},
    {"dfine-n", UM_OP_CONV2D, 1, {320, 320, 8, 16, 2, 1, 0}, UM_ACT_RELU},
    {"dfine-n", UM_OP_MAXPOOL2, 1, {320, 320, 16}, 0},
    {"dfine-n", UM_OP_CONV2D, 1, {320, 320, 32, 16, 3, 2, 1}, UM_ACT_RELU},
    {"dfine-n", UM_OP_CONV2D, 1, {160, 160, 16, 16, 1, 1, 0}, UM_ACT_RELU},
    {"dfine-n", UM_OP_CONV2D, 3, {160, 160, 16, 16, 3, 1, 1}, UM_ACT_RELU},
    {"dfine-n", UM_OP_CONV2D, 1, {160, 160, 64, 32, 1, 1, 0}, UM_ACT_RELU},
    {"dfine-n", UM_OP_CONV2D, 1, {160, 160, 32, 64, 1, 1, 0}, UM_ACT_RELU},
    {"dfine-n", UM_OP_CONV2D, 2, {80, 80, 32, 32, 3, 1, 1}, UM_ACT_RELU},
    {"dfine-n", UM_OP_CONV2D, 1, {80, 80, 160, 128, 1, 1, 0}, UM_ACT_RELU},
    {"dfine-n", UM_OP_CONV2D, 1, {80, 80, 128, 256, 1, 1, 0}, UM_ACT_RELU},
    {"dfine-n", UM_OP_DWCONV, 6, {40, 40, 64, 5, 1}, UM_ACT_RELU},
    {"dfine-n", UM_OP_CONV2D, 2, {40, 40, 448, 256, 1, 1, 0}, UM_ACT_RELU},
    {"dfine-n", UM_OP_CONV2D, 2, {20, 20, 896, 512, 1, 1, 0}, UM_ACT_RELU},
    {"dfine-n", UM_OP_ATTENTION, 1, {400, 400, 8, 16}, 0},
    {"dfine-n", UM_OP_ATTENTION, 3, {300, 300, 8, 16}, 0},
    {"dfine-n", UM_OP_CONV2D, 12, {1, 300, 128, 128, 1, 1, 0}, 0},
    {"dfine-n", UM_OP_CONV2D, 3, {1, 300, 128, 512, 1, 1, 0}, UM_ACT_RELU},
    {"dfine-n", UM_OP_LAYER_NORM, 6, {1, 300, 128}, 0},
    {"dfine-n", UM_OP_GATE_NORM, 3, {300, 128}, 0},
    {"dfine-n", UM_OP_TOPK, 1, {2000, 80, 300}, 0},
    {"dfine-n", UM_OP_DEFORM, 3, {300, 8, 16, 2}, 0},
    {"dfine-n", UM_OP_INTEGRAL, 3, {300, 33}, 0},
    {"dfine-n", UM_OP_LQE_STATS, 1, {300, 33}, 0},
    {"dfine-n", UM_OP_REFINE, 3, {300, 4, 1}, 0},
    {"dfine-s", UM_OP_ATTENTION, 1, {400, 400, 8, 32}, 0},
    {"dfine-s", UM_OP_ATTENTION, 3, {300, 300, 8, 32}, 0},
    {"dfine-s", UM_OP_TOPK, 1, {8400, 80, 300}, 0},
    {"dfine-s", UM_OP_DEFORM, 3, {300, 8, 32, 3}, 0},
    {"dfine-s", UM_OP_CONV2D, 6, {1, 8400, 256, 256, 1, 1, 0}, 0},
    {"dfine-s", UM_OP_CONV2D, 4, {80, 80, 64, 64, 3, 1, 1}, UM_ACT_SILU},
    {"act", UM_OP_ADD, 1, {64, 64, 64, 1}, UM_ACT_GELU},
    {"act", UM_OP_ADD, 1, {64, 64, 64, 1}, UM_ACT_SILU},
    {"act", UM_OP_ADD, 1, {64, 64, 64, 1}, UM_ACT_RELU},
};

static int by_time(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* On one thread processor time, which other work on the machine hardly changes; else the time that
 * passes. */
static uint64_t now_ns(const um_pool *pool)
{
    struct timespec t;
    if (um_pool_threads(pool) > 1 || clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) != 0)
        return um_clock_ns();
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Quickest and median ms of some 60 ms of runs. */
static void measure(const struct job *job, const struct um_ops *ops, um_pool *pool, double *best,
                    double *median)
{
    enum { RUNS = 400 };
    static uint64_t t[RUNS];
    struct um_view v[UM_OPERANDS];
    struct memory out[UM_OPERANDS] = {{{0}, NULL, 0}};
    int n = 0;
    uint64_t spent = 0;
    views(job, ops, v, out);
    run(job, ops, pool, v);
    while (n < 3 || (n < RUNS && spent < 60000000u)) {
        uint64_t start = now_ns(pool);
        run(job, ops, pool, v);
        t[n] = now_ns(pool) - start;
        spent += t[n++];
    }
    qsort(t, (size_t)n, sizeof *t, by_time);
    *best = (double)t[0] * 1e-6;
    *median = (double)t[n / 2] * 1e-6;
    views_free(job, v, out);
}

int bench(const char *only, int threads)
{
    const struct um_ops *base = find_levels();
    um_pool *pool = NULL;
    if (um_pool_open(&pool, threads) != UM_OK) {
        fprintf(stderr, "checkop: %s\n", um_last_error());
        return 2;
    }
    const struct um_ops *ops = um_ops_host()[0];
    double total = 0;
    printf("level %s, %d threads; per call the quickest run, the median, and the median times "
           "calls per frame\n",
           ops->name, um_pool_threads(pool));
    for (size_t i = 0; i < sizeof benches / sizeof *benches; i++) {
        const struct bench *b = &benches[i];
        const struct op_case *c = find_case(b->op);
        if ((only && strcmp(only, um_op_name(b->op)) != 0) || !ops->kernel[b->op])
            continue;
        if (!c || !c->bench) {
            fprintf(stderr, "checkop: no case to time %s with\n", um_op_name(b->op));
            return 2;
        }
        struct job job = {.tolerance = 0};
        double best, median;
        rng_state = 1;
        c->bench(&job, b);
        double bytes = 0;
        for (int k = 0; k < job.n; k++)
            bytes += job.m[k].base
                         ? (double)job.m[k].size
                         : 4.0 * job.pack[k].o * job.pack[k].kh * job.pack[k].kw * job.pack[k].i;
        measure(&job, ops, pool, &best, &median);
        total += median * b->count;
        printf("%-12s %-17s%s %8.3f %8.3f ms %8.2f ms %7.1f GFLOP/s %6.1f GB/s  %s\n", b->net,
               um_op_name(b->op), takes_part(ops, base, b->op) ? "" : "*", best, median,
               median * b->count, 2e-6 * job.macs / median, 1e-6 * bytes / median, job.what);
        fflush(stdout);
        job_free(&job);
    }
    printf("sum %.1f ms (* = reference kernel)\n", total);
    um_pool_close(&pool);
    return 0;
}
