/* SPDX-License-Identifier: Apache-2.0 */
/* Under the address sanitizer a check of each load would keep the sums of the innermost loops out
 * of registers and take twenty times as long: what they touch is checked before they run, and they
 * are UNCHECKED. So is then what they inline that has arrays: nobody would take back what is marked
 * at the end of their scope. */
#ifndef UM_NN_SIMD_CHECK_H
#define UM_NN_SIMD_CHECK_H

#include <stddef.h>
#include <stdint.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>

#define UM_CHECK_RANGES
#define UNCHECKED __attribute__((no_sanitize("address", "undefined")))

__attribute__((noinline, unused)) static void check_range(const void *p, ptrdiff_t bytes)
{
    volatile const char *bad = __asan_region_is_poisoned((void *)(uintptr_t)p, (size_t)bytes);
    if (bad)
        (void)*bad; /* is reported */
}
#else
#define UNCHECKED
#endif

#endif
