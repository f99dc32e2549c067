/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel table of one instruction level, made of the table of operators. Tests use this to make
 * a table of a level that is not part of the library. */
#ifndef UM_NN_OP_LEVEL_H
#define UM_NN_OP_LEVEL_H

#include "nn/op_ref.h"

/* Kernels of a row: at level c, at the others. */
#define UM_HOST_SIMD_(level, name) um_ref_##name, um_##name##_##level
#define UM_HOST_PLAIN_(level, name) um_ref_##name, um_ref_##name
#define UM_HOST_BLOCK_(level, name) NULL, um_##name##_##level
#define UM_HOST_WIDE_(level, name) NULL, UM_WIDE_##level##_(um_##name##_##level)
#define UM_HOST_NONE_(level, name) NULL, NULL
#define UM_WIDE_neon_(kernel) NULL
#define UM_WIDE_emu128_(kernel) NULL
#define UM_WIDE_avx2_(kernel) NULL
#define UM_WIDE_avx512_(kernel) kernel
#define UM_WIDE_emu512_(kernel) kernel

#define UM_LEVEL_C_(level, entry, name, host, ...) \
    [UM_OP_##entry] = UM_LEVEL_PICK_(0, UM_HOST_##host##_(level, name)),
#define UM_LEVEL_OWN_(level, entry, name, host, ...) \
    [UM_OP_##entry] = UM_LEVEL_PICK_(1, UM_HOST_##host##_(level, name)),
#define UM_LEVEL_PICK_(n, ...) UM_PICK_##n(__VA_ARGS__, )

#define UM_DECLARE_SIMD_(level, name) um_kernel um_##name##_##level;
#define UM_DECLARE_PLAIN_(level, name)
#define UM_DECLARE_BLOCK_(level, name) um_kernel um_##name##_##level;
#define UM_DECLARE_WIDE_(level, name) um_kernel um_##name##_##level;
#define UM_DECLARE_NONE_(level, name)
#define UM_LEVEL_DECLARE_(level, entry, name, host, ...) UM_DECLARE_##host##_(level, name)

/* const struct um_ops um_ops_<level> with the given title, which offers fp32 only. */
#define UM_LEVEL(level, title)                                                            \
    UM_OPERATORS(UM_LEVEL_DECLARE_, level)                                                \
    size_t um_pack_conv_##level(void *dst, const float *w, int o, int kh, int kw, int i); \
    size_t um_pack_int8_##level(void *dst, const struct um_int8_layer *l);                \
    size_t um_pack_bf16_##level(void *dst, const float *w, int o, int kh, int kw, int i); \
    extern const struct um_ops um_ops_##level;                                            \
    const struct um_ops um_ops_##level = {                                                \
        .name = title,                                                                    \
        .kernel = {UM_OPERATORS(UM_LEVEL_OWN_, level)},                                   \
        .pack_conv = um_pack_conv_##level,                                                \
        .pack_int8 = um_pack_int8_##level,                                                \
        .pack_bf16 = um_pack_bf16_##level,                                                \
    };

#endif
