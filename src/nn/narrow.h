/* SPDX-License-Identifier: Apache-2.0 */
/* What packed weights of bytes (int8.h) and of bf16 (bf16.h) begin with. */
#ifndef UM_NN_NARROW_H
#define UM_NN_NARROW_H

#include <stdint.h>

/* By which instructions they are multiplied. */
enum um_narrow_how {
    UM_NARROW_DOT,   /* two or four products in each lane of a vector */
    UM_NARROW_VNNI,  /* the same, of bytes on 8 lanes by AVX-VNNI */
    UM_NARROW_TILES, /* AMX */
    UM_NARROW_TWIN   /* what AMX does, in plain C: for tests */
};

struct um_narrow_head {
    int32_t how; /* enum um_narrow_how */
};

static inline enum um_narrow_how um_narrow_how(const void *packed)
{
    return (enum um_narrow_how)((const struct um_narrow_head *)packed)->how;
}

#endif
