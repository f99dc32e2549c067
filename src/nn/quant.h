/* SPDX-License-Identifier: Apache-2.0 */
/* Which layers of a network compute on bytes (nn/int8.h) and in which ranges: a plan. A file's
 * metadata has it as text; where none is, it is found by running the network on the floats of some
 * frames, all layers single steps, and looking at what goes into each. */
#ifndef UM_NN_QUANT_H
#define UM_NN_QUANT_H

#include "nn/int8.h"
#include "nn/op.h"

typedef struct um_quant um_quant;

enum um_quant_use {
    UM_QUANT_APPLY,    /* pack the plan's layers as bytes */
    UM_QUANT_CHANNELS, /* floats; look how large what goes into each layer is, channel by channel;
                        */
    UM_QUANT_RANGES,   /* then which numbers these are */
    UM_QUANT_SCORES    /* floats; compare what comes out of each layer with bytes */
};

struct um_quant_layer {
    char name[128];
    struct um_range range; /* of its input */
    int inputs;            /* channels; 0: unknown, and then their shifts are 0 */
    uint8_t *shift;        /* [inputs], 0 to 7; NULL: all 0 */
    double snr;            /* of its output against floats, in dB */
    bool bytes;            /* else floats */
};

um_status um_quant_open(um_quant **out); /* without layers */
void um_quant_close(um_quant **q);       /* accepts NULL */

/* A line for each layer: LO HI SNR NAME SHIFTS, a digit for each channel or one for all, or
 * - - SNR NAME -, which stays floats. `where` is for messages. */
um_status um_quant_parse(um_quant **out, const char *text, const char *where);
um_status um_quant_print(const um_quant *q, char **text); /* freed by the caller */

int um_quant_count(const um_quant *q);
struct um_quant_layer *um_quant_at(um_quant *q, int i);

/* Networks that are opened on dev, a processor that has none, use q in this way, whatever its level
 * offers. q outlives them. */
um_status um_quant_attach(um_quant *q, um_device *dev, enum um_quant_use use);
/* After frames with UM_QUANT_CHANNELS: shifts that make the channels as large as each other. */
void um_quant_find_channels(um_quant *q);
/* After frames with UM_QUANT_RANGES: the ranges with the least mean square error of their bytes. */
void um_quant_find_ranges(um_quant *q);
/* After frames with UM_QUANT_SCORES: the scores; all layers are bytes that have one. */
void um_quant_find_scores(um_quant *q);

/* ---- while a network is bound ---- */

/* Not of an image's channels (little to gain, much to lose), and no more than kernels have room
 * for. */
static inline bool um_may_be_narrow(const um_conv *c)
{
    return c->i >= 8 && (int64_t)c->kh * c->kw * c->i <= 16384;
}

/* Start: no layer has been met. Whose weights are read next: tensor `name`. */
void um_quant_begin(um_quant *q);
void um_quant_name(um_quant *q, const char *name);
/* The first layer of the plan that was not met; NULL: none. */
const char *um_quant_missed(const um_quant *q);
/* Pack dense weights w [o][kh][kw][i] if the layer is the plan's, and say so in conv. False: the
 * caller packs floats. */
bool um_quant_pack(um_quant *q, um_conv *conv, const float *w);
/* Pack w, whose shape is conv's, as bytes for a level; shift [i] or NULL: all 0. dst NULL: only how
 * many are needed. 0: out of memory. */
size_t um_quant_bytes(const struct um_ops *ops, void *dst, const um_conv *conv, const float *w,
                      struct um_range range, const uint8_t *shift);

#endif
