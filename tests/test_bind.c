/* SPDX-License-Identifier: Apache-2.0 */
/* From names to constants: scope, shapes, folding, and which tensors of a file nobody asked for. */
#include "base/mem.h"
#include "model/bind.h"
#include "test.h"

#include <unistd.h>

static const float weight[2 * 3] = {1, 2, 3, -4, 5, 6};
static const float row[2] = {0.5f, 2}, mean[2] = {1, -1}, var[2] = {0.25f - 1e-5f, 4 - 1e-5f};
static const int64_t counter[1] = {7};

struct bench {
    um_device *dev;
    um_params *params;
    um_weights *file;
    um_bind b;
};

static um_status bench_open(struct bench *t)
{
    static const struct um_wout tensors[] = {
        {"net.fc.weight", UM_W_F32, 2, {2, 3}, weight},
        {"net.fc.bias", UM_W_F32, 1, {2}, row},
        {"net.unit.c.weight", UM_W_F32, 4, {2, 3, 1, 1}, weight},
        {"net.unit.bn.weight", UM_W_F32, 1, {2}, row},
        {"net.unit.bn.bias", UM_W_F32, 1, {2}, row},
        {"net.unit.bn.running_mean", UM_W_F32, 1, {2}, mean},
        {"net.unit.bn.running_var", UM_W_F32, 1, {2}, var},
        {"net.unit.bn.num_batches_tracked", UM_W_I64, 0, {0}, counter},
    };
    char path[] = "/tmp/test_bind_XXXXXX";
    um_device_settings s;
    int fd = mkstemp(path);
    memset(t, 0, sizeof *t);
    if (fd < 0)
        return UM_EIO;
    close(fd);
    um_device_settings_default(&s);
    s.name = "cpu";
    um_status st = um_safetensors_write(path, tensors, sizeof tensors / sizeof *tensors,
                                        (const char *[]){NULL});
    if (st == UM_OK)
        st = um_weights_open(&t->file, path);
    unlink(path);
    if (st == UM_OK)
        st = um_device_open(&t->dev, &s);
    if (st == UM_OK)
        st = um_params_open(&t->params, t->dev);
    if (st == UM_OK)
        t->b = um_bind_begin(t->file, t->params);
    return st;
}

static um_status bench_close(struct bench *t)
{
    um_status st = um_bind_finish(&t->b);
    um_params_close(&t->params);
    um_device_close(&t->dev);
    um_weights_close(&t->file);
    return st;
}

static bool none(const char *name)
{
    (void)name;
    return false;
}

static void bind_all(um_bind *b)
{
    um_bind_scope(b, "%s.", "net");
    um_bind_linear(b, "fc", 2, 3);
    um_bind_conv_bn(b, "unit", 2, 3, 1, 1, 0, false);
}

TEST(what_was_read_is_used)
{
    struct bench t;
    CHECK_OK(bench_open(&t));
    bind_all(&t.b);
    um_bind_all_used(&t.b, none);
    CHECK_OK(bench_close(&t));
}

TEST(what_nobody_asked_for_is_named)
{
    struct bench t;
    CHECK_OK(bench_open(&t));
    um_bind_scope(&t.b, "net.");
    um_bind_linear(&t.b, "fc", 2, 3);
    um_bind_all_used(&t.b, none);
    CHECK_EQ(bench_close(&t), UM_EFORMAT);
    CHECK(strstr(um_last_error(), "tensor net.unit.bn.bias is none of the network's (5 of 8 are "
                                  "not), want nothing that changes its result"));
}

TEST(scalars_are_used_too)
{
    struct bench t;
    CHECK_OK(bench_open(&t));
    bind_all(&t.b);
    CHECK_EQ(um_bind_scalar(&t.b, "unit.bn.num_batches_tracked"), 7);
    um_bind_all_used(&t.b, none);
    CHECK_OK(bench_close(&t));
}

TEST(the_first_failure_stays)
{
    struct bench t;
    CHECK_OK(bench_open(&t));
    um_bind_scope(&t.b, "net.");
    CHECK_EQ(um_bind_scalar(&t.b, "fc.bias"), 0);
    CHECK(!um_bind_vector(&t.b, "fc", ".bias", 2));
    um_bind_all_used(&t.b, none);
    CHECK_EQ(bench_close(&t), UM_EFORMAT);
    CHECK(strstr(um_last_error(), ": tensor net.fc.bias, want one finite number"));
}

TEST(batch_norm_is_folded_in_double)
{
    struct bench t;
    CHECK_OK(bench_open(&t));
    um_bind_scope(&t.b, "net.unit.");
    struct um_fold f = um_fold_conv_bn(&t.b, "c", "bn", 2, 3, 1);
    CHECK_OK(t.b.status);
    for (int o = 0; o < 2; o++) {
        double scale = row[o] / sqrt((double)var[o] + 1e-5);
        for (int i = 0; i < 3; i++)
            CHECK_EQ(f.w[3 * o + i] == weight[3 * o + i] * scale, 1);
        CHECK_EQ(f.b[o] == row[o] - mean[o] * scale, 1);
    }
    CHECK_EQ(um_fold_pack(&t.b, f, 1, 0, false, true).o, 2);
    CHECK_OK(bench_close(&t));
}

TEST_MAIN
