/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_BASE_SHA256_H
#define UM_BASE_SHA256_H

#include <stddef.h>

/* SHA-256 (FIPS 180-4) of n bytes as 64 lower-case hex digits and a terminator. */
void um_sha256_hex(char out[65], const void *data, size_t n);

#endif
