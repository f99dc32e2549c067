/* SPDX-License-Identifier: Apache-2.0 */
/* What the thread sanitizer is told, because it does not see it: kernels are built without it
 * (CMakeLists.txt), and of vectors wider than 16 bytes it sees nothing anyway. Nothing in other
 * builds. */
#ifndef UM_BASE_RACES_H
#define UM_BASE_RACES_H

#include <stddef.h>
#include <stdint.h>

#if defined(__SANITIZE_THREAD__)
#define UM_RACES 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UM_RACES 1
#endif
#endif

#ifndef UM_RACES
#define UM_RACES 0
#endif

#if UM_RACES
void __tsan_read1(void *p);
void __tsan_write1(void *p);
#endif

/* The n bytes at p are read, or written, from here on by kernels that this thread runs. Told are
 * the first and every 256th of memory: what overlaps by so much has one in common, and all of them
 * take as long as the kernels. */
static inline void um_races_note(void *p, size_t n, int write)
{
#if UM_RACES
    enum { EVERY = 256 };
    for (size_t i = 0; i < n; i += EVERY - ((uintptr_t)p + i) % EVERY)
        (write ? __tsan_write1 : __tsan_read1)((char *)p + i);
#else
    (void)p, (void)n, (void)write;
#endif
}

#endif
