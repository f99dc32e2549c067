/* SPDX-License-Identifier: Apache-2.0 */
/* The vector functions of math.h on arrays, per level (norm.c): what tests/test_math.c measures. */
#ifndef UM_NN_SIMD_MATH_TEST_H
#define UM_NN_SIMD_MATH_TEST_H

enum um_math_function {
    UM_MATH_EXP,
    UM_MATH_EXP_NEG,
    UM_MATH_SIGMOID,
    UM_MATH_SILU,
    UM_MATH_GELU,
    UM_MATH_EXP2_NEG_BRIEF,
    UM_MATH_SILU_BRIEF,
    UM_MATH_GELU_BRIEF,
    UM_MATH_FUNCTIONS
};

typedef void um_math_fn(enum um_math_function f, float *y, const float *x, int n);
um_math_fn um_math_neon, um_math_avx2, um_math_avx512, um_math_emu512, um_math_emu128;

#endif
