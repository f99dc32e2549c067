/* SPDX-License-Identifier: Apache-2.0 */
#define UM_AVX_VNNI
#include "nn/simd/vec.h"
#if VL == 8
#include "nn/simd/gemm8.c"
#endif
