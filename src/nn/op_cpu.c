/* SPDX-License-Identifier: Apache-2.0 */
#define _DEFAULT_SOURCE /* syscall() */

#include "nn/op_level.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

static const struct um_ops plain = {
    .name = "c",
    .kernel = {UM_OPERATORS(UM_LEVEL_C_, c)},
    .pack_conv = um_ref_pack_conv,
    .pack_int8 = um_ref_pack_int8,
    .pack_bf16 = um_ref_pack_bf16,
};

#if defined(__x86_64__)
UM_LEVEL(avx2, "avx2")
UM_LEVEL(avx512, "avx512")
size_t um_pack_int8_vnni_avx2(void *dst, const struct um_int8_layer *l);
size_t um_pack_int8_amx_avx512(void *dst, const struct um_int8_layer *l);
size_t um_pack_int8_twin_avx512(void *dst, const struct um_int8_layer *l);
size_t um_pack_bf16_amx_avx512(void *dst, const float *w, int o, int kh, int kw, int i);
size_t um_pack_bf16_twin_avx512(void *dst, const float *w, int o, int kh, int kw, int i);

/* The compiler's CPU model reads CPUID and, through XGETBV, whether the system saves the wide
 * registers. */
static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx_vnni(void)
{
    enum { AVX_VNNI = 1 << 4 };
    unsigned a, b, c, d;
    return has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && a & AVX_VNNI;
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

/* Tiles with products of bf16 and of bytes, and the system lets this process use them. */
static bool has_amx(void)
{
    enum { TILE = 1 << 24, INT8 = 1 << 25, BF16 = 1 << 22, ALL = TILE | INT8 | BF16 };
    enum { OSXSAVE = 1 << 27, STATE = 3 << 17 };
    enum { REQUEST = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM */
    unsigned a, b, c, d, saved;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & OSXSAVE))
        return false;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & ALL) != ALL)
        return false;
    __asm__("xgetbv" : "=a"(saved), "=d"(d) : "c"(0));
    return (saved & STATE) == STATE && syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
}

static struct um_ops avx512, amx, twin, vnni;
static const struct um_ops *levels[7]; /* with NULL at the end */

static void find_levels(void)
{
    int n = 0;
    __builtin_cpu_init();
    if (has_avx512()) {
        bool bf16 = __builtin_cpu_supports("avx512bf16");
        avx512 = um_ops_avx512;
        avx512.int8 = __builtin_cpu_supports("avx512vnni");
        avx512.pack_int8 = avx512.int8 ? avx512.pack_int8 : NULL;
        avx512.pack_bf16 = bf16 ? avx512.pack_bf16 : NULL;
        /* It does twice the products of an FMA in the same time on AMD's, and none more on Intel's.
         */
        avx512.bf16 = bf16 && __builtin_cpu_is("amd");
        amx = twin = avx512;
        amx.name = "amx";
        amx.pack_bf16 = um_pack_bf16_amx_avx512;
        amx.pack_int8 = um_pack_int8_amx_avx512;
        twin.name = "amx-twin";
        twin.pack_bf16 = um_pack_bf16_twin_avx512;
        twin.pack_int8 = um_pack_int8_twin_avx512;
        amx.bf16 = amx.int8 = twin.bf16 = twin.int8 = true;
        amx.narrow = UM_NARROW_TILES;
        twin.narrow = UM_NARROW_TWIN;
        if (bf16 && has_amx())
            levels[n++] = &amx;
        levels[n++] = &avx512;
        if (bf16) /* rounds by AVX-512 */
            levels[n++] = &twin;
    }
    if (has_avx_vnni()) {
        vnni = um_ops_avx2;
        vnni.name = "avxvnni";
        vnni.pack_int8 = um_pack_int8_vnni_avx2;
        vnni.int8 = true;
        levels[n++] = &vnni;
    }
    if (has_avx2())
        levels[n++] = &um_ops_avx2;
    levels[n] = &plain;
}
#endif

#if defined(__aarch64__)
UM_LEVEL(neon, "neon")

static struct um_ops neon;
static const struct um_ops *levels[3]; /* with NULL at the end */

static void find_levels(void)
{
    neon = um_ops_neon;
    neon.int8 = getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
    neon.pack_int8 = neon.int8 ? neon.pack_int8 : NULL;
    levels[0] = &neon;
    levels[1] = &plain;
}
#endif

const struct um_ops *const *um_ops_host(void)
{
#if defined(__x86_64__) || defined(__aarch64__)
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, find_levels);
    return levels;
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
    return um_fail(
        UM_EINVAL,
        "ULTRAMOTION_CPU is \"%s\", want \"c\", \"neon\", \"avx2\", \"avxvnni\", \"avx512\" or "
        "\"amx\" (\"amx-twin\": in plain C, for tests), and a machine that has it (best here: %s)",
        want, all[0]->name);
}
