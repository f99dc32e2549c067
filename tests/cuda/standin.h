/* SPDX-License-Identifier: Apache-2.0 */
/* The controls of the driver's stand-in (tests/cuda/standin.c). A program links the library, or
 * names it in ULTRAMOTION_CUDA_DRIVER and uses the environment:
 *
 *   UM_STANDIN_SEED=7          order in which it runs what may run in any order
 *   UM_STANDIN_DEVICES=0       number of GPUs
 *   UM_STANDIN_DRIVER=12020    its version; symbols that are newer are missing
 *   UM_STANDIN_HIDE=cuFuncLoad a symbol that is missing
 *   UM_STANDIN_FAIL=cuEventSynchronize:12:700,cuMemAlloc:3:2   as um_standin_fail() */
#ifndef UM_TESTS_CUDA_STANDIN_H
#define UM_TESTS_CUDA_STANDIN_H

#include <stddef.h>
#include <stdint.h>

/* What the stand-in reports where a driver would go wrong silently: work that is not ordered,
 * memory overrun, freed or destroyed while in use. */
enum { UM_STANDIN_VIOLATION = 9000 };

/* Forget everything, and read the environment again. Nothing may be open, except on lost devices.
 */
void um_standin_reset(void);

void um_standin_seed(uint64_t seed);
void um_standin_devices(int n);
void um_standin_capability(int major, int minor); /* of its GPUs */
void um_standin_driver(int version);
void um_standin_hide(const char *symbol);
/* The k-th call of `api` from now returns `code` and does nothing. After a code that a driver
 * repeats for ever every call returns it. */
void um_standin_fail(const char *api, int k, unsigned code);
/* The k-th kernel from now fails: the wait that runs it returns `code`. */
void um_standin_fail_kernel(int k, unsigned code);
/* From now on `api` returns success and does nothing: a call that somebody forgot. */
void um_standin_mutate(const char *api);
/* Kernels are checked (grid, threads, shared memory) but not run. */
void um_standin_shapes_only(int on);

/* What was submitted, graphs counted at each launch. */
struct um_standin_counts {
    uint64_t up, up_bytes, down, down_bytes;
    uint64_t copies, fills, discards, kernels, graphs;
    uint64_t waits;   /* for events, that ended well */
    uint64_t drains;  /* waits for streams */
    uint64_t calls;   /* of anything in the driver */
    uint64_t refused; /* that it refused and said why */
};
void um_standin_counts(struct um_standin_counts *out);
/* Objects that were made and not destroyed. */
int um_standin_live(void);

/* The graph that was instantiated last. A discard is not a node. */
struct um_standin_graph_stats {
    int nodes, depth; /* depth: nodes of the longest path */
    int kernels, copies, fills, records, edges;
};
void um_standin_graph_stats(struct um_standin_graph_stats *out);
/* The same graph, one line per node: number, what, name, stream, and the numbers it comes after.
 * Returns the length of the whole text, which may be more than was written. */
size_t um_standin_graph_dump(char *text, size_t size);

const char *um_standin_error(void); /* more about the last error, or "" */

#endif
