/* SPDX-License-Identifier: Apache-2.0 */
/* References: configs/dfine/include/dfine_hgnetv2.yml and dfine_hgnetv2_{n,s,m,l,x}_coco.yml,
 * src/nn/backbone/hgnetv2.py of Peterande/D-FINE. */
#include "model/dfine_size.h"

#include <stddef.h>

/* clang-format off */
#define B0 {16, 16, true, {{16, 16, 64, 1, false, 3, 3}, {64, 32, 256, 1, false, 3, 3}, \
                           {256, 64, 512, 2, true, 5, 3}, {512, 128, 1024, 1, true, 5, 3}}}
#define B2 {24, 32, true, {{32, 32, 96, 1, false, 3, 4}, {96, 64, 384, 1, false, 3, 4}, \
                           {384, 128, 768, 3, true, 5, 4}, {768, 256, 1536, 1, true, 5, 4}}}
#define B4 {32, 48, false, {{48, 48, 128, 1, false, 3, 6}, {128, 96, 512, 1, false, 3, 6}, \
                            {512, 192, 1024, 3, true, 5, 6}, {1024, 384, 2048, 1, true, 5, 6}}}
#define B5 {32, 64, false, {{64, 64, 128, 1, false, 3, 6}, {128, 128, 512, 2, false, 3, 6}, \
                            {512, 256, 1024, 5, true, 5, 6}, {1024, 512, 2048, 2, true, 5, 6}}}
#define COMMON .heads = 8, .queries = 300, .bins = 33, .lqe_hidden = 64

static const struct um_dfine_size sizes[] = {
    {"dfine-n", B0, 2, 128, 512, 128, 512, 3, false, {6, 6}, COMMON},
    {"dfine-s", B0, 3, 256, 1024, 256, 1024, 3, false, {3, 6, 3}, COMMON},
    {"dfine-m", B2, 3, 256, 1024, 256, 1024, 4, false, {3, 6, 3}, COMMON},
    {"dfine-l", B4, 3, 256, 1024, 256, 1024, 6, false, {3, 6, 3}, COMMON},
    {"dfine-x", B5, 3, 384, 2048, 256, 1024, 6, true, {3, 6, 3}, COMMON},
};
/* clang-format on */

const struct um_dfine_size *um_dfine_size_find(int levels, int width, const int *channels)
{
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        bool same = sizes[k].levels == levels && sizes[k].width == width;
        for (int l = 0; same && l < levels; l++)
            same = um_dfine_channels(&sizes[k], l) == channels[l];
        if (same)
            return &sizes[k];
    }
    return NULL;
}

int um_dfine_channels(const struct um_dfine_size *s, int l)
{
    return s->backbone.stage[UM_DFINE_STAGES - s->levels + l].out;
}

int um_dfine_points(const struct um_dfine_size *s)
{
    int n = 0;
    for (int l = 0; l < s->levels; l++)
        n += s->points[l];
    return n;
}
