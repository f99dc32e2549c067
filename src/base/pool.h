/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_BASE_POOL_H
#define UM_BASE_POOL_H

#include "base/status.h"

#include <stdint.h>

/* A fork-join pool: threads-1 workers plus the caller, created once. */
typedef struct um_pool um_pool;

/* One item of work. `worker` is 0..um_pool_threads()-1 and names the thread (0 = the caller): it
 * picks the scratch. */
typedef void um_pool_fn(void *ctx, int item, int worker);

enum { UM_POOL_SCRATCH = 4 << 20 }; /* bytes of scratch every worker owns */

um_status um_pool_open(um_pool **out,
                       int threads); /* threads <= 0: as many as this process may use */
void um_pool_close(um_pool **pool);  /* accepts NULL */
int um_pool_threads(const um_pool *pool);

/* Run fn(ctx, item, worker) for item = 0..items-1 and return when all are done. Not reentrant;
 * never allocates. Which thread takes an item is unspecified, so results must not depend on it. */
void um_pool_run(um_pool *pool, int items, um_pool_fn *fn, void *ctx);

/* 128-byte aligned scratch of one worker, UM_POOL_SCRATCH bytes, contents undefined between items.
 */
void *um_pool_scratch(const um_pool *pool, int worker);

/* The pool, for one caller's runs and scratch until um_pool_give(); while another has it, one of
 * one thread: who comes later computes alone instead of waiting. Threads: any. */
um_pool *um_pool_take(um_pool *pool);
void um_pool_give(um_pool *taken);

/* A pool of some threads for one thread alone: between um_pool_bind(part) and um_pool_bind(NULL) on
 * that thread it is what um_pool_take(pool) gives there. Closed before `pool`. */
um_status um_pool_part(um_pool **out, um_pool *pool, int threads);
void um_pool_bind(um_pool *part);
/* Each thread tells of its part of a um_pool_run() as it ends, in ns of um_clock_ns(). `thread`
 * numbers those of the pool from 0 on, and behind them those who compute alone. */
typedef void um_pool_watch_fn(void *ctx, const void *what, int thread, uint64_t begin,
                              uint64_t end);
/* From now on `fn` is told, or with NULL nobody. Waits until nobody has the pool. Threads: any. */
void um_pool_watch(um_pool *pool, um_pool_watch_fn *fn, void *ctx);
/* What the next runs of a pool that was taken are for. */
void um_pool_say(um_pool *taken, const void *what);

#endif
