/* SPDX-License-Identifier: Apache-2.0 */
#include "ultramotion/bench.h"

#include "base/half.h"
#include "base/mem.h"
#include "nn/block.h"
#include "pipeline/detector.h"
#include "pipeline/segmenter.h"

#include <stdlib.h>
#include <string.h>

/* The tape of a stage, compiled, with noise in its input. */
static um_status prepare(um_bench_stage stage, um_detector *d, um_segmenter *s, int gray,
                         um_tape **tape)
{
    struct um_detect_path *path = NULL;
    struct um_decode_path *decode = NULL;
    um_buf *input = NULL;
    um_status st = UM_OK;
    if (stage == UM_BENCH_DETECT ? !d : !s)
        return um_fail(UM_EINVAL, "um_bench_run: the stage's network is not given");
    if (stage == UM_BENCH_DETECT) {
        int channels = um_detector_channels(d, gray ? 1 : 3);
        if (d->path[channels == 3].tape) {
            *tape = d->path[channels == 3].tape;
            return UM_OK;
        }
        st = um_detector_path(d, channels, &path);
        input = path->input;
        *tape = path->tape;
    } else {
        bool fresh = !s->encode;
        st = um_segmenter_decoder(s, 0, true, false, false, &decode);
        if (st == UM_OK && fresh)
            input = s->input;
        if (st == UM_OK)
            *tape = stage == UM_BENCH_ENCODE ? s->encode : decode->tape;
    }
    if (st != UM_OK || !input)
        return st;
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
    st = um_upload_now(input->dev, input, 0, noise, input->size, UM_STAGE_SETUP, "bench input");
    um_free(noise);
    if (st == UM_OK && s && stage != UM_BENCH_DETECT) {
        struct um_prompt prompt = {
            .width = 100, .height = 100, .has_box = 1, .box = {20, 20, 80, 80}};
        st = um_upload_now(s->dev, s->prompt, 0, &prompt, sizeof prompt, UM_STAGE_SETUP,
                           "bench prompt");
        if (st == UM_OK)
            st = um_tape_run(s->encode, UM_QUEUE_MAIN);
    }
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
        st = step ? um_run(dev, UM_QUEUE_MAIN, step) : um_tape_run(tape, UM_QUEUE_MAIN);
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

um_status um_bench_run(um_bench_stage stage, um_detector *detector, um_segmenter *segmenter,
                       int gray, double *ms)
{
    um_tape *tape = NULL;
    um_status st = prepare(stage, detector, segmenter, gray, &tape);
    return st == UM_OK ? timed(um_tape_device(tape), tape, NULL, ms) : st;
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

um_status um_bench_kernels(um_bench_stage stage, um_detector *detector, um_segmenter *segmenter,
                           int gray, int rounds, um_bench_kernel_fn *report, void *ctx)
{
    um_tape *tape = NULL;
    double ms;
    um_status st = prepare(stage, detector, segmenter, gray, &tape);
    int n = st == UM_OK ? um_tape_steps(tape) : 0;
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
