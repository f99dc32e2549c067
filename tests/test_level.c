/* SPDX-License-Identifier: Apache-2.0 */
#include "nn/op.h"

#include "test.h"

#include <stdlib.h>
#include <string.h>

TEST(plain_c_is_always_there_and_last)
{
    const struct um_ops *const *all = um_ops_host();
    int n = 0;
    while (all[n])
        n++;
    CHECK(n >= 1);
    CHECK_STR(all[n - 1]->name, "c");
}

TEST(every_level_has_every_op)
{
    const struct um_ops *const *all = um_ops_host();
    for (int i = 0; all[i]; i++) {
        CHECK(all[i]->pack_conv);
        for (int op = 0; op < UM_OPS; op++)
            CHECK_MSG(all[i]->kernel[op] || !um_op_info((enum um_op)op)->primitive,
                      "level %s lacks %s", all[i]->name, um_op_name((enum um_op)op));
    }
}

TEST(the_best_level_is_chosen)
{
    const struct um_ops *ops = NULL;
    unsetenv("ULTRAMOTION_CPU");
    CHECK_OK(um_ops_choose(&ops));
    CHECK(ops == um_ops_host()[0]);
    setenv("ULTRAMOTION_CPU", "", 1);
    CHECK_OK(um_ops_choose(&ops));
    CHECK(ops == um_ops_host()[0]);
}

TEST(every_level_can_be_named)
{
    const struct um_ops *const *all = um_ops_host();
    for (int i = 0; all[i]; i++) {
        const struct um_ops *ops = NULL;
        setenv("ULTRAMOTION_CPU", all[i]->name, 1);
        CHECK_OK(um_ops_choose(&ops));
        CHECK(ops == all[i]);
    }
}

TEST(unknown_level_is_refused)
{
    const struct um_ops *ops = NULL;
    setenv("ULTRAMOTION_CPU", "sse9", 1);
    CHECK_EQ(um_ops_choose(&ops), UM_EINVAL);
    CHECK(strstr(um_last_error(), "sse9"));
    CHECK(ops == NULL);
}

TEST_MAIN
