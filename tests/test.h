/* SPDX-License-Identifier: Apache-2.0 */
/* A test runner in one header. Every test file is one program:
 *
 *     TEST(name) { CHECK(cond); CHECK_EQ(a, b); }
 *     TEST_MAIN
 *
 * A program exits 0 if all passed, 1 if one failed, and closes with "N passed, N failed, N
 * skipped". Names on the command line: only those tests, and one that does not exist fails. */
#ifndef UM_TEST_H
#define UM_TEST_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct test {
    const char *name;
    void (*run)(void);
    struct test *next;
};
static struct test *test_first, **test_last = &test_first;
static int test_failures;
static const char *test_skip_reason;

#define TEST(id)                                                 \
    static void id(void);                                        \
    __attribute__((constructor)) static void register_##id(void) \
    {                                                            \
        static struct test t = {#id, id, NULL};                  \
        *test_last = &t;                                         \
        test_last = &t.next;                                     \
    }                                                            \
    static void id(void)

#define CHECK_MSG(cond, ...)                                    \
    do {                                                        \
        if (!(cond)) {                                          \
            printf("  %s:%d: %s: ", __FILE__, __LINE__, #cond); \
            printf(__VA_ARGS__);                                \
            printf("\n");                                       \
            test_failures++;                                    \
            return;                                             \
        }                                                       \
    } while (0)
#define CHECK(cond) CHECK_MSG(cond, "not true")
#define CHECK_EQ(a, b) CHECK_MSG((a) == (b), "%lld, want %lld", (long long)(a), (long long)(b))
#define CHECK_NEAR(a, b, tol)                                                                 \
    CHECK_MSG(fabs((double)(a) - (double)(b)) <= (tol), "%.9g, want %.9g +- %g", (double)(a), \
              (double)(b), (double)(tol))
#define CHECK_STR(a, b) CHECK_MSG(strcmp(a, b) == 0, "\"%s\", want \"%s\"", a, b)
#define CHECK_OK(call) CHECK_MSG((call) == UM_OK, "%s", um_last_error())
/* Sweeps of um_mem_fail_at(): FORGET_ERROR() before the call, CHECK_MEMORY(st) behind it. */
#define FORGET_ERROR() (void)um_fail(UM_EINVAL, "an error from before")
#define CHECK_MEMORY(st)                                                                        \
    CHECK_MSG((st) == UM_OK || ((st) == UM_ENOMEM && strstr(um_last_error(), "out of memory")), \
              "%s: %s", um_status_name(st), um_last_error())
#define SKIP(reason)               \
    do {                           \
        test_skip_reason = reason; \
        return;                    \
    } while (0)

static int test_wanted(const struct test *t, int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], t->name) == 0)
            return 1;
    return argc <= 1;
}

static int test_run_all(int argc, char **argv)
{
    int passed = 0, failed = 0, skipped = 0;
    for (int i = 1; i < argc; i++) {
        const struct test *t = test_first;
        while (t && strcmp(argv[i], t->name) != 0)
            t = t->next;
        if (!t) {
            printf("FAILED %s: no such test\n", argv[i]);
            failed++;
        }
    }
    for (struct test *t = test_first; t; t = t->next) {
        if (!test_wanted(t, argc, argv))
            continue;
        int before = test_failures;
        test_skip_reason = NULL;
        t->run();
        fflush(stdout);
        if (test_failures != before) {
            failed++;
            printf("FAILED %s\n", t->name);
        } else if (test_skip_reason) {
            skipped++;
            printf("skipped %s: %s\n", t->name, test_skip_reason);
        } else {
            passed++;
        }
    }
    printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
    return failed ? 1 : 0;
}

#define TEST_MAIN                        \
    int main(int argc, char **argv)      \
    {                                    \
        return test_run_all(argc, argv); \
    }

#endif
