/* SPDX-License-Identifier: Apache-2.0 */
#include "nn/op_level.h"

#include <stdlib.h>
#include <string.h>

static const struct um_ops plain = {
    .name = "c",
    .kernel = {UM_OPERATORS(UM_LEVEL_C_, c)},
    .pack_conv = um_ref_pack_conv,
    .pack_int8 = um_ref_pack_int8,
};

#if defined(__x86_64__)
UM_LEVEL(avx2, "avx2", false)
UM_LEVEL(avx512, "avx512", true)
static const struct um_ops avx512_without_vnni = {
    .name = "avx512",
    .kernel = {UM_OPERATORS(UM_LEVEL_OWN_, avx512)},
    .pack_conv = um_pack_conv_avx512,
};

/* The compiler's CPU model reads CPUID and, through XGETBV, whether the system saves the wide
 * registers. */
static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

const struct um_ops *const *um_ops_host(void)
{
#if defined(__x86_64__)
    static const struct um_ops *const all[] = {&um_ops_avx512, &um_ops_avx2, &plain, NULL};
    static const struct um_ops *const old[] = {&avx512_without_vnni, &um_ops_avx2, &plain, NULL};
    __builtin_cpu_init();
    if (has_avx512())
        return __builtin_cpu_supports("avx512vnni") ? all : old;
    return has_avx2() ? all + 1 : all + 2;
#else
    static const struct um_ops *const all[] = {&plain, NULL};
    return all;
#endif
}

um_status um_ops_choose(const struct um_ops **out)
{
    const struct um_ops *const *all = um_ops_host();
    const char *want = getenv("ULTRAMOTION_CPU");
    *out = all[0];
    if (!want || !*want)
        return UM_OK;
    for (int i = 0; all[i]; i++)
        if (strcmp(all[i]->name, want) == 0) {
            *out = all[i];
            return UM_OK;
        }
    *out = NULL;
    return um_fail(UM_EINVAL,
                   "ULTRAMOTION_CPU is \"%s\", want \"c\", \"avx2\" or \"avx512\", and a machine "
                   "that has it (best here: %s)",
                   want, all[0]->name);
}
