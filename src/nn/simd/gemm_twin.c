/* SPDX-License-Identifier: Apache-2.0 */
#define UM_AMX_TWIN
#include "nn/simd/gemm_amx.c"
