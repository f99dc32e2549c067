/* SPDX-License-Identifier: Apache-2.0 */
/* Every kernel of every level this machine can run against the plain-C reference: random odd
 * shapes, channel slices (rows further apart than their elements), canaries round every operand,
 * one, two and three threads bit for bit. The GPU's kernels run here too, thread by thread, in
 * three orders of warps and lanes that must agree bit for bit.
 *
 *     checkop [--level NAME] [--seed N] [--once] [--few] [OP]
 *                                        check all, or one op; on all levels, or one; once: one
 *                                        thread, one order; few: a quarter of the cases
 *     checkop --device cuda:0 [--precision fp32|fp16|bf16] [--seed N] [OP]
 *                                        the GPU's kernels on a device, three runs bit for bit
 *     checkop --bench [--threads N] [OP] time the shapes of MobileSAM at 1024, D-FINE at 640, …
 *
 * An operator without a case is a failure. Cases are in one file per family (checkop.h says how one
 * is written), operands in job.c, levels and devices in run.c, times in bench.c. */
#include "checkop.h"

#include "cuda/host_launch.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct op_case *find_case(enum um_op op)
{
    static const struct op_case *const families[] = {
        convolution_cases, norm_cases,  attention_cases, linear_cases, select_cases,
        sam_cases,         pixel_cases, block_cases,     track_cases};
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        for (const struct op_case *c = families[i]; c->random; c++)
            if (c->op == op)
                return c;
    return NULL;
}

static int failures;
static int repeats = 3; /* threads of the host, orders of the GPU's warps: all the same bits */

/* What rounding to a half may add per 1 + |result|. */
static double half_tolerance(const struct job *job)
{
    double step = job->act == UM_F16 ? 0x1p-11 : job->act == UM_BF16 ? 0x1p-8 : 0;
    return step * (1 + (job->rounding > 0 ? job->rounding : 1));
}

/* Prints the first element that differs by more than the tolerance. */
static bool same(const struct job *job, const char *level, const struct um_view *want,
                 const struct um_view *got)
{
    size_t e = um_dtype_size(want->dtype), f = um_dtype_size(got->dtype);
    double tolerance = job->tolerance + half_tolerance(job);
    for (int r = 0; r < want->h * want->w; r++)
        for (int i = 0; i < want->c; i++) {
            size_t off = (size_t)r * (size_t)want->ld + (size_t)i;
            const unsigned char *a = (unsigned char *)want->data + off * e,
                                *b = (unsigned char *)got->data + off * f;
            float x = 0, y = 0;
            if (want->dtype == UM_F32) {
                uint16_t half = 0;
                memcpy(&x, a, 4);
                memcpy(got->dtype == UM_F32 ? (void *)&y : (void *)&half, b, f);
                if (got->dtype != UM_F32)
                    y = half_value(got->dtype, half);
                if (x == y || (isnan(x) && isnan(y)) ||
                    fabs((double)x - y) <= tolerance * (1 + fabs((double)x)))
                    continue;
            } else if (memcmp(a, b, e) == 0) {
                continue;
            } else {
                x = *a;
                y = *b;
            }
            printf("FAILED %s at %s: %s: row %d of %d, channel %d: %.9g, want %.9g\n",
                   um_op_name(job->op), level, job->what, r, want->h * want->w, i, (double)y,
                   (double)x);
            return false;
        }
    return true;
}

static bool check_level(const struct job *job, const struct um_ops *ops, const struct um_view *want,
                        um_pool *const *pools)
{
    struct memory first[UM_OPERANDS] = {{{0}, NULL, 0}}, out[UM_OPERANDS] = {{{0}, NULL, 0}};
    struct um_view t[UM_OPERANDS], u[UM_OPERANDS];
    views(job, ops, t, first);
    um_host_schedule(UM_HOST_FORWARD, 1);
    bool ok = run(job, ops, pools[0], t) == UM_OK;
    if (!ok)
        printf("FAILED %s at %s: %s: %s\n", um_op_name(job->op), ops->name, job->what,
               um_last_error());
    for (int i = 0; i < job->n_out && ok; i++) {
        if (!t[i].data)
            continue;
        ok = same(job, ops->name, &want[i], &t[i]);
        if (ok && !canaries_alive(&first[i])) {
            printf("FAILED %s at %s: %s: wrote outside output %d\n", um_op_name(job->op), ops->name,
                   job->what, i);
            ok = false;
        }
    }
    for (int i = job->n_out; i < job->n && ok; i++)
        if (job->m[i].base && !canaries_alive(&job->m[i])) {
            printf("FAILED %s at %s: %s: wrote round input %d\n", um_op_name(job->op), ops->name,
                   job->what, i);
            ok = false;
        }
    for (int p = 1; p < repeats && ok; p++) {
        views(job, ops, u, out);
        um_host_schedule(p == 1 ? UM_HOST_REVERSE : UM_HOST_SEEDED, (uint64_t)p);
        ok = run(job, ops, pools[p], u) == UM_OK;
        if (!ok)
            printf("FAILED %s at %s: %s: %s\n", um_op_name(job->op), ops->name, job->what,
                   um_last_error());
        for (int i = 0; i < job->n_out && ok; i++)
            if (u[i].data && memcmp(out[i].base, first[i].base, out[i].size) != 0) {
                printf("FAILED %s at %s: %s: %s %d gives another result than the first\n",
                       um_op_name(job->op), ops->name, job->what,
                       ops->launches ? "order" : "number of threads", p + 1);
                ok = false;
            }
        views_free(job, u, out);
        memset(out, 0, sizeof out);
    }
    views_free(job, t, first);
    return ok;
}

static int share = 1; /* of the cases, one in so many */

/* Run by the host, thread by thread, a GPU's kernels take long. */
static int cases_of(const struct op_case *g, bool on_host)
{
    bool fewer = on_host && (!gpu || getenv("ULTRAMOTION_CUDA_DRIVER"));
    return ((fewer ? 8 + g->cases / 4 : g->cases) + share - 1) / share;
}

/* In a block what becomes narrow was computed: where it differs in its last bit it may become the
 * next bf16, */
static const double FLIPS = 1e-2;
/* or the next byte: so many that meet in one number, each through the largest weight. */
static const double BYTES_MEET = 4;

/* What one step of a byte may do to a result. */
static double byte_step(const struct job *job)
{
    double most = 0;
    for (int n = 0; n < job->n; n++) {
        const struct packing *p = &job->pack[n];
        for (int i = 0; p->type == UM_I8 && i < p->o * p->kh * p->kw * p->i; i++) {
            double step = (double)(p->range.hi - p->range.lo) / 255 / (1 << p->shift[i % p->i]);
            most = fmax(most, step * fabs((double)p->plain[i]));
        }
    }
    return most;
}
/* Between tokens and image pixels, folded rows, weights and values are rounded, half a step of bf16
 * each, and a norm multiplies by up to 2. */
static const double CROSS_STEPS = 5 * 0x1p-8;

static bool takes_narrow(enum um_op op)
{
    return op == UM_OP_CONV2D || op == UM_OP_MLP || op == UM_OP_MBCONV || op == UM_OP_WINDOW_BLOCK;
}

static bool attends(enum um_op op) /* in bf16, if its arguments say so */
{
    return op == UM_OP_ATTENTION || op == UM_OP_RELATIVE_ATTENTION || op == UM_OP_TOKEN_TO_IMAGE ||
           op == UM_OP_IMAGE_TO_TOKEN;
}

static void attend_in_bf16(struct job *job)
{
    bool relative = job->op == UM_OP_RELATIVE_ATTENTION;
    if (!relative && job->op != UM_OP_ATTENTION) {
        job->args.cross.bf16 = true;
        job->tolerance = CROSS_STEPS;
        return;
    }
    int c = job->m[0].view.c;
    float scale =
        relative ? 1 / sqrtf((float)(c / job->args.relative.heads)) : job->args.attention.scale;
    *(relative ? &job->args.relative.bf16 : &job->args.attention.bf16) = true;
    job->tolerance = FLIPS;
    for (int i = 1; i < job->n; i++) /* queries are the first operand, or its first columns */
        for (int r = 0; r < job->m[i].view.h * job->m[i].view.w; r++)
            for (int k = 0; k < job->m[i].view.c; k++)
                round_times(at(&job->m[i].view, r, k), i == 1 && k < c ? scale : 1);
}

static bool all_have_bf16(void)
{
    for (int l = 0; levels[l]; l++)
        if (takes_type(levels[l], UM_I8) && !takes_type(levels[l], UM_BF16))
            return false;
    return true;
}

/* One random call against every level whose activations are of type `act`, weights of `type`. */
static bool check_case(const struct op_case *g, int k, enum um_dtype act, enum um_dtype type,
                       const struct um_ops *base, uint64_t seed, um_pool *const *pools)
{
    struct job job = {.tolerance = 0};
    struct um_view want[UM_OPERANDS];
    struct memory out[UM_OPERANDS] = {{{0}, NULL, 0}};
    bool ok = true;
    rng_state = seed + (uint64_t)g->op * 1000003u + (uint64_t)k * 7919u;
    g->random(&job);
    job.halves = g->halves;
    round_operands(&job, act);
    if (attends(g->op) && type == UM_BF16)
        attend_in_bf16(&job);
    else if (type != UM_U8 && !use_narrow(&job, type)) {
        job_free(&job);
        return true;
    }
    if (g->op == UM_OP_WINDOW_BLOCK) /* attention in bf16, which a level with bytes may lack */
        job.args.block.bf16 =
            job.pack[4].type == UM_BF16 || (job.pack[4].type == UM_I8 && k % 2 && all_have_bf16());
    bool block = takes_narrow(g->op) && g->op != UM_OP_CONV2D;
    if (block && type == UM_I8)
        job.tolerance += BYTES_MEET * byte_step(&job) +
                         (g->op == UM_OP_WINDOW_BLOCK && job.args.block.bf16 ? FLIPS : 0);
    else if (block && type == UM_BF16)
        job.tolerance = FLIPS;
    else if (g->op == UM_OP_CONV2D && type != UM_U8 && job.args.conv.act == UM_ACT_GELU)
        job.tolerance += UM_GELU_BRIEF;
    else if (g->op == UM_OP_CONV2D && type != UM_U8 && job.args.conv.act == UM_ACT_SILU)
        job.tolerance += UM_SILU_BRIEF;
    views(&job, base, want, out);
    if (job.reference)
        job.reference(&job, pools[1], want);
    else
        run(&job, base, pools[1], want);
    for (int l = 0; levels[l] && ok; l++)
        if (levels[l]->act == act && takes_type(levels[l], type) &&
            takes_part(levels[l], base, g->op) && k < cases_of(g, levels[l]->launches))
            ok = check_level(&job, levels[l], want, pools);
    if (!ok)
        printf("  case %d%s%s of --seed %llu %s\n", k, type != UM_U8 ? " in " : "",
               type != UM_U8 ? um_precision_name(type) : "", (unsigned long long)seed,
               um_op_name(g->op));
    views_free(&job, want, out);
    job_free(&job);
    return ok;
}

static bool check_op(const struct op_case *g, const struct um_ops *base, uint64_t seed,
                     um_pool *const *pools)
{
    bool any = false, ok = true;
    for (int l = 0; levels[l]; l++)
        any = any || takes_part(levels[l], base, g->op);
    for (int k = 0; any && k < cases_of(g, false) && ok; k++)
        ok = check_case(g, k, UM_F32, UM_U8, base, seed, pools) &&
             (!takes_narrow(g->op) || check_case(g, k, UM_F32, UM_I8, base, seed, pools)) &&
             (!(takes_narrow(g->op) || attends(g->op)) ||
              check_case(g, k, UM_F32, UM_BF16, base, seed, pools));
    for (int k = 0; any && k < cases_of(g, true) && ok; k++)
        ok = check_case(g, k, UM_F16, UM_U8, base, seed, pools) &&
             check_case(g, k, UM_BF16, UM_U8, base, seed, pools);
    return ok;
}

static int check(const char *only, uint64_t seed)
{
    const struct um_ops *base = find_levels();
    um_pool *pools[3] = {NULL};
    int checked = 0;
    for (int i = 0; i < 3; i++)
        if (um_pool_open(&pools[i], i + 1) != UM_OK) {
            fprintf(stderr, "checkop: %s\n", um_last_error());
            return 2;
        }
    if (!levels[0]) {
        fprintf(stderr, "checkop: no level%s%s%s%s on this machine\n", wanted_level ? " " : "",
                wanted_level ? wanted_level : "", wanted_precision ? " in " : "",
                wanted_precision ? wanted_precision : "");
        return 2;
    }
    printf("levels:");
    for (int l = 0; levels[l]; l++)
        printf(" %s", levels[l]->name);
    printf(", against %s, seed %llu\n", base->name, (unsigned long long)seed);
    for (enum um_op op = 0; op < UM_OPS; op++) {
        const struct op_case *g = find_case(op);
        if (only && strcmp(only, um_op_name(op)) != 0)
            continue;
        checked++;
        if (!g)
            printf("FAILED %s: no case\n", um_op_name(op));
        if (!g || !check_op(g, base, seed, pools))
            failures++;
    }
    for (int i = 0; i < 3; i++)
        um_pool_close(&pools[i]);
    if (!checked)
        fprintf(stderr, "checkop: no operator is called %s\n", only);
    printf("%d ops checked, %d failed\n", checked, failures);
    return failures || !checked ? 1 : 0;
}

int main(int argc, char **argv)
{
    const char *only = NULL, *device = NULL;
    bool timing = false;
    uint64_t seed = 1;
    int threads = 2;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--bench") == 0)
            timing = true;
        else if (strcmp(argv[i], "--once") == 0)
            repeats = 1;
        else if (strcmp(argv[i], "--few") == 0)
            share = 4;
        else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
            seed = strtoull(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc)
            threads = atoi(argv[++i]);
        else if (strcmp(argv[i], "--device") == 0 && i + 1 < argc)
            device = argv[++i];
        else if (strcmp(argv[i], "--precision") == 0 && i + 1 < argc)
            wanted_precision = argv[++i];
        else if (strcmp(argv[i], "--level") == 0 && i + 1 < argc)
            wanted_level = argv[++i];
        else
            only = argv[i];
    }
    if (device && open_gpu(device) != 0)
        return 2;
    return timing ? bench(only, threads) : check(only, seed);
}
