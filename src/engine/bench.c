/* SPDX-License-Identifier: Apache-2.0 */
#include "ultramotion/bench.h"

#include "base/half.h"
#include "base/mem.h"
#include "engine/detector.h"
#include "engine/segmenter.h"
#include "nn/block.h"
#include "nn/quant.h"

#include <stdlib.h>
#include <string.h>

/* A stage alone: a session of its own with noise in its input. */
struct um_bench {
    um_detector *detector; /* references */
    um_segmenter *segmenter;
    um_detect detect;
    um_encode encode;
    um_decode decode;
    um_buf *prompt;
    um_tape *tape;   /* of one of them, or of the products */
    um_graph *graph; /* of it, as a pipeline runs it; from the first run on */
    struct {
        um_params *params;
        um_buf *input;
        um_tape *tape;
        struct um_quant *quant;
    } gemm;
};

void um_bench_close(um_bench **bench)
{
    um_bench *s = bench ? *bench : NULL;
    if (!s)
        return;
    if (s->graph)
        um_graph_close(&s->graph, um_tape_device(s->tape));
    um_tape_close(&s->gemm.tape);
    um_buf_close(&s->gemm.input);
    um_params_close(&s->gemm.params);
    um_quant_close(&s->gemm.quant);
    um_decode_close(&s->decode);
    um_buf_close(&s->prompt);
    um_encode_close(&s->encode);
    um_detect_close(&s->detect);
    um_segmenter_close(&s->segmenter);
    um_detector_close(&s->detector);
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

/* ---- the products that a network is measured against ---- */

enum { PRODUCTS = 3 };
static const struct product {
    int m, k, n;
} PRODUCT[PRODUCTS] = {{1600, 256, 256}, {1600, 512, 512}, {4096, 160, 640}};

static um_conv product_weights(um_params *p, const struct product *s)
{
    um_conv conv = {0};
    float *w = um_array((size_t)s->n * (size_t)s->k, sizeof *w);
    for (int i = 0; w && i < s->n * s->k; i++)
        w[i] = (float)(i * 7919 % 1021) / 1021 - 0.5f;
    if (w)
        conv = um_linear_pack(p, w, NULL, s->n, s->k);
    else
        um_params_fail(p, um_fail(UM_ENOMEM, "bench products"));
    um_free(w);
    return conv;
}

/* In what the device's layers compute. */
static um_status open_gemm(um_bench *s, um_device *dev)
{
    um_conv w[PRODUCTS];
    size_t most = 0;
    um_status st = um_params_open(&s->gemm.params, dev);
    if (st == UM_OK && dev->layers == UM_I8)
        st = um_quant_parse(&s->gemm.quant, "0 1 99 gemm.0 0\n0 1 99 gemm.1 0\n0 1 99 gemm.2 0\n",
                            "bench");
    if (st != UM_OK)
        return st;
    um_params_quantise(s->gemm.params, s->gemm.quant);
    um_params_round(s->gemm.params, dev->layers == UM_BF16);
    for (int i = 0; i < PRODUCTS; i++) {
        char name[] = "gemm.0.weight";
        size_t floats = (size_t)PRODUCT[i].m * (size_t)PRODUCT[i].k;
        name[5] = (char)('0' + i);
        most = most < floats ? floats : most;
        um_params_name(s->gemm.params, name);
        if (s->gemm.quant)
            um_quant_name(s->gemm.quant, name);
        w[i] = product_weights(s->gemm.params, &PRODUCT[i]);
    }
    st = um_params_upload(s->gemm.params);
    if (st == UM_OK)
        st = um_tape_open(&s->gemm.tape, dev, "gemm");
    if (st != UM_OK)
        return st;
    enum um_dtype act = um_tape_act(s->gemm.tape);
    st = um_buf_open(&s->gemm.input, dev, most * um_dtype_size(act), "bench products");
    if (st == UM_OK)
        st = fill_noise(s->gemm.input);
    for (int i = 0; i < PRODUCTS && st == UM_OK; i++)
        um_linear(
            s->gemm.tape, &w[i],
            um_tape_buffer(s->gemm.tape, s->gemm.input, 0, act, 1, PRODUCT[i].m, PRODUCT[i].k));
    s->tape = s->gemm.tape;
    return st == UM_OK ? um_tape_compile(s->tape) : st;
}

um_status um_bench_open(um_bench **out, um_bench_stage stage, um_detector *detector,
                        um_segmenter *segmenter, int gray)
{
    bool detect = stage == UM_BENCH_DETECT || stage == UM_BENCH_GEMM;
    if (out)
        *out = NULL;
    if (out && !detect && stage != UM_BENCH_ENCODE && stage != UM_BENCH_DECODE)
        return um_fail(UM_EINVAL, "um_bench_open: stage %d is none", (int)stage);
    if (!out || !(detect ? (void *)detector : (void *)segmenter))
        return um_fail(UM_EINVAL, "um_bench_open: the stage's network is not given");
    um_bench *s = *out = um_zalloc(sizeof *s);
    if (!s)
        return um_fail(UM_ENOMEM, "bench");
    s->detector = um_detector_ref(detector);
    s->segmenter = um_segmenter_ref(segmenter);
    um_status st = stage == UM_BENCH_GEMM ? open_gemm(s, detector->dev)
                   : stage == UM_BENCH_DETECT
                       ? open_detect(s, detector, gray)
                       : open_segment(s, segmenter, stage == UM_BENCH_DECODE);
    if (st != UM_OK)
        um_bench_close(out);
    return st;
}

/* Device time between two points of the main queue: of a step, or of a graph. */
static um_status timed(um_device *dev, um_graph *graph, const struct um_step *step, double *ms)
{
    um_event *from = NULL, *to = NULL;
    uint64_t ns = 0;
    um_status st = um_event_open_timed(&from, dev);
    if (st == UM_OK)
        st = um_event_open_timed(&to, dev);
    if (st == UM_OK)
        st = um_event_record(dev, UM_QUEUE_MAIN, from);
    if (st == UM_OK)
        st = step ? um_step_run(dev, UM_QUEUE_MAIN, step) : um_graph_launch(dev, graph);
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

static um_status capture(um_graph **out, um_tape *tape)
{
    um_device *dev = um_tape_device(tape);
    um_status st = um_capture_begin(dev);
    if (st != UM_OK)
        return st;
    st = um_tape_run(tape, UM_QUEUE_MAIN);
    um_status ended = um_capture_end(dev, out); /* also after an error */
    return st == UM_OK ? ended : st;
}

um_status um_bench_run(um_bench *bench, double *ms)
{
    if (!bench || !ms)
        return um_fail(UM_EINVAL, "um_bench_run: %s is NULL", bench ? "ms" : "bench");
    um_status st = bench->graph ? UM_OK : capture(&bench->graph, bench->tape);
    return st == UM_OK ? timed(um_tape_device(bench->tape), bench->graph, NULL, ms) : st;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Attention of `queries` rows of c channels, each to `keys`. */
static double attention_flops(double queries, int keys, int c)
{
    return 4 * queries * keys * c;
}

/* What is summed per output element (0: nothing), and the arithmetic of products; the rest does not
 * count. */
static double flops_of(const struct um_step *step, int *k)
{
    const struct um_view *out = &step->operand[0].view, *in = &step->operand[1].view;
    double rows = (double)out->h * out->w, elements = rows * out->c, seen = (double)in->h * in->w;
    const void *args = step->args;
    int op = 0;
    while (op < UM_OPS && strcmp(step->name, um_op_name((enum um_op)op)) != 0)
        op++;
    switch (op) {
    case UM_OP_CONV2D:
    case UM_OP_DWCONV: {
        const struct um_conv_args *a = args;
        *k = a->kh * a->kw * (op == UM_OP_CONV2D ? in->c : 1);
        return 2 * elements * *k;
    }
    case UM_OP_UPCONV2:
    case UM_OP_LINEAR:
    case UM_OP_MATMUL_NT: *k = in->c; return 2 * elements * *k;
    case UM_OP_MLP: *k = ((const struct um_mlp_args *)args)->hidden; return 4 * elements * *k;
    case UM_OP_MBCONV:
        *k = ((const struct um_mbconv_args *)args)->hidden;
        return 2.0 * *k * (seen * in->c + 9 * rows + elements);
    case UM_OP_STEM: { /* 3x3, 2x2 twice, 3x3 of twice the channels */
        double half = 4 * rows, c = out->c;
        return 2 * (half * c * (9 * in->c + 2 * 4 * c / 2) + 9 * elements * 2 * c);
    }
    case UM_OP_WINDOW_BLOCK: {
        int window = ((const struct um_window_block_args *)args)->window;
        *k = out->c;
        return 8 * elements * *k + attention_flops(rows, window * window, out->c);
    }
    case UM_OP_WINDOW_ATTENTION: {
        int window = ((const struct um_window_args *)args)->window;
        return attention_flops(rows, window * window, out->c);
    }
    case UM_OP_RELATIVE_ATTENTION: {
        int window = ((const struct um_relative_args *)args)->window;
        return attention_flops(rows, window * window, out->c);
    }
    case UM_OP_ATTENTION: {
        const struct um_view *keys = &step->operand[2].view;
        return attention_flops(rows, keys->h * keys->w, out->c);
    }
    case UM_OP_TOKEN_TO_IMAGE: { /* the products that are made */
        const struct um_view *x = &step->operand[2].view;
        return attention_flops(UM_CROSS_HEADS * seen, x->h * x->w, x->c);
    }
    case UM_OP_IMAGE_TO_TOKEN: {
        const struct um_view *k = &step->operand[3].view;
        return attention_flops(UM_CROSS_HEADS * rows, k->h * k->w, out->c);
    }
    case UM_OP_TOKENS: return 8 * elements * out->c + attention_flops(rows, (int)rows, out->c);
    case UM_OP_GATE: *k = 2 * out->c; return 4 * elements * *k;
    case UM_OP_CHAIN: {
        const struct um_chain_args *a = args;
        double sum = 0;
        int width = step->operand[3].view.c;
        for (int i = 0; i < a->layers; width = a->width[i++])
            sum += 2 * rows * width * a->width[i];
        return sum;
    }
    default: return 0;
    }
}

static void describe(const struct um_step *step, um_bench_kernel *k)
{
    const struct um_view *out = &step->operand[0].view;
    k->op = step->name;
    k->place = step->place;
    k->h = out->h;
    k->w = out->w;
    k->c = out->c;
    k->gflop = 1e-9 * flops_of(step, &k->k);
    for (int i = 0; i < step->n; i++) {
        const struct um_view *v = &step->operand[i].view;
        if (step->operand[i].buf)
            k->bytes +=
                (double)v->h * (double)v->w * (double)v->c * (double)um_dtype_size(v->dtype);
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
    double *times = um_array((size_t)n * (size_t)rounds + 1, sizeof *times);
    um_status st = times ? um_bench_run(bench, &ms) /* warm up */
                         : um_fail(UM_ENOMEM, "bench times");
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
