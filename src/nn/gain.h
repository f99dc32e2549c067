/* SPDX-License-Identifier: Apache-2.0 */
/* The gain of an image: which gray level becomes white, and what the others become. Whole numbers
 * throughout, for plain C and for the GPU, so that every device gives the same bits. */
#ifndef UM_NN_GAIN_H
#define UM_NN_GAIN_H

#include <stdbool.h>
#include <stdint.h>

enum {
    UM_GAIN_UNIT = 256,  /* white is counted in 1/256 of a gray level */
    UM_GAIN_BLACK = 4,   /* levels below are margins, and do not count */
    UM_GAIN_LEAST = 32,  /* white is at least this level: noise is no image */
    UM_GAIN_ABOVE = 5,   /* of 1000 pixels that count, so many lie above white */
    UM_GAIN_LINES = 256, /* rows and columns that are looked at, at most */
    UM_GAIN_PACE = 8     /* over a stream white comes nearer by 1/8 a frame */
};

enum um_gain_mode { UM_GAIN_OFF, UM_GAIN_TIMES, UM_GAIN_AUTO };

/* Level u becomes min(1, times*u/255)^gamma; AUTO finds `times` for every image. */
struct um_gain_wish {
    enum um_gain_mode mode;
    float times, gamma;
};

/* "off", "auto[,GAMMA]", "G[,GAMMA]"; false where it is none of them. G 0.1 to 16, GAMMA 0.2 to 5.
 */
bool um_gain_read(const char *text, struct um_gain_wish *gain);
/* Tables of levels, linear ones, to the power of gamma: value j becomes that of 255*(j/255)^gamma.
 */
void um_gain_bend(float (*out)[256], const float (*lut)[256], int c, float gamma);
/* And stretched, so that level 255/times is white. */
void um_gain_stretch(float (*out)[256], const float (*lut)[256], int c, float times);

#ifndef UM_GAIN /* a GPU's source says it in its own words */
#define UM_GAIN static inline
#endif

/* Every how many rows or columns of n one is looked at: at step/2, step/2 + step, … */
UM_GAIN int um_gain_step(int n)
{
    return (n + UM_GAIN_LINES - 1) / UM_GAIN_LINES;
}

/* The level that becomes white, of a histogram; 0 where nothing counts. */
UM_GAIN uint32_t um_gain_white(const uint32_t count[256])
{
    uint32_t n = 0, above = 0;
    for (int u = UM_GAIN_BLACK; u < 256; u++)
        n += count[u];
    if (!n)
        return 0;
    for (int u = 255; u > UM_GAIN_LEAST; u--) {
        above += count[u];
        if (1000 * (uint64_t)above > UM_GAIN_ABOVE * (uint64_t)n)
            return (uint32_t)u;
    }
    return UM_GAIN_LEAST;
}

/* White in 1/256, from a frame's and (0: nothing) that of the frames before. */
UM_GAIN uint32_t um_gain_follow(uint32_t before, uint32_t white, bool smooth)
{
    int64_t now = (int64_t)white * UM_GAIN_UNIT;
    if (!white)
        return before ? before : 255u * UM_GAIN_UNIT;
    return smooth && before ? (uint32_t)(before + (now - (int64_t)before) / UM_GAIN_PACE)
                            : (uint32_t)now;
}

/* What level u becomes: 255*u/white, rounded. */
UM_GAIN int um_gain_level(uint32_t white, int u)
{
    uint64_t level = ((uint64_t)u * 255 * UM_GAIN_UNIT + white / 2) / white;
    return level < 255 ? (int)level : 255;
}

/* A gain, and the white of one. */
UM_GAIN float um_gain_times(uint32_t white)
{
    return (float)(255 * UM_GAIN_UNIT) / (float)white;
}

UM_GAIN uint32_t um_gain_back(float times)
{
    return (uint32_t)((float)(255 * UM_GAIN_UNIT) / times + .5f);
}

#endif
