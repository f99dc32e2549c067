/* SPDX-License-Identifier: Apache-2.0 */
/* Networks in bf16: which levels offer it, what is chosen where nobody asks, and that what is found
 * is what is found on floats. */
#include "model/bind.h"

#include "narrow.h"

/* Of those that do not take minutes. */
static int levels_in_bf16(const struct um_ops **found)
{
    int n = 0;
    for (const struct um_ops *const *all = um_ops_host(); *all; all++)
        if ((*all)->bf16)
            found[n++] = *all;
    return n;
}

TEST(a_level_without_it_says_so)
{
    for (const struct um_ops *const *all = um_ops_host(); *all; all++) {
        um_status st = UM_OK;
        narrow_try(*all, "bf16", &st);
        CHECK_EQ(st, (*all)->bf16 ? UM_OK : UM_EUNSUPPORTED);
        if (st != UM_OK)
            CHECK_MSG(strstr(um_last_error(), (*all)->name) && strstr(um_last_error(), "want fp32"),
                      "%s", um_last_error());
    }
}

TEST(tiles_choose_it)
{
    for (const struct um_ops *const *all = um_ops_host(); *all; all++)
        for (int asked = 0; asked < 2; asked++) {
            um_device_settings s;
            um_device *dev = NULL;
            um_device_settings_default(&s);
            s.name = "cpu";
            s.precision = asked ? "fp32" : "auto";
            setenv("ULTRAMOTION_CPU", (*all)->name, 1);
            CHECK_OK(um_device_open(&dev, &s));
            bool tiles = (*all)->narrow == UM_NARROW_TILES;
            CHECK_STR(um_device_precision(dev), tiles && !asked ? "bf16" : "fp32");
            CHECK_STR(um_device_precision_reason(dev), asked   ? "asked for"
                                                       : tiles ? "AMX"
                                                               : "no AMX");
            um_device_close(&dev);
        }
    unsetenv("ULTRAMOTION_CPU");
}

/* What is chosen is for networks that it was shown to serve; what is asked for is for all. */
TEST(an_unproven_network_stays_floats)
{
    um_weights *file = NULL;
    CHECK_OK(um_weights_open(&file, DETECTOR_FILE));
    for (int asked = 0; asked < 2; asked++) {
        um_params *p = NULL;
        um_device *dev = narrow_open("cpu", 1, asked ? "bf16" : "auto", um_ops_host()[0]);
        dev->layers = UM_BF16;
        CHECK_OK(um_params_open(&p, dev));
        um_bind b = um_bind_begin(file, p);
        CHECK(um_params_bf16(p));
        um_bind_unproven(&b);
        CHECK_EQ(um_params_bf16(p), asked);
        um_bind_narrow(&b, true);
        CHECK_EQ(um_params_bf16(p), asked);
        um_bind_narrow(&b, false);
        CHECK(!um_params_bf16(p));
        CHECK_OK(um_bind_finish(&b));
        um_params_close(&p);
        um_device_close(&dev);
    }
    um_weights_close(&file);
}

TEST(boxes_are_those_of_floats)
{
    const struct um_ops *level[8];
    for (int i = 0, n = levels_in_bf16(level); i < n; i++)
        narrow_boxes(level[i], "bf16", DETECTOR_FILE, 1, narrow_few(level[i]));
}

TEST(masks_are_those_of_floats)
{
    const struct um_ops *level[8];
    for (int i = 0, n = levels_in_bf16(level); i < n; i++)
        narrow_masks(level[i], "bf16", SEGMENTER_FILE, 0.99, narrow_few(level[i]));
}

TEST_MAIN
