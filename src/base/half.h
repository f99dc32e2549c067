/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_BASE_HALF_H
#define UM_BASE_HALF_H

#include <stddef.h>
#include <stdint.h>

/* Both kinds of half, rounded to nearest even; NaN stays NaN. */
void um_f32_to_f16(uint16_t *dst, const float *src, size_t n);
void um_f16_to_f32(float *dst, const uint16_t *src, size_t n);
void um_f32_to_bf16(uint16_t *dst, const float *src, size_t n);
void um_bf16_to_f32(float *dst, const uint16_t *src, size_t n);

#endif
