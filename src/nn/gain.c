/* SPDX-License-Identifier: Apache-2.0 */
#include "nn/gain.h"

#include "base/number.h"

#include <math.h>
#include <string.h>

static bool within(const char *text, double least, double most, float *v)
{
    double number = 0;
    bool good = um_number_read(text, &number) && number >= least && number <= most;
    *v = (float)number;
    return good;
}

bool um_gain_read(const char *text, struct um_gain_wish *gain)
{
    char first[32];
    const char *comma = strchr(text, ',');
    size_t n = comma ? (size_t)(comma - text) : strlen(text);
    *gain = (struct um_gain_wish){UM_GAIN_OFF, 1, 1};
    if (strcmp(text, "off") == 0)
        return true;
    if (n >= sizeof first || (comma && !within(comma + 1, .2, 5, &gain->gamma)))
        return false;
    memcpy(first, text, n);
    first[n] = 0;
    gain->mode = strcmp(first, "auto") == 0 ? UM_GAIN_AUTO : UM_GAIN_TIMES;
    return gain->mode == UM_GAIN_AUTO || within(first, .1, 16, &gain->times);
}

void um_gain_bend(float (*out)[256], const float (*lut)[256], int c, float gamma)
{
    for (int o = 0; o < c; o++) {
        double black = (double)lut[o][0], span = (double)lut[o][255] - black;
        for (int j = 0; j < 256; j++)
            out[o][j] =
                gamma == 1 ? lut[o][j] : (float)(black + span * pow(j / 255., (double)gamma));
    }
}

void um_gain_stretch(float (*out)[256], const float (*lut)[256], int c, float times)
{
    uint32_t white = (uint32_t)lround(255 * UM_GAIN_UNIT / (double)times);
    for (int o = 0; o < c; o++)
        for (int u = 0; u < 256; u++)
            out[o][u] = lut[o][um_gain_level(white, u)];
}
