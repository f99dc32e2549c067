/* SPDX-License-Identifier: Apache-2.0 */
/* Host-run kernels: launch by name, as the driver does. */
#ifndef UM_TESTS_CUDA_HOST_LAUNCH_H
#define UM_TESTS_CUDA_HOST_LAUNCH_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum um_host_order { UM_HOST_FORWARD, UM_HOST_REVERSE, UM_HOST_SEEDED };

/* Run a grid to its end. NULL, or what went wrong (valid until the next launch). */
const char *um_host_launch(const char *kernel, const unsigned grid[3], unsigned threads,
                           unsigned shared, const void *args, size_t size);
/* Size of the kernel's by-value struct, -1 if there is no such kernel. */
int um_host_kernel_size(const char *kernel);
/* In which order warps and lanes of a block run. */
void um_host_schedule(enum um_host_order order, uint64_t seed);

#ifdef __cplusplus
}
#endif
#endif
