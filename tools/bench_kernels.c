/* SPDX-License-Identifier: Apache-2.0 */
/* bench kernels: every step of the networks, the longest first. bench roofline: the same by parts
 * of the networks, held against the rate of matrix products in the same run. */
#include "bench.h"
#include "list.h"

#include <stdlib.h>
#include <string.h>

enum { PLACE = 96, PART_WORDS = 3 /* and a number behind them */ };

struct step {
    char place[PLACE];
    const char *op; /* NULL: several */
    int index, h, w, c, k, steps;
    double gflop, bytes, min_ms, median_ms;
};

struct steps {
    struct step *step;
    int n;
    bool failed;
};

static void add_step(void *ctx, const um_bench_kernel *k)
{
    struct steps *s = ctx;
    s->failed = s->failed || !list_room(&s->step, s->n, sizeof *s->step);
    if (s->failed)
        return;
    struct step *to = &s->step[s->n++];
    *to = (struct step){.op = k->op,
                        .index = k->index,
                        .h = k->h,
                        .w = k->w,
                        .c = k->c,
                        .k = k->k,
                        .steps = 1,
                        .gflop = k->gflop,
                        .bytes = k->bytes,
                        .min_ms = k->min_ms,
                        .median_ms = k->median_ms};
    snprintf(to->place, sizeof to->place, "%s", k->place);
}

static um_status measure(struct steps *s, um_bench_stage stage, const struct engine *e, int rounds)
{
    um_bench *bench = NULL;
    s->n = 0;
    um_status st = um_bench_open(&bench, stage, e->detector, e->segmenter, 1);
    if (st == UM_OK)
        st = um_bench_kernels(bench, rounds, add_step, s);
    um_bench_close(&bench);
    return st == UM_OK && s->failed ? um_set_error(UM_ENOMEM, "steps") : st;
}

static int longest_first(const void *a, const void *b)
{
    const struct step *x = a, *y = b;
    if (x->min_ms != y->min_ms)
        return x->min_ms < y->min_ms ? 1 : -1;
    return x->index - y->index;
}

static struct step sum_of(const struct steps *s)
{
    struct step sum = {.op = "sum"};
    for (int i = 0; i < s->n; i++) {
        sum.min_ms += s->step[i].min_ms;
        sum.median_ms += s->step[i].median_ms;
        sum.gflop += s->step[i].gflop;
        sum.bytes += s->step[i].bytes;
        sum.steps += s->step[i].steps;
    }
    return sum;
}

static double per_second(double amount, double ms)
{
    return ms > 0 ? amount / ms * 1e3 : 0;
}

static double share_of(const struct step *s, const struct step *sum)
{
    return sum->min_ms > 0 ? s->min_ms / sum->min_ms : 0;
}

int bench_kernels(const struct options *o, const struct engine *e)
{
    struct steps s = {.step = NULL};
    um_status st = UM_OK;
    for (int stage = 0; stage < BENCH_STAGES && st == UM_OK && !ferror(stdout); stage++) {
        const char *name = bench_stage_names[stage];
        st = measure(&s, (um_bench_stage)stage, e, o->rounds);
        if (st != UM_OK)
            break;
        const struct step sum = sum_of(&s);
        qsort(s.step, (size_t)s.n, sizeof *s.step, longest_first);
        if (o->table)
            printf("%s%-64s %-17s %13s %6s %6s %9s %6s %8s %7s\n", stage ? "\n" : "", name, "op",
                   "rows", "chan.", "k", "ms", "share", "GFLOP/s", "GB/s");
        for (int i = 0; i < s.n; i++) {
            const struct step *k = &s.step[i];
            double share = share_of(k, &sum), gflops = per_second(k->gflop, k->min_ms),
                   rate = per_second(k->bytes, k->min_ms);
            if (o->table)
                printf("%-64s %-17s %6dx%-6d %6d %6d %9.4f %5.1f%% %8.1f %7.1f\n", k->place, k->op,
                       k->h, k->w, k->c, k->k, k->min_ms, 100 * share, gflops, 1e-9 * rate);
            else
                printf("{\"bench\":\"kernels\",\"stage\":\"%s\",\"place\":\"%s\",\"index\":%d,"
                       "\"op\":\"%s\",\"rows\":[%d,%d],\"channels\":%d,\"k\":%d,\"min_ms\":%.4f,"
                       "\"median_ms\":%.4f,\"share\":%.4f,\"gflops\":%.1f,\"bytes_per_s\":%.4g}\n",
                       name, k->place, k->index, k->op, k->h, k->w, k->c, k->k, k->min_ms,
                       k->median_ms, share, gflops, rate);
        }
        if (o->table) {
            printf("%-64s %-17s %13s %6s %6s %9.4f %6s %8.1f %7.1f\n", "sum", "", "", "", "",
                   sum.min_ms, "", per_second(sum.gflop, sum.min_ms),
                   1e-9 * per_second(sum.bytes, sum.min_ms));
        } else {
            printf("{\"bench\":\"kernels\",\"stage\":\"%s\",\"op\":\"sum\",\"min_ms\":%.4f,"
                   "\"gflop\":%.3f,",
                   name, sum.min_ms, sum.gflop);
            bench_print_machine(e->dev);
            printf("}\n");
        }
    }
    free(s.step);
    return st == UM_OK ? EXIT_DONE : cli_fail(st);
}

/* ---- roofline ---- */

/* Steps in the order of the network to parts of it: those whose places begin with the same words.
 */
static void join_parts(struct steps *s)
{
    int n = 0;
    for (int i = 0; i < s->n; i++) {
        struct step k = s->step[i];
        char *at = k.place;
        for (int words = 0; at && words < PART_WORDS; words++)
            at = strchr(at + 1, '.');
        if (at && at[1] >= '0' && at[1] <= '9')
            at = strchr(at + 1, '.');
        if (at)
            *at = 0;
        k.op = NULL;
        int j = 0;
        while (j < n && strcmp(s->step[j].place, k.place) != 0)
            j++;
        if (j == n) {
            s->step[n++] = k;
            continue;
        }
        s->step[j].min_ms += k.min_ms;
        s->step[j].median_ms += k.median_ms;
        s->step[j].gflop += k.gflop;
        s->step[j].bytes += k.bytes;
        s->step[j].steps++;
    }
    s->n = n;
}

/* The best rate so far. */
static um_status measure_gemm(struct steps *s, const struct engine *e, int rounds, double *gflops)
{
    um_status st = measure(s, UM_BENCH_GEMM, e, rounds);
    for (int i = 0; i < s->n && st == UM_OK; i++) {
        double rate = per_second(s->step[i].gflop, s->step[i].min_ms);
        *gflops = rate > *gflops ? rate : *gflops;
    }
    return st;
}

static void print_part(const struct options *o, const char *stage, const char *part,
                       const struct step *k, const struct step *sum, double gemm)
{
    double gflops = per_second(k->gflop, k->min_ms), rate = per_second(k->bytes, k->min_ms),
           beyond = k->min_ms - 1e3 * k->gflop / gemm;
    if (o->table)
        printf("%-8s %-40s %5d %9.3f %5.1f%% %8.3f %8.1f %7.1f %6.2f %9.3f\n", stage, part,
               k->steps, k->min_ms, 100 * share_of(k, sum), k->gflop, gflops, 1e-9 * rate,
               gflops / gemm, beyond);
    else
        printf("{\"bench\":\"roofline\",\"stage\":\"%s\",\"part\":\"%s\",\"steps\":%d,"
               "\"min_ms\":%.4f,\"share\":%.4f,\"gflop\":%.4f,\"gflops\":%.1f,"
               "\"bytes_per_s\":%.4g,\"of_gemm\":%.3f,\"beyond_gemm_ms\":%.4f}\n",
               stage, part, k->steps, k->min_ms, share_of(k, sum), k->gflop, gflops, rate,
               gflops / gemm, beyond);
}

int bench_roofline(const struct options *o, const struct engine *e)
{
    struct steps s = {.step = NULL}, of[BENCH_STAGES] = {{.step = NULL}};
    double gemm = 0;
    um_status st = measure_gemm(&s, e, o->rounds, &gemm);
    for (int stage = 0; stage < BENCH_STAGES && st == UM_OK; stage++) {
        st = measure(&of[stage], (um_bench_stage)stage, e, o->rounds);
        if (st == UM_OK)
            st = measure_gemm(&s, e, o->rounds, &gemm);
    }
    if (st == UM_OK && o->table)
        printf("%-8s %-40s %5s %9s %6s %8s %8s %7s %6s %9s\n", "stage", "part", "steps", "ms",
               "share", "GFLOP", "GFLOP/s", "GB/s", "ofGEMM", "ms beyond");
    for (int stage = 0; stage < BENCH_STAGES && st == UM_OK; stage++) {
        const struct step sum = sum_of(&of[stage]);
        join_parts(&of[stage]);
        for (int i = 0; i < of[stage].n; i++)
            print_part(o, bench_stage_names[stage], of[stage].step[i].place, &of[stage].step[i],
                       &sum, gemm);
        print_part(o, bench_stage_names[stage], "sum", &sum, &sum, gemm);
    }
    if (st == UM_OK && o->table) {
        printf("GEMM: %.1f GFLOP/s (%s, %s, %d threads), the best of three shapes\n", gemm,
               um_device_isa(e->dev), um_device_precision(e->dev), um_device_threads(e->dev));
    } else if (st == UM_OK) {
        printf("{\"bench\":\"roofline\",\"stage\":\"gemm\",\"gflops\":%.1f,", gemm);
        bench_print_machine(e->dev);
        printf("}\n");
    }
    for (int stage = 0; stage < BENCH_STAGES; stage++)
        free(of[stage].step);
    free(s.step);
    return st == UM_OK ? EXIT_DONE : cli_fail(st);
}
