/* SPDX-License-Identifier: Apache-2.0 */
#include "base/pool.h"

#include "base/mem.h"
#include "base/status.h"
#include "racing.h"
#include "test.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <unistd.h>

enum { MOST = 1000 };

struct job {
    atomic_int ran[MOST];
    atomic_bool bad_worker, kept_denormal;
    int threads;
    volatile float tiny;
};

static void count(void *ctx, int item, int worker)
{
    struct job *j = ctx;
    atomic_fetch_add(&j->ran[item], 1);
    if (worker < 0 || worker >= j->threads)
        atomic_store(&j->bad_worker, true);
}

TEST(every_item_runs_once)
{
    static struct job j;
    for (int threads = 1; threads <= 5; threads++) {
        um_pool *p = NULL;
        CHECK_OK(um_pool_open(&p, threads));
        CHECK_EQ(um_pool_threads(p), threads);
        j.threads = threads;
        for (int round = 0; round < 300; round++) {
            int items = round * 7 % 97;
            um_pool_run(p, items, count, &j);
            for (int i = 0; i < MOST; i++)
                CHECK_EQ(atomic_exchange(&j.ran[i], 0), i < items);
        }
        CHECK(!atomic_load(&j.bad_worker));
        um_pool_close(&p);
        CHECK(p == NULL);
    }
}

/* More threads than any machine of ours has processors, so that some come late to a job that others
 * have finished, while the next one, of another size, is set up. */
TEST(who_comes_late_takes_nothing)
{
    enum { THREADS = 64, JOBS = 50000, FEW = 2, MANY = 250 };
    static struct job j;
    um_pool *p = NULL;
    alarm(300); /* an item that ran twice is waited for in vain */
    CHECK_OK(um_pool_open(&p, THREADS));
    j.threads = THREADS;
    for (int round = 0; round < JOBS; round++) {
        int items = round % 2 ? MANY : FEW;
        um_pool_run(p, items, count, &j);
        for (int i = 0; i < MANY; i++)
            CHECK_EQ(atomic_exchange(&j.ran[i], 0), i < items);
    }
    um_pool_close(&p);
    alarm(0);
}

TEST(opens_and_closes_without_work)
{
    for (int i = 0; i < 20; i++) {
        um_pool *p = NULL;
        CHECK_OK(um_pool_open(&p, 4));
        um_pool_close(&p);
    }
    um_pool *none = NULL;
    um_pool_close(&none);
    um_pool_close(NULL);
}

TEST(default_is_at_least_one_thread)
{
    um_pool *p = NULL;
    CHECK_OK(um_pool_open(&p, 0));
    CHECK(um_pool_threads(p) >= 1);
    um_pool_close(&p);
}

TEST(scratch_is_aligned_and_private)
{
    um_pool *p = NULL;
    CHECK_OK(um_pool_open(&p, 3));
    for (int i = 0; i < 3; i++) {
        unsigned char *s = um_pool_scratch(p, i);
        CHECK_EQ((uintptr_t)s % 128, 0);
        memset(s, i + 1, UM_POOL_SCRATCH);
    }
    for (int i = 0; i < 3; i++) {
        const unsigned char *s = um_pool_scratch(p, i);
        CHECK(s[0] == i + 1 && s[UM_POOL_SCRATCH - 1] == i + 1);
    }
    um_pool_close(&p);
}

TEST(running_does_not_allocate)
{
    static struct job j;
    um_pool *p = NULL;
    CHECK_OK(um_pool_open(&p, 3));
    j.threads = 3;
    uint64_t before = um_mem_count();
    for (int i = 0; i < 50; i++)
        um_pool_run(p, 40, count, &j);
    CHECK_EQ(um_mem_count(), before);
    um_pool_close(&p);
}

TEST(failed_allocation_is_reported)
{
    for (int k = 1; k <= 2; k++) {
        um_pool *p = NULL;
        FORGET_ERROR();
        um_mem_fail_at((uint64_t)k);
        um_status st = um_pool_open(&p, 2);
        um_mem_fail_at(0);
        CHECK_MEMORY(st);
        CHECK_EQ(st, UM_ENOMEM);
        CHECK(p == NULL);
    }
}

TEST(who_comes_later_computes_alone)
{
    static struct job j;
    um_pool *p = NULL;
    CHECK_OK(um_pool_open(&p, 3));
    um_pool *first = um_pool_take(p), *second = um_pool_take(p), *third = um_pool_take(p);
    CHECK(first == p && second != p && third != p && second != third);
    CHECK(um_pool_threads(second) == 1 && um_pool_scratch(second, 0) != um_pool_scratch(p, 0));
    j.threads = 1;
    um_pool_run(second, 10, count, &j);
    for (int i = 0; i < 10; i++)
        CHECK_EQ(atomic_load(&j.ran[i]), 1);
    um_pool_give(second);
    CHECK(um_pool_take(p) == second); /* kept for the next */
    um_mem_fail_at(1);
    um_pool_give(first);
    CHECK(um_pool_take(p) == p); /* its turn again */
    um_mem_fail_at(0);
    um_pool_give(second);
    um_pool_give(third);
    um_pool_give(p);
    um_pool_close(&p);
}

/* What watchers were told. */
struct told {
    atomic_int runs, wrong, of_thread[8];
    const void *what;
};

static void listen(void *ctx, const void *what, int thread, uint64_t begin, uint64_t end)
{
    struct told *t = ctx;
    atomic_fetch_add(&t->runs, 1);
    if (what != t->what || begin > end || thread < 0 || thread >= 8)
        atomic_fetch_add(&t->wrong, 1);
    else
        atomic_fetch_add(&t->of_thread[thread], 1);
}

TEST(each_thread_tells_of_its_part)
{
    enum { THREADS = 3, RUNS = 200 };
    static struct job j;
    static struct told told;
    um_pool *p = NULL;
    CHECK_OK(um_pool_open(&p, THREADS));
    j.threads = THREADS;
    told.what = "a";
    um_pool_watch(p, listen, &told);
    um_pool *mine = um_pool_take(p), *alone = um_pool_take(p);
    um_pool_say(mine, told.what);
    for (int i = 0; i < RUNS; i++)
        um_pool_run(mine, 50, count, &j);
    int runs = atomic_load(&told.runs);
    CHECK(runs >= RUNS && runs <= THREADS * RUNS);
    um_pool_run(mine, 1, count, &j); /* by the caller */
    CHECK_EQ(atomic_load(&told.runs), runs + 1);
    um_pool_say(alone, told.what);
    um_pool_run(alone, 10, count, &j); /* one thread, numbered behind those of the pool */
    CHECK_EQ(atomic_load(&told.of_thread[THREADS]), 1);
    um_pool_give(alone);
    um_pool_give(mine);
    um_pool_watch(p, NULL, NULL);
    mine = um_pool_take(p);
    um_pool_run(mine, 50, count, &j);
    um_pool_give(mine);
    CHECK_EQ(atomic_load(&told.runs), runs + 2);
    CHECK_EQ(atomic_load(&told.wrong), 0);
    um_pool_close(&p);
}

#ifdef SEES_RACES
static void *take_scratch(void *pool)
{
    return um_pool_scratch(pool, 0);
}

static void *take_own_scratch(void *pool)
{
    um_pool *mine = um_pool_take(pool);
    void *at = um_pool_scratch(mine, 0);
    um_pool_give(mine);
    return at;
}

TEST(two_threads_with_one_scratch_are_told)
{
    um_pool *p = NULL;
    CHECK_OK(um_pool_open(&p, 1));
    CHECK_EQ(racing_is_told(take_scratch, p), 1);
    CHECK_EQ(racing_is_told(take_own_scratch, p), 0);
    um_pool_close(&p);
}
#endif

#if defined(__SSE2__)
static void halve(void *ctx, int item, int worker)
{
    struct job *j = ctx;
    volatile float half = 0.5f;
    (void)item;
    (void)worker;
    if (j->tiny * half != 0)
        atomic_store(&j->kept_denormal, true);
}

TEST(denormals_are_zero_inside_only)
{
    static struct job j;
    um_pool *p = NULL;
    volatile float half = 0.5f;
    CHECK_OK(um_pool_open(&p, 2));
    j.tiny = 1.2e-38f; /* half of it is denormal */
    um_pool_run(p, 1, halve, &j);
    um_pool_run(p, 64, halve, &j);
    CHECK(!atomic_load(&j.kept_denormal));
    CHECK(j.tiny * half != 0);
    um_pool_close(&p);
}
#endif

TEST_MAIN
