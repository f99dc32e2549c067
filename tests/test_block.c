/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks mean one thing: recorded as primitives (the processor) and taken as one step (the GPU's
 * kernels, on the stand-in of the driver) they give what a loop in double gives, and what an
 * operator does not obey it refuses on both; steps are as the table of operators says. */
#include "base/mem.h"
#include "nn/block.h"
#include "test.h"

enum { ROWS = 20, IN = 32, OUT = 48 };

/* ---- a device, layers and operands ---- */

struct bench {
    um_device *dev;
    um_params *params;
    um_tape *t;
    um_buf *memory;
    um_conv fc, second, up;
    um_norm norm, norm_up;
    um_tensor x, plus, add, one; /* [ROWS,IN], [ROWS,IN], [ROWS,OUT], [ROWS,1] */
};

/* Numbers that are exact as halves, and so are their sums. */
static float number(uint32_t salt, int i)
{
    uint32_t h = (salt * 2654435761u) ^ ((uint32_t)i * 0x9e3779b9u);
    h = (h ^ (h >> 15)) * 0x2c1b3c6du;
    return (float)((int)((h >> 12) & 63) - 32) / 32;
}

enum salt { X, PLUS, ADD, ONE, W, B, W2, B2, UP, GAMMA, BETA };

static const float *numbers(enum salt salt, int n)
{
    static float v[2 * OUT * 2 * IN * 4];
    for (int i = 0; i < n; i++)
        v[i] = number(salt, i);
    return v;
}

static um_conv fc_of(um_params *p, enum salt w, enum salt b)
{
    float bias[OUT];
    memcpy(bias, numbers(b, OUT), sizeof bias);
    return um_linear_pack(p, numbers(w, OUT * IN), bias, OUT, IN);
}

static um_norm norm_of(um_params *p, int c)
{
    float beta[OUT];
    memcpy(beta, numbers(BETA, c), (size_t)c * sizeof *beta);
    return um_norm_pack(p, numbers(GAMMA, c), beta, c, 1e-5f);
}

static um_tensor operand(struct bench *b, size_t *at, enum salt salt, int c)
{
    size_t bytes = ROWS * (size_t)c * sizeof(float);
    um_tensor x = um_tape_buffer(b->t, b->memory, *at, UM_F32, 1, ROWS, c);
    if (um_upload_now(b->dev, b->memory, *at, numbers(salt, ROWS * c), bytes, UM_STAGE_SETUP,
                      "operand") != UM_OK)
        um_tape_fail(b->t, UM_EDEVICE);
    *at += bytes;
    return x;
}

static um_status bench_open(struct bench *b, const char *device)
{
    um_device_settings s;
    size_t at = 0;
    memset(b, 0, sizeof *b);
    setenv("ULTRAMOTION_CUDA_DRIVER", UM_STANDIN_PATH, 1);
    um_device_settings_default(&s);
    s.name = device;
    if (strcmp(device, "cpu") != 0)
        s.precision = "fp16";
    um_status st = um_device_open(&b->dev, &s);
    if (st == UM_OK)
        st = um_params_open(&b->params, b->dev);
    if (st == UM_OK)
        st = um_tape_open(&b->t, b->dev, "block");
    if (st == UM_OK)
        st = um_buf_open(&b->memory, b->dev, ROWS * (2 * IN + OUT + 1) * sizeof(float), "operands");
    if (st != UM_OK)
        return st;
    b->fc = fc_of(b->params, W, B);
    b->second = fc_of(b->params, W2, B2);
    b->up = um_upconv2_pack(b->params, numbers(UP, IN * 8 * 4), NULL, 8, IN);
    b->norm = norm_of(b->params, OUT);
    b->norm_up = norm_of(b->params, 8);
    b->x = operand(b, &at, X, IN);
    b->plus = operand(b, &at, PLUS, IN);
    b->add = operand(b, &at, ADD, OUT);
    b->one = operand(b, &at, ONE, 1);
    return um_params_upload(b->params);
}

static void bench_close(struct bench *b)
{
    um_tape_close(&b->t);
    um_params_close(&b->params);
    um_buf_close(&b->memory);
    um_device_close(&b->dev);
}

/* Run what has been recorded and fetch y, which is fp32. */
static um_status result(struct bench *b, um_tensor y, float *out)
{
    um_buf *buf = NULL;
    size_t off = 0;
    um_keep(b->t, y);
    um_status st = um_tape_compile(b->t);
    if (st == UM_OK)
        st = um_tape_run(b->t, UM_QUEUE_MAIN);
    if (st != UM_OK)
        return st;
    um_tape_locate(b->t, y, &buf, &off);
    return um_download_now(b->dev, out, buf, off, (size_t)(y.h * y.w * y.c) * sizeof *out,
                           UM_STAGE_DEBUG, "result");
}

/* ---- the meaning of a linear layer ---- */

static double activate(enum um_act act, double limit, double x)
{
    switch (act) {
    case UM_ACT_NONE: return x;
    case UM_ACT_RELU: return x > 0 ? x : 0;
    case UM_ACT_SILU: return x / (1 + exp(-x));
    case UM_ACT_GELU: return 0.5 * x * (1 + erf(x * sqrt(0.5)));
    case UM_ACT_SIGMOID: return 1 / (1 + exp(-x));
    case UM_ACT_CLAMP: return fmin(fmax(x, -limit), limit);
    }
    return x;
}

struct linear {
    bool plus, second, broadcast, add, norm_out;
    enum um_act act;
    bool add_last;
};

static const double LIMIT = 0.75;

/* Row r, as struct um_linear_opts says it. */
static void expect(const struct linear *k, int r, double *y)
{
    double mean = 0, var = 0;
    for (int o = 0; o < OUT * (k->second ? 2 : 1); o++) {
        bool two = o >= OUT;
        int row = o % OUT;
        double addend = k->broadcast ? number(ONE, r) : k->add ? number(ADD, r * OUT + o) : 0;
        y[o] = number(two ? B2 : B, row);
        for (int i = 0; i < IN; i++) {
            double x = number(X, r * IN + i);
            if (k->plus && !two)
                x += number(PLUS, r * IN + i);
            y[o] += x * number(two ? W2 : W, row * IN + i);
        }
        y[o] = activate(k->act, LIMIT, k->add_last ? y[o] : y[o] + addend) +
               (k->add_last ? addend : 0);
    }
    if (!k->norm_out)
        return;
    for (int o = 0; o < OUT; o++)
        mean += y[o] / OUT;
    for (int o = 0; o < OUT; o++)
        var += (y[o] - mean) * (y[o] - mean) / OUT;
    for (int o = 0; o < OUT; o++)
        y[o] = fmax(0, (y[o] - mean) / sqrt(var + 1e-5) * number(GAMMA, o) + number(BETA, o));
}

static void check_linear(const char *device, const struct linear *k, bool one_step)
{
    static float y[ROWS * 2 * OUT];
    double want[2 * OUT];
    int columns = OUT * (k->second ? 2 : 1);
    struct bench b;
    CHECK_OK(bench_open(&b, device));
    um_tensor out = um_linear(b.t, &b.fc, b.x, .plus = k->plus ? b.plus : (um_tensor){0},
                              .second = k->second ? &b.second : NULL,
                              .add = k->broadcast ? b.one
                                     : k->add     ? b.add
                                                  : (um_tensor){0},
                              .act = k->act, .limit = (float)LIMIT, .add_last = k->add_last,
                              .norm_out = k->norm_out ? &b.norm : NULL,
                              .norm_act = k->norm_out ? UM_ACT_RELU : UM_ACT_NONE, .fp32 = true);
    CHECK_OK(result(&b, out, y));
    CHECK_EQ(um_tape_steps(b.t) == 1, one_step);
    for (int r = 0; r < ROWS; r++) {
        expect(k, r, want);
        for (int o = 0; o < columns; o++)
            CHECK_MSG(fabs(y[r * columns + o] - want[o]) <= 1e-4 * (1 + fabs(want[o])),
                      "%s, activation %d%s%s%s%s%s: row %d, column %d: %.9g, want %.9g", device,
                      (int)k->act, k->plus ? ", plus" : "", k->second ? ", second" : "",
                      k->broadcast ? ", broadcast" : "", k->add_last ? ", last" : "",
                      k->norm_out ? ", norm" : "", r, o, (double)y[r * columns + o], want[o]);
    }
    bench_close(&b);
}

static void check_both(struct linear k)
{
    int before = test_failures;
    for (int act = UM_ACT_NONE; act <= UM_ACT_CLAMP && test_failures == before; act++) {
        k.act = (enum um_act)act;
        check_linear("cpu", &k, false);
        check_linear("cuda:0", &k, true);
    }
}

TEST(a_broadcast_addend_comes_before_the_activation)
{
    check_both((struct linear){.broadcast = true});
    check_both((struct linear){.broadcast = true, .plus = true});
}

TEST(a_broadcast_addend_comes_last_if_asked_for)
{
    check_both((struct linear){.broadcast = true, .add_last = true});
}

TEST(a_broadcast_addend_is_normalised_with_the_rest)
{
    check_both((struct linear){.broadcast = true, .norm_out = true});
    check_both((struct linear){.broadcast = true, .norm_out = true, .add_last = true});
}

TEST(a_residual_means_the_same_with_and_without_a_norm)
{
    check_both((struct linear){.add = true, .plus = true});
    check_both((struct linear){.add = true, .norm_out = true, .add_last = true});
}

TEST(both_layers_of_two_have_the_activation)
{
    check_both((struct linear){.second = true, .plus = true});
}

/* ---- a transposed convolution and its norm ---- */

TEST(upconv2_norm_is_one_step_or_two)
{
    static float y[2][4 * ROWS * 8];
    for (int gpu = 0; gpu < 2; gpu++) {
        struct bench b;
        CHECK_OK(bench_open(&b, gpu ? "cuda:0" : "cpu"));
        um_tensor x = um_reshape(b.x, 4, ROWS / 4);
        um_tensor out = um_upconv2_norm(b.t, &b.up, x, &b.norm_up, UM_ACT_GELU);
        CHECK_OK(result(&b, out, y[gpu]));
        CHECK_EQ(um_tape_steps(b.t), gpu ? 1 : 2);
        bench_close(&b);
    }
    for (int i = 0; i < 4 * ROWS * 8; i++)
        CHECK_NEAR(y[0][i], y[1][i], 1e-4);
}

/* ---- refusals ---- */

/* Record one thing on a device of each kind: the tape must say UM_EINVAL and `why`. */
#define CHECK_REFUSED(why, ...)                                                 \
    for (int gpu = 0; gpu < 2; gpu++) {                                         \
        struct bench b;                                                         \
        CHECK_OK(bench_open(&b, gpu ? "cuda:0" : "cpu"));                       \
        __VA_ARGS__;                                                            \
        CHECK_EQ(um_tape_compile(b.t), UM_EINVAL);                              \
        CHECK_MSG(strstr(um_last_error(), why) != NULL, "%s", um_last_error()); \
        bench_close(&b);                                                        \
    }

TEST(what_cannot_be_obeyed_is_refused)
{
    CHECK_REFUSED("no norm", um_linear(b.t, &b.fc, b.x, .norm_act = UM_ACT_RELU));
    CHECK_REFUSED("in common",
                  um_linear(b.t, &b.fc, b.x, .second = &b.second, .norm_out = &b.norm));
    CHECK_REFUSED("in common", um_linear(b.t, &b.fc, b.x, .second = &b.second, .add = b.add));
    CHECK_REFUSED("its own output", um_linear(b.t, &b.fc, b.x, .norm_out = &b.norm, .out = b.add));
    CHECK_REFUSED("its own output", um_linear(b.t, &b.fc, b.x, .add = b.one, .out = b.add));
    CHECK_REFUSED("weights 32 -> 48", um_linear(b.t, &b.fc, b.x, .plus = b.plus, .out = b.x));
    CHECK_REFUSED("weights 32 -> 48", um_linear(b.t, &b.fc, b.x, .plus = b.plus, .add = b.x));
    CHECK_REFUSED("weights 32 -> 48", um_linear(b.t, &b.fc, b.x, .norm_out = &b.norm_up));
}

TEST(where_no_limit_can_be_given_nothing_is_clamped)
{
    um_tensor none = {0};
    CHECK_REFUSED("no limit", um_layer_norm(b.t, &b.norm, b.add, none, UM_ACT_CLAMP));
    CHECK_REFUSED("no limit", um_upconv2(b.t, &b.up, b.x, .act = UM_ACT_CLAMP));
    CHECK_REFUSED("no limit", um_upconv2_norm(b.t, &b.up, b.x, &b.norm_up, UM_ACT_CLAMP));
    CHECK_REFUSED("no limit",
                  um_linear(b.t, &b.fc, b.x, .norm_out = &b.norm, .norm_act = UM_ACT_CLAMP));
}

/* ---- steps against the table of operators ---- */

TEST(a_step_has_the_operands_of_its_operator)
{
    const struct um_add_args add = {.act = UM_ACT_NONE};
    um_tensor none = {0};
    CHECK_REFUSED("add: 2 operands, want 3", um_op_step(b.t, UM_OP_ADD, &add, b.x, b.plus));
    CHECK_REFUSED("add: no operand b", um_op_step(b.t, UM_OP_ADD, &add, b.x, b.x, none));
    CHECK_REFUSED(
        "layer_norm: no operand gamma",
        um_op_step(b.t, UM_OP_LAYER_NORM, &(struct um_norm_args){0}, b.x, b.x, none, none, none));
}

/* A layer of the file, by what its tensors' names have in common. */
static um_conv layer_of(um_params *p, const char *const *names, int n)
{
    for (int i = 0; i < n; i++)
        um_params_name(p, names[i]);
    return um_linear_pack(p, numbers(W, IN * IN), numbers(W, IN), IN, IN);
}

TEST(a_step_lies_where_its_weights_do)
{
    static const char *const fc[] = {"net.blocks.3.fc.weight", "net.blocks.3.fc.bias"},
                             *const qkv[] = {"net.attn.q.weight", "net.attn.q.bias",
                                             "net.attn.k.weight"},
                             *const near[] = {"net.fc1.weight", "net.fc10.weight"};
    static const char *const place[] = {"net.blocks.3.fc", "net.attn", "net.attn", "net", "net",
                                        "places"};
    um_params *p = NULL;
    um_tape *t = NULL;
    um_device_settings s;
    um_device *dev = NULL;
    um_device_settings_default(&s);
    s.name = "cpu";
    CHECK_OK(um_device_open(&dev, &s));
    CHECK_OK(um_params_open(&p, dev));
    um_conv a = layer_of(p, fc, 2), b = layer_of(p, qkv, 3), c = layer_of(p, near, 2);
    um_conv same = um_linear_pack(p, numbers(W, IN * IN), NULL, IN, IN); /* of the same tensors */
    CHECK_OK(um_params_upload(p));
    CHECK_OK(um_tape_open(&t, dev, "places"));
    um_tensor x = um_tape_new(t, UM_F32, 1, ROWS, IN);
    um_tensor y = um_linear(t, &b, um_linear(t, &a, x));
    y = um_attention(t, y, y, y, 1, 1, false);
    um_linear(t, &same, um_linear(t, &c, y));
    um_maxpool2(t, x, (um_tensor){0}); /* nobody made its input */
    CHECK_OK(um_tape_compile(t));
    CHECK_EQ(um_tape_steps(t), (int)(sizeof place / sizeof *place));
    for (int i = 0; i < um_tape_steps(t); i++)
        CHECK_STR(um_tape_step_at(t, i)->place, place[i]);
    um_tape_close(&t);
    um_params_close(&p);
    um_device_close(&dev);
}

TEST(an_operand_outside_its_memory_is_named)
{
    CHECK_REFUSED("tape block: add: operand a [1,20,32] lies outside its memory",
                  um_add(b.t, um_slice(b.x, 1, IN), b.plus));
}

TEST(every_operator_writes_something_and_names_all_it_reads)
{
    for (int op = 0; op < UM_OPS; op++) {
        const struct um_op_info *o = um_op_info((enum um_op)op);
        CHECK_MSG(o->name && o->n_out > 0 && o->n_out < o->n && o->n <= UM_OPERANDS, "row %d", op);
        CHECK_MSG(!strchr(o->operand[0], '?'), "%s: its first output may be absent", o->name);
        for (int i = 0; i < o->n; i++)
            for (int k = 0; k < i; k++)
                CHECK_MSG(strcmp(o->operand[i], o->operand[k]) != 0, "%s: two operands %s", o->name,
                          o->operand[i]);
    }
}

TEST_MAIN
