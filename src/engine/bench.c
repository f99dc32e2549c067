/* SPDX-License-Identifier: Apache-2.0 */
#include "ultramotion/bench.h"

#include "base/half.h"
#include "base/mem.h"
#include "engine/detector.h"
#include "engine/segmenter.h"
#include "nn/block.h"

#include <stdlib.h>
#include <string.h>

/* A stage alone: a session of its own with noise in its input. */
struct um_bench {
    um_detect detect;
    um_encode encode;
    um_decode decode;
    um_buf *prompt;
    um_tape *tape; /* of one of them */
};

void um_bench_close(um_bench **bench)
{
    um_bench *s = bench ? *bench : NULL;
    if (!s)
        return;
    um_decode_close(&s->decode);
    um_buf_close(&s->prompt);
    um_encode_close(&s->encode);
    um_detect_close(&s->detect);
    um_free(s);
    *bench = NULL;
}

static um_status fill_noise(um_buf *input)
{
    void *noise = um_array(input->size, 1);
    if (!noise)
        return um_fail(UM_ENOMEM, "bench input");
    uint32_t x = 1;
    enum um_dtype dtype = input->dev->precision;
    for (size_t i = 0; i < input->size / um_dtype_size(dtype); i++) {
        x = x * 1664525u + 1013904223u;
        float v = (float)(x >> 8) / 16777216.0f;
        if (dtype == UM_F32)
            ((float *)noise)[i] = v;
        else
            (dtype == UM_F16 ? um_f32_to_f16 : um_f32_to_bf16)((uint16_t *)noise + i, &v, 1);
    }
    um_status st =
        um_upload_now(input->dev, input, 0, noise, input->size, UM_STAGE_SETUP, "bench input");
    um_free(noise);
    return st;
}

static um_status open_detect(um_bench *s, const um_detector *d, int gray)
{
    struct um_detect_path *path = NULL;
    um_detect_open(&s->detect, d, false);
    um_status st = um_detect_path(&s->detect, um_detector_channels(d, gray ? 1 : 3), &path);
    if (st == UM_OK)
        st = fill_noise(path->input);
    s->tape = path->tape;
    return st;
}

static um_status open_segment(um_bench *s, const um_segmenter *m, bool decode)
{
    struct um_prompt prompt = {.width = 100, .height = 100, .has_box = 1, .box = {20, 20, 80, 80}};
    um_status st = um_encode_open(&s->encode, m, false);
    if (st == UM_OK)
        st = um_buf_open(&s->prompt, m->dev, sizeof prompt, "bench prompt");
    struct um_decode_input in = {.encode = &s->encode, .prompt = s->prompt};
    if (st == UM_OK)
        st = um_decode_open(&s->decode, m, (struct um_prompt_kind){.box = true}, &in, false);
    if (st == UM_OK)
        st = fill_noise(s->encode.input);
    if (st == UM_OK)
        st = um_upload_now(m->dev, s->prompt, 0, &prompt, sizeof prompt, UM_STAGE_SETUP,
                           "bench prompt");
    if (st == UM_OK)
        st = um_tape_run(s->encode.tape, UM_QUEUE_MAIN);
    s->tape = decode ? s->decode.tape : s->encode.tape;
    return st;
}

um_status um_bench_open(um_bench **out, um_bench_stage stage, um_detector *detector,
                        um_segmenter *segmenter, int gray)
{
    if (!out || (stage == UM_BENCH_DETECT ? !detector : !segmenter))
        return um_fail(UM_EINVAL, "um_bench_open: the stage's network is not given");
    um_bench *s = *out = um_zalloc(sizeof *s);
    if (!s)
        return um_fail(UM_ENOMEM, "bench");
    um_status st = stage == UM_BENCH_DETECT ? open_detect(s, detector, gray)
                                            : open_segment(s, segmenter, stage == UM_BENCH_DECODE);
    if (st != UM_OK)
        um_bench_close(out);
    return st;
}

/* Device time between two points of the main queue around `run`. */
static um_status timed(um_device *dev, um_tape *tape, const struct um_step *step, double *ms)
{
    um_event *from = NULL, *to = NULL;
    uint64_t ns = 0;
    um_status st = um_event_open_timed(&from, dev);
    if (st == UM_OK)
        st = um_event_open_timed(&to, dev);
    if (st == UM_OK)
        st = um_event_record(dev, UM_QUEUE_MAIN, from);
    if (st == UM_OK)
        st = step ? um_step_run(dev, UM_QUEUE_MAIN, step) : um_tape_run(tape, UM_QUEUE_MAIN);
    if (st == UM_OK)
        st = um_event_record(dev, UM_QUEUE_MAIN, to);
    if (st == UM_OK)
        st = um_event_sync(dev, to, UM_STAGE_DEBUG, "bench");
    if (st == UM_OK)
        st = um_event_elapsed(dev, from, to, &ns);
    *ms = (double)ns * 1e-6;
    um_event_close(&from, dev);
    um_event_close(&to, dev);
    return st;
}

um_status um_bench_run(um_bench *bench, double *ms)
{
    if (!bench || !ms)
        return um_fail(UM_EINVAL, "um_bench_run: %s is NULL", bench ? "ms" : "bench");
    return timed(um_tape_device(bench->tape), bench->tape, NULL, ms);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* What is summed per output element, and the arithmetic, where that means something. */
static void describe(const struct um_step *step, um_bench_kernel *k)
{
    const struct um_view *out = &step->operand[0].view, *in = &step->operand[1].view;
    double elements = (double)out->h * out->w * out->c;
    k->op = step->name;
    k->h = out->h;
    k->w = out->w;
    k->c = out->c;
    if (strcmp(step->name, um_op_name(UM_OP_CONV2D)) == 0) {
        const struct um_conv_args *a = step->args;
        k->k = a->kh * a->kw * in->c;
        k->gflop = 2e-9 * elements * k->k;
    } else if (strcmp(step->name, um_op_name(UM_OP_DWCONV)) == 0) {
        const struct um_conv_args *a = step->args;
        k->k = a->kh * a->kw;
        k->gflop = 2e-9 * elements * k->k;
    } else if (strcmp(step->name, um_op_name(UM_OP_LINEAR)) == 0) {
        k->k = in->c;
        k->gflop = 2e-9 * elements * k->k;
    } else if (strcmp(step->name, um_op_name(UM_OP_MLP)) == 0) {
        k->k = ((const struct um_mlp_args *)step->args)->hidden;
        k->gflop = 4e-9 * elements * k->k;
    } else if (strcmp(step->name, um_op_name(UM_OP_MBCONV)) == 0) {
        const struct um_mbconv_args *a = step->args;
        k->k = a->hidden;
        k->gflop =
            2e-9 * a->hidden * ((double)in->h * in->w * in->c + 9.0 * out->h * out->w + elements);
    }
}

um_status um_bench_kernels(um_bench *bench, int rounds, um_bench_kernel_fn *report, void *ctx)
{
    double ms;
    if (!bench || !report || rounds < 1)
        return um_fail(UM_EINVAL, "um_bench_kernels: bench and report must be given, and %d rounds",
                       rounds);
    um_tape *tape = bench->tape;
    int n = um_tape_steps(tape);
    um_status st = UM_OK;
    double *times = um_array((size_t)n * (size_t)rounds + 1, sizeof *times);
    if (st == UM_OK && !times)
        st = um_fail(UM_ENOMEM, "bench times");
    if (st == UM_OK)
        st = timed(um_tape_device(tape), tape, NULL, &ms); /* warm up */
    for (int r = 0; r < rounds && st == UM_OK; r++)
        for (int i = 0; i < n && st == UM_OK; i++)
            st = timed(um_tape_device(tape), NULL, um_tape_step_at(tape, i),
                       &times[(size_t)i * (size_t)rounds + (size_t)r]);
    for (int i = 0; i < n && st == UM_OK; i++) {
        double *t = times + (size_t)i * (size_t)rounds;
        um_bench_kernel k = {.index = i};
        qsort(t, (size_t)rounds, sizeof *t, ascending);
        describe(um_tape_step_at(tape, i), &k);
        k.min_ms = t[0];
        k.median_ms = t[rounds / 2];
        report(ctx, &k);
    }
    um_free(times);
    return st;
}
