/* SPDX-License-Identifier: Apache-2.0 */
/* Weight files: what is read, what is refused and with which words, what is written.
 * tests/gen/weights.py makes the files. */
#include "base/half.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "base/status.h"
#include "child.h"
#include "model/dfine.h"
#include "model/sam.h"
#include "test.h"
#include "ultramotion/ultramotion.h"
#include "weights/labels.h"
#include "weights/pickle.h"
#include "weights/view.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#define FOLDER UM_GOLDEN_DIR "/weights/"

/* ---- helpers ---- */

/* Element i of the pattern in tests/gen/weights.py. */
static double pattern(enum um_wtype type, int64_t i)
{
    double v = (double)((7 * i + 3) % 11 - 5);
    switch (type) {
    case UM_W_F32:
    case UM_W_F16:
    case UM_W_BF16:
    case UM_W_F64: return v / 4;
    case UM_W_U8: return fabs(v);
    case UM_W_BOOL: return v != 0;
    default: return v;
    }
}

/* Does the tensor hold pattern(start), pattern(start + step), … in row-major order? */
static bool holds(const um_weights *w, const char *name, int64_t start, int64_t step)
{
    const struct um_wtensor *t = um_weights_find(w, name);
    for (int64_t i = 0; t && i < um_wtensor_elements(t); i++)
        if (um_wtensor_at(t, i) != pattern(t->type, start + step * i)) {
            printf("  %s[%lld] is %g\n", name, (long long)i, um_wtensor_at(t, i));
            return false;
        }
    return t != NULL;
}

static bool shaped(const um_weights *w, const char *name, const char *want)
{
    char found[128] = "missing";
    const struct um_wtensor *t = um_weights_find(w, name);
    if (t)
        um_view_shape(found, sizeof found, t->rank, t->dim);
    if (strcmp(found, want) != 0)
        printf("  %s is %s, want %s\n", name, found, want);
    return strcmp(found, want) == 0;
}

static unsigned char *slurp(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    unsigned char *p = malloc(*n + 1);
    if (p && fread(p, 1, *n, f) != *n) {
        free(p);
        p = NULL;
    }
    fclose(f);
    return p;
}

static um_status convert(const char *in, const char *out, const char *precision, int side,
                         const char *const *metadata)
{
    um_convert_settings s;
    um_convert_settings_default(&s);
    s.precision = precision;
    s.input_width = s.input_height = side;
    s.metadata = metadata;
    return um_model_convert(in, out, &s);
}

/* A path of this process in the folder for temporary files. */
static const char *temporary(const char *name)
{
    static char path[4][256];
    static int next;
    const char *folder = getenv("TMPDIR");
    char *p = path[next++ % 4];
    snprintf(p, sizeof *path, "%.150s/um_weights_%ld_%s", folder ? folder : "/tmp", (long)getpid(),
             name);
    return p;
}

/* Opening fails with this status, and the text has the file's name and these words. */
static bool refuses(const char *path, um_status want, const char *words)
{
    um_weights *w = NULL;
    um_status st = um_weights_open(&w, path);
    bool good = st == want && !w && strstr(um_last_error(), words) && strstr(um_last_error(), path);
    if (!good)
        printf("  %s: %s: %s\n  want %s: %s\n", path, um_status_name(st), um_last_error(),
               um_status_name(want), words);
    um_weights_close(&w);
    return good;
}

/* The file lies in one block until the next call. */
static um_status safetensors_of(um_weights **w, const char *header, size_t n, size_t data_bytes)
{
    static unsigned char *p;
    free(p);
    p = calloc(1, 8 + n + data_bytes);
    if (!p)
        return um_fail(UM_ENOMEM, "test file");
    for (int i = 0; i < 8; i++)
        p[i] = (unsigned char)((uint64_t)n >> 8 * i);
    memcpy(p + 8, header, n);
    return um_weights_open_memory(w, p, 8 + n + data_bytes, "made");
}

static um_status safetensors(um_weights **w, const char *header, size_t data_bytes)
{
    return safetensors_of(w, header, strlen(header), data_bytes);
}

static bool refuses_header(const char *header, size_t data_bytes, const char *words)
{
    um_weights *w = NULL;
    um_status st = safetensors(&w, header, data_bytes);
    um_weights_close(&w);
    if (st != UM_EFORMAT || !strstr(um_last_error(), words))
        printf("  %s: %s %s, want %s\n", header, um_status_name(st),
               st == UM_OK ? "" : um_last_error(), words);
    return st == UM_EFORMAT && strstr(um_last_error(), words);
}

static const char *const TYPE_NAMES[] = {"f32", "f16", "bf16", "f64", "i64",
                                         "i32", "i16", "i8",   "u8",  "bool"};

static bool has_all_types(const um_weights *w)
{
    for (int i = UM_W_F32; i <= UM_W_BOOL; i++) {
        char name[32];
        snprintf(name, sizeof name, "type.%s", TYPE_NAMES[i]);
        const struct um_wtensor *t = um_weights_find(w, name);
        if (!t || t->type != (enum um_wtype)i || !shaped(w, name, "[2,3]") ||
            !holds(w, name, 0, 1)) {
            printf("  %s in %s\n", name, um_weights_path(w));
            return false;
        }
    }
    return shaped(w, "scalar", "[]") && holds(w, "scalar", 0, 1) && shaped(w, "empty", "[0,3]");
}

/* ---- half precision ---- */

TEST(every_half_survives_the_way_to_float_and_back)
{
    for (uint32_t h = 0; h < 0x10000; h++) {
        uint16_t in = (uint16_t)h, out = 0;
        float f = 0;
        um_f16_to_f32(&f, &in, 1);
        um_f32_to_f16(&out, &f, 1);
        bool nan = (h & 0x7c00) == 0x7c00 && (h & 0x3ff);
        CHECK_MSG(nan ? isnan(f) && (out & 0x7c00) == 0x7c00 && (out & 0x3ff) : out == in,
                  "%04x became %04x", h, out);
    }
}

TEST(halves_round_to_nearest_even)
{
    static const struct {
        float in;
        uint16_t want;
    } CASES[] = {
        {1.0f, 0x3c00},
        {-2.0f, 0xc000},
        {65504.0f, 0x7bff},
        {65519.0f, 0x7bff},
        {65520.0f, 0x7c00},
        {INFINITY, 0x7c00},
        {1.0f + 0x1p-11f, 0x3c00},
        {1.0f + 0x3p-11f, 0x3c02},
        {1.0f + 0x1.8p-11f, 0x3c01},
        {0x1p-14f, 0x0400},
        {0x1p-24f, 0x0001},
        {0x1p-25f, 0x0000},
        {0x1.8p-25f, 0x0001},
        {0x3p-25f, 0x0002},
        {0x1.ff8p-15f, 0x03ff},
        {0x1.ffcp-15f, 0x0400},
        {-0.0f, 0x8000},
        {0.333333f, 0x3555},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        uint16_t out = 0;
        um_f32_to_f16(&out, &CASES[i].in, 1);
        CHECK_MSG(out == CASES[i].want, "%a became %04x, want %04x", (double)CASES[i].in, out,
                  CASES[i].want);
    }
}

TEST(sha256_matches_fips_180)
{
    char out[65], text[200];
    um_sha256_hex(out, "abc", 3);
    CHECK_STR(out, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    um_sha256_hex(out, "", 0);
    CHECK_STR(out, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    um_sha256_hex(out, "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56);
    CHECK_STR(out, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    memset(text, 'a', sizeof text);
    um_sha256_hex(out, text, 119); /* the last length whose padding fits the second block */
    CHECK_STR(out, "31eba51c313a5c08226adf18d4a359cfdfd8d2e816b13f4af952f7ea6584dcfb");
}

/* ---- reading ---- */

TEST(safetensors_of_all_types)
{
    um_weights *w = NULL;
    CHECK_OK(um_weights_open(&w, FOLDER "types.safetensors"));
    CHECK_STR(um_weights_format(w), "safetensors");
    CHECK_EQ(um_weights_count(w), 12);
    CHECK(has_all_types(w));
    CHECK_STR(um_weights_meta(w, "input_size"), "320");
    CHECK_STR(um_weights_meta(w, "note"), "größer");
    CHECK(!um_weights_meta(w, "other"));
    CHECK(!um_weights_find(w, "type"));
    for (int i = 1; i < um_weights_count(w); i++)
        CHECK(strcmp(um_weights_at(w, i - 1)->name, um_weights_at(w, i)->name) < 0);
    CHECK(!um_weights_at(w, -1) && !um_weights_at(w, 12));
    um_weights_close(&w);
    CHECK(!w);
}

static bool is_state(const um_weights *w)
{
    return has_all_types(w) && shaped(w, "transposed", "[4,3]") && holds(w, "transposed", 0, 1) &&
           um_weights_find(w, "transposed")->stride[0] == 1 && shaped(w, "window", "[3,4]") &&
           holds(w, "window", 5, 1) && shaped(w, "step", "[15]") && holds(w, "step", 0, 2) &&
           shaped(w, "shared.b", "[2,3]") && holds(w, "shared.a", 0, 1) &&
           holds(w, "shared.b", 0, 1) &&
           um_weights_find(w, "shared.a")->data == um_weights_find(w, "shared.b")->data &&
           shaped(w, "broadcast", "[3,2]") && holds(w, "broadcast", 0, 0) &&
           shaped(w, "parameter", "[2,2]") && holds(w, "parameter", 0, 1);
}

TEST(torch_archive_with_views)
{
    um_weights *w = NULL;
    CHECK_OK(um_weights_open(&w, FOLDER "state.pt"));
    CHECK_STR(um_weights_format(w), "torch zip");
    CHECK_EQ(um_weights_count(w), 19);
    CHECK(is_state(w));
    float *values = NULL;
    CHECK_OK(um_weights_read(w, "transposed", 2, (int64_t[]){4, 3}, &values));
    for (int i = 0; i < 12; i++)
        CHECK(values[i] == (float)pattern(UM_W_F32, i));
    um_free(values);
    CHECK_OK(um_weights_read(w, "type.bf16", 2, (int64_t[]){2, 3}, &values));
    for (int i = 0; i < 6; i++)
        CHECK(values[i] == (float)pattern(UM_W_BF16, i));
    um_free(values);
    um_weights_close(&w);
}

TEST(torch_archive_deflated)
{
    um_weights *w = NULL;
    CHECK_OK(um_weights_open(&w, FOLDER "state_deflated.pt"));
    CHECK(is_state(w));
    um_weights_close(&w);
    CHECK_OK(um_weights_open(&w, FOLDER "streamed.pt"));
    CHECK(um_wtensor_at(um_weights_find(w, "a"), 1) == 1.25);
    um_weights_close(&w);
}

TEST(torch_archive_of_every_protocol)
{
    for (int i = 3; i <= 5; i++) {
        char path[512];
        snprintf(path, sizeof path, FOLDER "protocol%d.pt", i);
        um_weights *w = NULL;
        CHECK_OK(um_weights_open(&w, path));
        CHECK(has_all_types(w));
        um_weights_close(&w);
    }
}

TEST(training_checkpoint_gives_the_averaged_weights)
{
    um_weights *w = NULL;
    CHECK_OK(um_weights_open(&w, FOLDER "training.pth"));
    CHECK_EQ(um_weights_count(w), 1);
    CHECK(shaped(w, "a.weight", "[2,3]") && holds(w, "a.weight", 0, 1)); /* "module." is gone */
    um_weights_close(&w);
}

TEST(wrappers_are_opened)
{
    static const char *const KEYS[] = {"model", "state_dict", "model_state_dict", "weights", "net"};
    for (size_t i = 0; i < sizeof KEYS / sizeof *KEYS; i++) {
        char path[512];
        snprintf(path, sizeof path, FOLDER "wrap_%s.pt", KEYS[i]);
        um_weights *w = NULL;
        CHECK_OK(um_weights_open(&w, path));
        CHECK_EQ(um_weights_count(w), 1);
        CHECK(holds(w, "a.weight", 0, 1));
        um_weights_close(&w);
    }
}

TEST(hugging_face_names_become_upstream_names)
{
    static const struct {
        const char *name, *shape;
    } WANT[] = {
        {"backbone.stem.stem1.conv.weight", "[2,3,3,3]"},
        {"backbone.stages.0.blocks.0.aggregation.1.bn.running_var", "[2]"},
        {"backbone.stages.1.downsample.conv.weight", "[2,1,3,3]"},
        {"encoder.input_proj.1.conv.weight", "[2,4,1,1]"},
        {"encoder.input_proj.1.norm.running_mean", "[2]"},
        {"encoder.encoder.0.layers.0.self_attn.out_proj.weight", "[2,2]"},
        {"encoder.encoder.0.layers.0.linear1.weight", "[4,2]"},
        {"encoder.encoder.0.layers.0.norm1.bias", "[2]"},
        {"encoder.encoder.0.layers.0.norm2.bias", "[2]"},
        {"encoder.fpn_blocks.0.cv3.0.bottlenecks.1.conv2.conv.weight", "[1,1,1,1]"},
        {"encoder.pan_blocks.0.cv3.1.norm.weight", "[1]"},
        {"encoder.downsample_convs.0.0.cv2.conv.weight", "[2,1,3,3]"},
        {"decoder.decoder.layers.2.cross_attn.sampling_offsets.bias", "[4]"},
        {"decoder.decoder.layers.2.norm3.bias", "[2]"},
        {"decoder.decoder.layers.2.linear2.weight", "[2,4]"},
        {"decoder.decoder.layers.2.self_attn.in_proj_weight", "[6,2]"},
        {"decoder.decoder.lqe_layers.0.reg_conf.layers.1.bias", "[1]"},
        {"decoder.dec_score_head.0.bias", "[3]"},
        {"decoder.reg_scale", "[1]"},
        {"decoder.enc_output.norm.weight", "[2]"},
        {"decoder.enc_score_head.bias", "[3]"},
    };
    enum { COUNT = sizeof WANT / sizeof *WANT };
    static const char *const FILES[] = {FOLDER "hf_file.safetensors",
                                        FOLDER "hf_memory.safetensors"};
    for (int f = 0; f < 2; f++) {
        um_weights *w = NULL;
        CHECK_OK(um_weights_open(&w, FILES[f]));
        CHECK_EQ(um_weights_count(w),
                 COUNT + f); /* the second also has a box head, only at the top */
        for (int i = 0; i < COUNT; i++)
            CHECK(shaped(w, WANT[i].name, WANT[i].shape) && holds(w, WANT[i].name, 0, 1));
        CHECK(f == 0 || holds(w, "decoder.dec_bbox_head.0.layers.0.bias", 0, 1));
        um_weights_close(&w);
    }
}

TEST(reading_checks_names_and_shapes)
{
    um_weights *w = NULL;
    float *values = NULL;
    CHECK_OK(um_weights_open(&w, FOLDER "types.safetensors"));
    CHECK_EQ(um_weights_read(w, "nothing", 1, (int64_t[]){4}, &values), UM_EFORMAT);
    CHECK(strstr(um_last_error(), "missing tensor nothing, want [4]") &&
          strstr(um_last_error(), "types.safetensors"));
    CHECK_EQ(um_weights_read(w, "type.f32", 2, (int64_t[]){3, 2}, &values), UM_EFORMAT);
    CHECK(strstr(um_last_error(), "tensor type.f32 is [2,3], want [3,2]"));
    CHECK_EQ(um_weights_read(w, "type.f32", 1, (int64_t[]){6}, &values), UM_EFORMAT);
    CHECK(!values);
    CHECK(isnan(um_wtensor_at(um_weights_find(w, "empty"), 0)));
    CHECK(isnan(um_wtensor_at(um_weights_find(w, "type.f32"), 6)));
    um_weights_close(&w);
}

TEST(pickle_opcodes_that_torch_files_rarely_have)
{
    /* {"a": [1, 2], "b": object, "d": [1], "e": (…)} by LIST, OBJ, APPEND and marks; then longs,
     * floats, sets, bytes. */
    static const char OLD[] =
        "\x80\x02}(X\x01\0\0\0a(K\x01K\x02lX\x01\0\0\0b(cm\nC\noX\x01\0\0\0c(K\x01im\nC\n"
        "X\x01\0\0\0d]K\x01"
        "aX\x01\0\0\0e(NN\x88\x89"
        "d20u.";
    static const char NEW[] = "\x80\x04}(\x8c\x01"
                              "a\x8a\x02\xff\x7f\x8c\x01"
                              "b\x8b\x09\0\0\0\1\1\1\1\1\1\1\1\1\x8c\x01"
                              "c"
                              "G?\xf0\0\0\0\0\0\0\x8c\x01"
                              "d\x8f(K\x01\x90\x8c\x01"
                              "e\x8a\x01\x80u.";
    struct um_arena arena = {NULL};
    const struct um_pvalue *v = NULL;
    CHECK_OK(um_pickle_read(&arena, (const unsigned char *)OLD, sizeof OLD - 1, &v));
    const struct um_pvalue *a = um_pickle_get(v, "a");
    CHECK(a && a->kind == UM_P_LIST && a->list.count == 2 && a->list.item[1]->integer == 2);
    CHECK(um_pickle_get(v, "b")->kind == UM_P_OTHER &&
          strcmp(um_pickle_get(v, "c")->name, "m.C") == 0);
    CHECK_EQ(um_pickle_get(v, "d")->list.count, 1);
    CHECK_EQ(um_pickle_get(v, "e")->kind, UM_P_DICT);
    CHECK_OK(um_pickle_read(&arena, (const unsigned char *)NEW, sizeof NEW - 1, &v));
    CHECK_EQ(um_pickle_get(v, "a")->integer, 0x7fff);
    CHECK_EQ(um_pickle_get(v, "b")->kind, UM_P_OTHER);
    CHECK(um_pickle_get(v, "c")->real == 1.0);
    CHECK_EQ(um_pickle_get(v, "e")->integer, -128);
    CHECK(!um_pickle_get(v, "f") && !um_pickle_get(a, "a"));
    um_arena_finish(&arena);
}

TEST(a_tensor_whose_signs_are_to_be_turned_is_none)
{
#define REBUILT(more)                                                          \
    "\x80\x02}X\1\0\0\0actorch._utils\n_rebuild_tensor_v2\n((X\7\0\0\0storage" \
    "ctorch\nFloatStorage\nX\1\0\0\0"                                          \
    "0X\3\0\0\0cpuK\1tQK\0K\1\x85K\1\x85\x89"                                  \
    "ccollections\nOrderedDict\n)R" more "tRs."
    static const struct {
        const char *bytes;
        size_t n;
        enum um_pkind kind;
    } CASES[] = {
        {REBUILT(""), sizeof REBUILT("") - 1, UM_P_TENSOR},
        {REBUILT("}"), sizeof REBUILT("}") - 1, UM_P_TENSOR},
        {REBUILT("N"), sizeof REBUILT("N") - 1, UM_P_TENSOR},
        {REBUILT("}X\3\0\0\0neg\x88s"), sizeof REBUILT("}X\3\0\0\0neg\x88s") - 1, UM_P_OTHER},
    };
    struct um_arena arena = {NULL};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        const struct um_pvalue *v = NULL;
        CHECK_OK(um_pickle_read(&arena, (const unsigned char *)CASES[i].bytes, CASES[i].n, &v));
        CHECK_EQ(um_pickle_get(v, "a")->kind, CASES[i].kind);
    }
    um_arena_finish(&arena);
}

/* ---- refusing ---- */

TEST(bad_torch_files_are_named)
{
    static const struct {
        const char *file, *words;
    } CASES[] = {
        {"bad_short_storage.pt", "tensor a: storage 0 has 4 bytes, want 2 elements of 4"},
        {"bad_no_storage.pt", "tensor a: no zip entry data/0"},
        {"bad_offset.pt", "tensor a: [2] at offset 1 leaves its storage 0 of 2 elements"},
        {"bad_stride.pt", "tensor a: [2] at offset 0 leaves its storage 0 of 2 elements"},
        {"bad_builder.pt", "tensor a: made by torch._utils._rebuild_sparse_tensor"},
        {"bad_storage_type.pt", "tensor a: storage torch.QInt8Storage"},
        {"bad_order.pt", "byte order"},
        {"bad_legacy.pt", "before 1.6"},
        {"bad_script.pt", "TorchScript"},
        {"bad_object.pt", "class some.model.Net"},
        {"evil_system.pt", "names posix.system"},
        {"evil_eval.pt", "names builtins.eval"},
        {"evil_in_tensor.pt", "tensor a: made by some.module.make"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        char path[512];
        snprintf(path, sizeof path, FOLDER "%s", CASES[i].file);
        CHECK(refuses(path, UM_EFORMAT, CASES[i].words));
    }
}

/* The archive without checksums, as PyTorch writes it when told to. */
static void leave_sums_out(unsigned char *bytes, size_t n)
{
    for (size_t i = 0; i + 20 <= n; i++)
        if (memcmp(bytes + i, "PK\1\2", 4) == 0)
            memset(bytes + i + 16, 0, 4);
}

/* Where `find` first stands in the bytes; n: nowhere. */
static size_t place_of(const void *find, size_t size, const unsigned char *bytes, size_t n)
{
    for (size_t at = 0; at + size < n; at++)
        if (memcmp(bytes + at, find, size) == 0)
            return at;
    return n;
}

TEST(a_flipped_bit_is_told)
{
    static const unsigned char FIND[] = {0, 0, 0xa0, 0x3f}; /* 1.25 */
    size_t n = 0;
    unsigned char *bytes = slurp(FOLDER "hand.pt", &n);
    CHECK(bytes != NULL);
    size_t at = place_of(FIND, sizeof FIND, bytes, n);
    CHECK(at < n);
    bytes[at + 2] ^= 0x40;
    um_weights *w = NULL;
    CHECK_EQ(um_weights_open_memory(&w, bytes, n, "flipped"), UM_EFORMAT);
    CHECK(strstr(um_last_error(), "flipped: zip entry ") &&
          strstr(um_last_error(), "/data/0: damaged, its checksum is "));
    leave_sums_out(bytes, n);
    CHECK_OK(um_weights_open_memory(&w, bytes, n, "unsummed"));
    CHECK(um_wtensor_at(um_weights_find(w, "a"), 1) == 1.75);
    um_weights_close(&w);
    free(bytes);
}

TEST(an_offset_behind_the_storage_is_refused)
{
    static const unsigned char FIND[] = {'Q', 'K', 0, 'K', 2, 0x85}; /* offset 0, size (2,) */
    size_t n = 0;
    unsigned char *bytes = slurp(FOLDER "hand.pt", &n);
    CHECK(bytes != NULL);
    size_t at = place_of(FIND, sizeof FIND, bytes, n);
    CHECK(at < n);
    leave_sums_out(bytes, n);
    bytes[at + 4] = 1; /* one element, at offset 1 and then 2 of 2 */
    um_weights *w = NULL;
    bytes[at + 2] = 1;
    CHECK_OK(um_weights_open_memory(&w, bytes, n, "last"));
    CHECK(um_wtensor_at(um_weights_find(w, "a"), 0) == 1.25);
    um_weights_close(&w);
    bytes[at + 2] = 2;
    um_status st = um_weights_open_memory(&w, bytes, n, "behind");
    free(bytes);
    CHECK_EQ(st, UM_EFORMAT);
    CHECK(strstr(um_last_error(), "tensor a: [1] at offset 2 leaves its storage 0 of 2 elements"));
}

TEST(files_that_are_none)
{
    um_weights *w = NULL;
    CHECK(refuses("/nowhere/at/all.pt", UM_EIO, "No such file"));
    CHECK(refuses(UM_GOLDEN_DIR, UM_EFORMAT, "a folder without a weight file"));
    CHECK(refuses("/dev/null", UM_EIO, "not a regular file"));
    const char *fifo = temporary("fifo");
    CHECK_EQ(mkfifo(fifo, 0600), 0);
    CHECK(refuses(fifo, UM_EIO, "not a regular file")); /* at once: nobody writes */
    CHECK_EQ(convert(FOLDER "hand.pt", fifo, "fp32", 0, NULL), UM_EIO);
    remove(fifo);
    CHECK_EQ(um_weights_open(&w, ""), UM_EINVAL);
    CHECK_EQ(um_weights_open(&w, NULL), UM_EINVAL);
    CHECK_EQ(um_weights_open_memory(&w, "", 0, "empty"), UM_EFORMAT);
    CHECK_EQ(um_weights_open_memory(&w, "hello world", 11, "text"), UM_EFORMAT);
    CHECK(strstr(um_last_error(), "text: a text, want weights"));
    um_weights_close(NULL);
    um_weights_close(&w);
}

TEST(bad_safetensors_headers_are_named)
{
    um_weights *w = NULL;
    CHECK_OK(
        safetensors(&w, "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}  ", 8));
    CHECK(shaped(w, "a", "[2]"));
    um_weights_close(&w);
    CHECK_OK(safetensors(&w, "{}", 0));
    CHECK_EQ(um_weights_count(w), 0);
    um_weights_close(&w);
#define ENTRY(dtype, shape, span) \
    "{\"a\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" span "}}"
    CHECK(refuses_header(ENTRY("F32", "[2]", "[0,8]"), 7, "tensor a: bytes 0 to 8 of 7"));
    CHECK(refuses_header(ENTRY("F32", "[2]", "[0,4]"), 8, "tensor a: F32 [2] in 4 bytes"));
    CHECK(refuses_header(ENTRY("F32", "[3]", "[0,8]"), 8, "tensor a: F32 [3] in 8 bytes"));
    CHECK(refuses_header(ENTRY("F32", "[2]", "[8,0]"), 8, "bytes 8 to 0"));
    CHECK(refuses_header(ENTRY("F32", "[2]", "[-8,0]"), 8, "not two sizes"));
    CHECK(refuses_header(ENTRY("F32", "[2]", "[0,8,9]"), 8, "not two sizes"));
    CHECK(refuses_header(ENTRY("F32", "[2]", "[0]"), 8, "not two sizes"));
    CHECK(refuses_header(ENTRY("F32", "[2]", "[0,1e300]"), 8, "not two sizes"));
    CHECK(refuses_header(ENTRY("F32", "[1.5]", "[0,8]"), 8, "dimension 0 is no size"));
    CHECK(refuses_header(ENTRY("F32", "[-1]", "[0,8]"), 8, "dimension 0 is no size"));
    CHECK(refuses_header(ENTRY("F32", "[\"2\"]", "[0,8]"), 8, "dimension 0 is no size"));
    CHECK(
        refuses_header(ENTRY("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 8, "more than 8 dimensions"));
    CHECK(refuses_header(ENTRY("F32", "[4294967296,4294967296,4294967296]", "[0,8]"), 8,
                         "in 8 bytes"));
    CHECK(refuses_header(ENTRY("F32", "[0,2199023255552]", "[0,0]"), 0,
                         "tensor a: dimension 1 is 2199023255552"));
    CHECK(refuses_header(ENTRY("F8_E4M3", "[8]", "[0,8]"), 8, "dtype F8_E4M3"));
    CHECK(refuses_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8,
                         "want dtype, shape and data_offsets"));
    CHECK(refuses_header("{\"a\":3}", 8, "want dtype, shape and data_offsets"));
    CHECK(refuses_header("{\"__metadata__\":{\"a\":1}}", 8, "__metadata__ a is no string"));
    CHECK(refuses_header("{\"__metadata__\":[]}", 8, "__metadata__ is no object"));
    CHECK(refuses_header("{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 8, "found twice"));
    CHECK(refuses_header("{\"a\":", 8, "bad JSON"));
    CHECK(refuses_header("{}{}", 8, "more than one JSON value"));
    CHECK(refuses_header("{\"a\\nb\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
                         "control character"));
    CHECK(refuses_header("{\"\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
                         "tensor name"));
    CHECK(refuses_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                         "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}}",
                         16, "tensor a: found twice"));
    CHECK(refuses_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                         "\"module.a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}}",
                         16, "tensor a: found twice"));
    CHECK(refuses_header("{\"a\":{\"dtype\":\"F32\",\"dtype\":\"I32\",\"shape\":[2],"
                         "\"data_offsets\":[0,8]}}",
                         8, "each once"));
    static const unsigned char HUGE_HEADER[9] = {0xff, 0xff, 0xff, 0xff, 0xff,
                                                 0xff, 0xff, 0xff, '{'};
    CHECK_EQ(um_weights_open_memory(&w, HUGE_HEADER, sizeof HUGE_HEADER, "huge"), UM_EFORMAT);
    CHECK(strstr(um_last_error(), "header of 18446744073709551615 bytes in a file of 9"));
}

#define TENSOR(name, bytes, from, to) \
    "\"" name "\":{\"dtype\":\"U8\",\"shape\":[" bytes "],\"data_offsets\":[" from "," to "]}"

/* The format's rule: sorted by offset, tensors cover the data without holes. */
TEST(every_byte_of_data_belongs_to_one_tensor)
{
    um_weights *w = NULL;
    CHECK_OK(safetensors(&w,
                         "{" TENSOR("c", "2", "6", "8") "," TENSOR("b", "0", "4", "4") "," TENSOR(
                             "a", "4", "0", "4") "," TENSOR("d", "2", "4", "6") "}",
                         8));
    CHECK_EQ(um_weights_count(w), 4);
    um_weights_close(&w);
    CHECK(refuses_header("{" TENSOR("a", "4", "0", "4") "," TENSOR("b", "4", "3", "7") "}", 7,
                         "tensor b: its bytes from 3 overlap those of others up to 4"));
    CHECK(refuses_header("{" TENSOR("a", "4", "0", "4") "," TENSOR("b", "4", "0", "4") "}", 4,
                         "its bytes from 0 overlap"));
    CHECK(refuses_header("{" TENSOR("a", "4", "0", "4") "," TENSOR("b", "3", "5", "8") "}", 8,
                         "tensor b: its bytes from 5 leave a hole from 4"));
    CHECK(refuses_header("{" TENSOR("a", "4", "1", "5") "}", 5, "leave a hole from 0"));
    CHECK(refuses_header("{" TENSOR("a", "4", "0", "4") "}", 6,
                         "2 of 6 bytes of data belong to no tensor"));
    CHECK(refuses_header("{}", 6, "6 of 6 bytes of data belong to no tensor"));
    CHECK(refuses_header("{" TENSOR("a", "0", "4", "4") "}", 4, "leave a hole from 0"));
}

/* What cJSON would cut or pass through. */
TEST(names_are_text)
{
    um_weights *w = NULL;
    CHECK(refuses_header("{" TENSOR("a\\u0000b", "4", "0", "4") "}", 4, "a zero at offset 11"));
    CHECK(refuses_header("{\"__metadata__\":{\"k\":\"a\\u0000\"}}", 0, "a zero at offset"));
    CHECK(refuses_header("{" TENSOR("a\xff", "4", "0", "4") "}", 4, "no UTF-8 at offset 11"));
    CHECK(refuses_header("{" TENSOR("a\\u009b2J", "4", "0", "4") "}", 4,
                         "control character at byte 1"));
    CHECK(refuses_header("{" TENSOR("\\u001b[2J", "4", "0", "4") "}", 4,
                         "control character at byte 0"));
    CHECK_OK(safetensors(&w, "{" TENSOR("a\\\\u0000", "4", "0", "4") "}", 4)); /* a backslash */
    CHECK(um_weights_find(w, "a\\u0000") != NULL);
    um_weights_close(&w);
    static const char ZERO[] = "{" TENSOR("a", "4", "0", "4") "}\0";
    CHECK_EQ(safetensors_of(&w, ZERO, sizeof ZERO - 1, 4), UM_EFORMAT);
    CHECK(strstr(um_last_error(), "a zero at offset"));
}

TEST(renamed_names_are_as_long_as_others)
{
    char text[1000];
    snprintf(text, sizeof text,
             "{" TENSOR("model.backbone.model.a", "1", "0",
                        "1") ",\"model.enc_score_head.%0234d\":"
                             "{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
             0);
    CHECK(refuses_header(text, 2,
                         "tensor name decoder.enc_score_head.00000000000000000…: 257 bytes"));
    um_weights *w = NULL;
    CHECK_OK(safetensors(&w, "{" TENSOR("module.module.a", "1", "0", "1") "}", 1));
    CHECK(um_weights_find(w, "a") != NULL);
    um_weights_close(&w);
}

/* Whatever is in a name, a message about it does not speak to the terminal. */
TEST(messages_hold_no_control_characters)
{
    um_weights *w = NULL;
    CHECK(refuses_header("{\"\\u001b]0;x\\u0007\\u009b\":3}", 0,
                         "tensor \\x1b]0;x\\x07\\xc2\\x9b: want dtype"));
    CHECK_EQ(um_weights_open(&w, "/nowhere/\x1b[2J\n\xff\xc3\xa4"), UM_EIO);
    CHECK_STR(um_last_error(),
              "/nowhere/\\x1b[2J\\x0a\\xff\xc3\xa4: cannot open: No such file or directory");
}

TEST(deep_json_is_refused)
{
    enum { DEPTH = 100000 };
    char *text = malloc(DEPTH + 1);
    memset(text, '[', DEPTH);
    text[0] = '{';
    text[DEPTH] = 0;
    memcpy(text, "{\"a\":", 5);
    um_weights *w = NULL;
    um_status st = safetensors(&w, text, 8);
    free(text);
    CHECK_EQ(st, UM_EFORMAT);
}

/* The first few are small enough to be opened once for every byte. */
static const char *const FILES[] = {
    "types.safetensors",   "hand.pt",  "streamed.pt",  "state_deflated.pt",
    "hf_file.safetensors", "state.pt", "training.pth", "protocol4.pt"};
enum { FILE_COUNT = sizeof FILES / sizeof *FILES, SMALL_COUNT = 4 };

TEST(a_file_cut_at_any_byte_is_refused)
{
    for (int f = 0; f < SMALL_COUNT; f++) {
        char path[512];
        snprintf(path, sizeof path, FOLDER "%s", FILES[f]);
        size_t n = 0;
        unsigned char *bytes = slurp(path, &n);
        CHECK(bytes != NULL);
        for (size_t k = 0; k < n; k++) {
            unsigned char *part =
                malloc(k ? k : 1); /* its own block, so that a sanitizer sees the end */
            memcpy(part, bytes, k);
            um_weights *w = NULL;
            um_status st = um_weights_open_memory(&w, part, k, FILES[f]);
            um_weights_close(&w);
            free(part);
            CHECK_MSG(st == UM_EFORMAT, "%s cut at %zu of %zu: %s", FILES[f], k, n,
                      um_status_name(st));
        }
        free(bytes);
    }
}

/* Any status will do; the sanitizers and the sums over all values are the test. */
TEST(a_file_with_any_byte_changed_is_survived)
{
    double sum = 0;
    int opened = 0;
    for (int f = 0; f < SMALL_COUNT; f++) {
        char path[512];
        snprintf(path, sizeof path, FOLDER "%s", FILES[f]);
        size_t n = 0;
        unsigned char *bytes = slurp(path, &n);
        CHECK(bytes != NULL);
        static const unsigned char FLIP[] = {0xff, 1};
        for (size_t k = 0; k < n; k++)
            for (size_t c = 0; c < sizeof FLIP; c++) {
                bytes[k] ^= FLIP[c];
                um_weights *w = NULL;
                if (um_weights_open_memory(&w, bytes, n, "changed") == UM_OK) {
                    opened++;
                    for (int i = 0; i < um_weights_count(w); i++) {
                        const struct um_wtensor *t = um_weights_at(w, i);
                        for (int64_t e = 0; e < um_wtensor_elements(t); e++)
                            sum += um_wtensor_at(t, e);
                    }
                }
                um_weights_close(&w);
                bytes[k] ^= FLIP[c];
            }
        free(bytes);
    }
    CHECK_MSG(opened > 0, "sum %g", sum);
}

TEST(every_failing_allocation_is_reported)
{
    for (int f = 0; f < FILE_COUNT; f++) {
        char path[512];
        snprintf(path, sizeof path, FOLDER "%s", FILES[f]);
        int k = 1;
        for (;; k++) {
            um_weights *w = NULL;
            FORGET_ERROR();
            um_mem_fail_at((uint64_t)k);
            um_status st = um_weights_open(&w, path);
            um_mem_fail_at(0);
            CHECK_MEMORY(st);
            bool open = w != NULL;
            um_weights_close(&w);
            if (st == UM_OK)
                break;
            CHECK_MSG(st == UM_ENOMEM && !open, "%s, allocation %d: %s: %s", FILES[f], k,
                      um_status_name(st), um_last_error());
            CHECK(k < 1000);
        }
        CHECK_MSG(k > 3, "%s needed %d allocations", FILES[f], k - 1);
    }
}

/* The parser of JSON has an allocator of its own, and NULL also for a text that is wrong. */
static int json_left;

static void *json_alloc(size_t n)
{
    if (--json_left != 0)
        return malloc(n);
    errno = ENOMEM;
    return NULL;
}

static void fail_json_at(int k)
{
    json_left = k;
    cJSON_InitHooks(k ? &(cJSON_Hooks){.malloc_fn = json_alloc, .free_fn = free} : NULL);
}

TEST(no_memory_for_json_is_no_file_that_is_wrong)
{
    static const char *const files[] = {FOLDER "hf_file.safetensors", "config", "names"};
    for (int f = 0; f < 3; f++) {
        um_status st = UM_ENOMEM;
        int k = 1;
        for (; st != UM_OK && k < 2000; k++) {
            um_weights *w = NULL;
            char *name[2] = {NULL};
            if (f)
                CHECK_OK(um_weights_open(&w, files[0]));
            FORGET_ERROR();
            fail_json_at(k);
            st = f == 0   ? um_weights_open(&w, files[0])
                 : f == 1 ? um_config_parse(w, files[1], "{\"num_queries\": 7}", 18)
                          : um_labels_read("[\"a\",\"b\"]", name, 2);
            fail_json_at(0);
            CHECK_MEMORY(st);
            CHECK(st == UM_OK || st == UM_ENOMEM);
            um_weights_close(&w);
            um_free(name[0]);
            um_free(name[1]);
        }
        CHECK_MSG(k > 3 && st == UM_OK, "%s: %d", files[f], k);
    }
}

/* ---- bombs ---- */

static bool write_text(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    bool good = f && fwrite(data, 1, n, f) == n;
    return f && fclose(f) == 0 && good;
}

/* Root reads every folder. */
static int open_as_nobody(void *folder)
{
    enum { NOBODY = 65534 };
    um_weights *w = NULL;
    if (geteuid() == 0 && seteuid(NOBODY) != 0)
        return 1;
    um_status st = um_weights_open(&w, folder);
    return st == UM_EIO && strstr(um_last_error(), ": cannot open: Permission denied") ? 0 : 2;
}

/* A folder of Hugging Face: its config.json in our words, and no memory. */
TEST(a_folder_says_what_its_config_says)
{
    static const char CONFIG[] =
        "{\"model_type\": \"d_fine\", \"num_queries\": 77, \"decoder_n_points\": [4, 8], "
        "\"id2label\": {\"0\": \"a\", \"2\": \"c\"}, \"anchor_image_size\": [256, 320]}";
    char folder[256], model[300], config[300];
    size_t n = 0;
    unsigned char *bytes = slurp(FOLDER "hf_file.safetensors", &n);
    snprintf(folder, sizeof folder, "%s", temporary("folder"));
    snprintf(model, sizeof model, "%s/model.safetensors", folder);
    snprintf(config, sizeof config, "%s/config.json", folder);
    CHECK(bytes && mkdir(folder, 0700) == 0 && write_text(model, bytes, n) &&
          write_text(config, CONFIG, sizeof CONFIG - 1));
    free(bytes);
    um_weights *w = NULL;
    const char *from = NULL;
    for (int k = 1; !w; k++) {
        FORGET_ERROR();
        um_mem_fail_at((uint64_t)k);
        um_status st = um_weights_open(&w, folder);
        um_mem_fail_at(0);
        CHECK_MEMORY(st);
        CHECK((st == UM_OK) == (w != NULL));
    }
    CHECK(um_weights_hugging_face(w));
    CHECK_STR(um_weights_fact(w, "queries", &from), "77");
    CHECK_STR(from, "config.json");
    CHECK_STR(um_weights_fact(w, "activation", NULL), "relu");
    CHECK_STR(um_weights_fact(w, "points", NULL), "4,8");
    CHECK_STR(um_weights_fact(w, "classes", NULL), "a,,c");
    CHECK_STR(um_weights_fact(w, "input_size", NULL), "320x256");
    CHECK(!um_weights_fact(w, "fit", NULL));
    CHECK_STR(um_weights_path(w), model);
    um_weights_close(&w);
    CHECK(write_text(config, "[", 1));
    CHECK_EQ(um_weights_open(&w, folder), UM_EFORMAT);
    CHECK(strncmp(um_last_error(), config, strlen(config)) == 0); /* the file that is wrong */
    remove(config);
    CHECK_OK(um_weights_open(&w, model));
    CHECK(!um_weights_fact(w, "queries", NULL));
    um_weights_close(&w);
    remove(model);
    CHECK_EQ(um_weights_open(&w, folder), UM_EFORMAT);
    CHECK(strstr(um_last_error(), "a folder without a weight file"));
    chmod(folder, 0);
    CHECK_EQ(child_run(open_as_nobody, folder), 0);
    rmdir(folder);
}

static size_t put_number(unsigned char *p, uint64_t n, int bytes)
{
    for (int i = 0; i < bytes; i++)
        p[i] = (unsigned char)(n >> 8 * i);
    return (size_t)bytes;
}

struct zip_entry {
    const char *name;
    const void *data;
    size_t size;
    bool deflated;
    size_t at; /* of an earlier local header to point at, or 0 */
};

/* A zip archive in one block, freed by the caller. */
static unsigned char *zip(const struct zip_entry *e, int count, size_t *size)
{
    size_t room = 1 << 16, n = 0, head[8];
    for (int i = 0; i < count; i++)
        room += e[i].size + e[i].size / 100 + 1000;
    unsigned char *p = calloc(1, room), *directory = calloc(1, 4096);
    size_t d = 0;
    if (!p || !directory)
        abort();
    for (int i = 0; i < count; i++) {
        size_t name = strlen(e[i].name);
        uint32_t crc = (uint32_t)crc32(0, e[i].data, (uInt)e[i].size);
        head[i] = n;
        memcpy(p + n, "PK\3\4", 4);
        put_number(p + n + 26, name, 2);
        memcpy(p + n + 30, e[i].name, name);
        size_t packed = e[i].size, body = n + 30 + name;
        if (e[i].deflated) {
            z_stream s = {.next_in = (unsigned char *)e[i].data,
                          .avail_in = (uInt)e[i].size,
                          .next_out = p + body,
                          .avail_out = (uInt)(room - body)};
            if (deflateInit2(&s, 9, Z_DEFLATED, -MAX_WBITS, 9, Z_DEFAULT_STRATEGY) != Z_OK ||
                deflate(&s, Z_FINISH) != Z_STREAM_END)
                abort();
            packed = s.total_out;
            deflateEnd(&s);
        } else if (packed) {
            memcpy(p + body, e[i].data, packed);
        }
        n = body + packed;
        unsigned char *c = directory + d;
        memcpy(c, "PK\1\2", 4);
        put_number(c + 10, e[i].deflated ? 8 : 0, 2);
        put_number(c + 16, crc, 4);
        put_number(c + 20, packed, 4);
        put_number(c + 24, e[i].size, 4);
        put_number(c + 28, name, 2);
        put_number(c + 42, e[i].at ? head[e[i].at - 1] : head[i], 4);
        memcpy(c + 46, e[i].name, name);
        d += 46 + name;
    }
    memcpy(p + n, directory, d);
    memcpy(p + n + d, "PK\5\6", 4);
    put_number(p + n + d + 10, (uint64_t)count, 2);
    put_number(p + n + d + 12, d, 4);
    put_number(p + n + d + 16, n, 4);
    free(directory);
    *size = n + d + 22;
    return p;
}

/* {"a": tensor of `elements` floats [dim] in a storage of `storage`}: all numbers below 2^31. */
static size_t tensor_pickle(char *p, uint32_t dim, uint32_t stride, uint32_t storage)
{
    size_t n = 0;
#define PUT(text) (memcpy(p + n, text, sizeof text - 1), n += sizeof text - 1)
#define PUT_INT(v) (PUT("J"), n += put_number((unsigned char *)p + n, v, 4))
    PUT("\x80\2}"
        "X\1\0\0\0actorch._utils\n_rebuild_tensor_v2\n(("
        "X\7\0\0\0storagectorch\nFloatStorage\n"
        "X\1\0\0\0"
        "0X\3\0\0\0cpu");
    PUT_INT(storage);
    PUT("tQK\0");
    PUT_INT(dim);
    PUT("\x85");
    PUT_INT(stride);
    PUT("\x85\x89"
        "ccollections\nOrderedDict\n)RtRs.");
    return n;
}

struct bomb {
    const unsigned char *bytes;
    size_t size;
    um_status want;
    const char *words;
};

/* A refusal costs no more than the bound says: 8 times the file and a few megabytes. */
static int open_bomb(void *ctx)
{
    const struct bomb *b = ctx;
    um_weights *w = NULL;
    long before = child_peak_kb();
    um_status st = um_weights_open_memory(&w, b->bytes, b->size, "bomb");
    um_weights_close(&w);
    if (st != b->want || (st != UM_OK && !strstr(um_last_error(), b->words))) {
        printf("  %s: %s, want %s\n", um_status_name(st), um_last_error(), b->words);
        fflush(stdout);
        return 2;
    }
    return !CHILD_SANITIZED && child_peak_kb() - before > (long)(8 * b->size >> 10) + (4 << 10) ? 3
                                                                                                : 0;
}

static int bomb(const struct zip_entry *e, int count, um_status want, const char *words)
{
    struct bomb b = {.want = want, .words = words};
    unsigned char *bytes = zip(e, count, &b.size);
    b.bytes = bytes;
    int rc = child_run(open_bomb, &b);
    free(bytes);
    return rc;
}

TEST(archives_take_memory_by_the_size_of_their_file)
{
    enum { MB = 1 << 20, HUGE_BYTES = 200 * MB };
    char pickle[512];
    unsigned char *zeros = calloc(1, HUGE_BYTES);
    CHECK(zeros != NULL);
    size_t n = tensor_pickle(pickle, 1, 1, HUGE_BYTES / 4);
    struct zip_entry e[] = {{"x/data.pkl", pickle, n, false, 0},
                            {"x/data/0", zeros, HUGE_BYTES, true, 0},
                            {"x/data/1", zeros, 4 * MB, true, 0}};
    CHECK_EQ(bomb(e, 2, UM_EFORMAT, "bomb: zip entry x/data/0: with it the file of "), 0);
    /* an honest file of zeros still opens */
    n = tensor_pickle(pickle, MB / 8, 1, MB / 8);
    e[0].size = n;
    e[1].size = MB / 2;
    CHECK_EQ(bomb(e, 2, UM_OK, ""), 0);
    /* a pickle that inflates */
    e[0] = (struct zip_entry){"x/data.pkl", zeros, 15 * MB, true, 0};
    CHECK_EQ(bomb(e, 1, UM_EFORMAT, "zip entry x/data.pkl: with it the file of "), 0);
    /* two names for the same bytes; one inside another */
    e[0] = (struct zip_entry){"x/data.pkl", pickle, n, false, 0};
    e[2] = (struct zip_entry){"x/data/1", zeros, 100, false, 2};
    CHECK_EQ(bomb(e, 3, UM_EFORMAT, "overlap at"), 0);
    /* a broadcast that describes more than the file has */
    n = tensor_pickle(pickle, HUGE_BYTES / 4, 0, 1);
    e[0].size = n;
    e[1] = (struct zip_entry){"x/data/0", zeros, 4, false, 0};
    CHECK_EQ(bomb(e, 2, UM_EFORMAT, "tensor a: with it 209715200 bytes of tensors in a file of "),
             0);
    /* a storage whose entry is longer than it says */
    n = tensor_pickle(pickle, 1, 1, 1);
    e[0].size = n;
    e[1].size = 8;
    CHECK_EQ(bomb(e, 2, UM_EFORMAT, "storage 0 has 8 bytes, want 1 elements of 4"), 0);
    e[1].size = 4;
    CHECK_EQ(bomb(e, 2, UM_OK, ""), 0);
    free(zeros);
}

/* Every byte of a pickle or of a header may cost this many in memory. */
enum { BYTES_A_BYTE = 96 };

static int open_dense(void *ctx)
{
    const struct bomb *b = ctx;
    um_weights *w = NULL;
    long before = child_peak_kb();
    um_status st = um_weights_open_memory(&w, b->bytes, b->size, "dense");
    um_weights_close(&w);
    if (st != UM_EFORMAT)
        return 2;
    long most = (long)(b->size >> 10) * BYTES_A_BYTE;
    return !CHILD_SANITIZED && child_peak_kb() - before > most ? 3 : 0;
}

TEST(nesting_and_density_cost_memory_by_the_size_of_their_file)
{
    enum { BYTES = 1 << 20 };
    static const char *const PICKLES[] = {"]",     "}",     "(",         "N",     "K\1",
                                          "N\x94", "N\x85", "]\x94h\0a", "(NNNt", "\x8c\0"};
    static const char *const HEADERS[] = {"[", "{\"\":", "[],", "1,", "\"\",", "{},"};
    char *text = malloc(BYTES + 16);
    CHECK(text != NULL);
    for (size_t k = 0; k < sizeof PICKLES / sizeof *PICKLES; k++) {
        size_t period = k == 7 ? 5 : strlen(PICKLES[k]) + (k == 9);
        memcpy(text, "\x80\2]\x94", 4);
        for (size_t i = 4; i < BYTES; i++)
            text[i] = PICKLES[k][(i - 4) % period];
        text[BYTES] = '.';
        struct zip_entry e = {"x/data.pkl", text, BYTES + 1, false, 0};
        struct bomb b = {.bytes = NULL};
        unsigned char *bytes = zip(&e, 1, &b.size);
        b.bytes = bytes;
        int rc = child_run(open_dense, &b);
        free(bytes);
        CHECK_MSG(rc == 0, "pickle %zu: %d", k, rc);
    }
    for (size_t k = 0; k < sizeof HEADERS / sizeof *HEADERS; k++) {
        size_t period = strlen(HEADERS[k]);
        put_number((unsigned char *)text, BYTES - 8, 8);
        memcpy(text + 8, "{\"a\":[", 6);
        for (size_t i = 14; i < BYTES; i++)
            text[i] = HEADERS[k][(i - 14) % period];
        struct bomb b = {.bytes = (unsigned char *)text, .size = BYTES};
        int rc = child_run(open_dense, &b);
        CHECK_MSG(rc == 0, "header %zu: %d", k, rc);
    }
    free(text);
}

TEST(a_file_cut_at_every_hundredth_is_refused)
{
    static const char *const MODELS[] = {UM_SOURCE_DIR "/models/dfine_n_bone_320.safetensors",
                                         UM_SOURCE_DIR "/models/mobile_sam_bone_384.safetensors"};
    for (int f = 0; f < FILE_COUNT + 2; f++) {
        char path[512];
        snprintf(path, sizeof path, f < FILE_COUNT ? FOLDER "%s" : "%s",
                 f < FILE_COUNT ? FILES[f] : MODELS[f - FILE_COUNT]);
        size_t n = 0;
        unsigned char *bytes = slurp(path, &n);
        CHECK(bytes != NULL);
        for (size_t k = 0; k < 100; k++) {
            um_model_info info = {.struct_size = sizeof info};
            um_status st = um_model_inspect_memory(bytes, n * k / 100, "cut", &info);
            CHECK_MSG(st == UM_EFORMAT && strncmp(um_last_error(), "cut: ", 5) == 0,
                      "%s cut to %zu %%: %s", path, k, um_last_error());
        }
        free(bytes);
    }
}

static int files_of(const char *prefix)
{
    char folder[256];
    snprintf(folder, sizeof folder, "%s", prefix);
    *strrchr(folder, '/') = 0;
    int n = 0;
    DIR *d = opendir(folder);
    for (struct dirent *x; d && (x = readdir(d));)
        n += strstr(x->d_name, ".ultramotion.") == x->d_name ||
             strcmp(x->d_name, strrchr(prefix, '/') + 1) == 0;
    if (d)
        closedir(d);
    return n;
}

static int convert_into_a_limit(void *out)
{
    struct rlimit limit = {600, 600};
    signal(SIGXFSZ, SIG_IGN);
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0)
        return 1;
    um_status st = convert(FOLDER "state.pt", out, "fp32", 0, NULL);
    return st == UM_EIO && strstr(um_last_error(), "cannot be written: File too large") ? 0 : 2;
}

TEST(convert_leaves_nothing_where_it_fails)
{
    char folder[300], out[320];
    snprintf(folder, sizeof folder, "%s", temporary("convert"));
    snprintf(out, sizeof out, "%s/out.safetensors", folder);
    CHECK_EQ(mkdir(folder, 0700), 0);
    CHECK_EQ(child_run(convert_into_a_limit, out), 0);
    CHECK_EQ(files_of(out), 0);
    CHECK_EQ(rmdir(folder), 0);
}

TEST(models_in_memory_are_as_on_disk)
{
    size_t n = 0;
    unsigned char *bytes = slurp(FOLDER "types.safetensors", &n);
    um_weights *a = NULL, *b = NULL;
    CHECK(bytes != NULL);
    CHECK_OK(um_weights_open(&a, FOLDER "types.safetensors"));
    uint64_t before = um_mem_count();
    CHECK_OK(um_weights_open_memory(&b, bytes, n, "types"));
    CHECK(um_mem_count() > before);
    CHECK_STR(um_weights_path(b), "types");
    CHECK_STR(um_weights_sha256(b), um_weights_sha256(a));
    CHECK_EQ(um_weights_count(b), um_weights_count(a));
    for (int i = 0; i < um_weights_count(a); i++)
        CHECK(um_weights_at(b, i)->data >= bytes && um_weights_at(b, i)->data <= bytes + n);
    CHECK(has_all_types(b));
    um_weights_close(&a);
    um_weights_close(&b);
    um_model_info x = {.struct_size = sizeof x}, y = {.struct_size = sizeof y};
    CHECK_OK(um_model_inspect(FOLDER "types.safetensors", &x));
    CHECK_OK(um_model_inspect_memory(bytes, n, "types", &y));
    CHECK(memcmp(&x, &y, sizeof x) == 0);
    CHECK_EQ(um_weights_open_memory(&b, NULL, 5, "x"), UM_EINVAL);
    CHECK_EQ(um_weights_open_memory(&b, bytes, n, NULL), UM_EINVAL);
    CHECK_EQ(um_weights_open_memory(&b, NULL, 0, "nothing"), UM_EFORMAT);
    CHECK_EQ(um_model_inspect_memory(bytes, n / 2, "half", &y), UM_EFORMAT);
    CHECK(strncmp(um_last_error(), "half: ", 6) == 0);
    free(bytes);
}

/* ---- recognising ---- */

/* Writes a file whose tensors are all zero: names and shapes are what counts. */
struct shape {
    const char *name;
    int64_t dim[4];
    int rank;
};

static const char *write_shapes(const char *file, const struct shape *s, int n,
                                const char *const *meta)
{
    static const unsigned char ZEROS[1 << 20];
    struct um_wout out[16];
    for (int i = 0; i < n; i++) {
        out[i] =
            (struct um_wout){.name = s[i].name, .type = UM_W_U8, .rank = s[i].rank, .data = ZEROS};
        memcpy(out[i].dim, s[i].dim, sizeof s[i].dim);
        if (um_view_elements(s[i].rank, s[i].dim) > (int64_t)sizeof ZEROS)
            return NULL;
    }
    const char *path = temporary(file);
    return um_safetensors_write(path, out, n, meta) == UM_OK ? path : NULL;
}

static bool is_dfine(const struct shape *s, int n, const char *const *meta,
                     const char *architecture, int input_size, const char *from)
{
    const char *path = write_shapes("dfine.safetensors", s, n, meta);
    um_model_info info = {.struct_size = sizeof info};
    um_status st = path ? um_model_inspect(path, &info) : UM_EIO;
    remove(path ? path : "");
    bool good = st == UM_OK && info.kind == UM_MODEL_DFINE &&
                strcmp(info.architecture, architecture) == 0 && info.input_size == input_size &&
                strcmp(info.input_size_from, from) == 0 && info.classes == 3 &&
                info.channels == 1 && info.tensors == n;
    if (!good)
        printf("  %s: %s, %s %d (%s), %d classes, %d channels\n",
               st == UM_OK ? "ok" : um_last_error(), architecture, info.architecture,
               info.input_size, info.input_size_from ? info.input_size_from : "?", info.classes,
               info.channels);
    return good;
}

TEST(dfine_sizes_are_recognised)
{
    static const struct {
        const char *name;
        int64_t width, channels[3];
        int levels;
    } SIZES[] = {{"dfine-n", 128, {512, 1024, 0}, 2},
                 {"dfine-s", 256, {256, 512, 1024}, 3},
                 {"dfine-m", 256, {384, 768, 1536}, 3},
                 {"dfine-l", 256, {512, 1024, 2048}, 3},
                 {"dfine-x", 384, {512, 1024, 2048}, 3}};
    static const char *const NAMES[] = {"encoder.input_proj.0.conv.weight",
                                        "encoder.input_proj.1.conv.weight",
                                        "encoder.input_proj.2.conv.weight"};
    for (size_t k = 0; k < sizeof SIZES / sizeof *SIZES; k++) {
        int64_t tokens = SIZES[k].levels == 2 ? 20 * 20 + 10 * 10 : 40 * 40 + 20 * 20 + 10 * 10;
        struct shape s[7] = {{"backbone.stem.stem1.conv.weight", {16, 1, 3, 3}, 4},
                             {"decoder.enc_score_head.weight", {3, SIZES[k].width}, 2},
                             {"decoder.up", {1}, 1}};
        int n = 3;
        for (int i = 0; i < SIZES[k].levels; i++)
            s[n++] = (struct shape){NAMES[i], {SIZES[k].width, SIZES[k].channels[i], 1, 1}, 4};
        CHECK(is_dfine(s, n, NULL, SIZES[k].name, 640, "default"));
        s[n++] = (struct shape){"decoder.anchors", {1, tokens, 4}, 3};
        CHECK(is_dfine(s, n, NULL, SIZES[k].name, 320, "tensors"));
        CHECK(is_dfine(s, n, (const char *const[]){"input_size", "416", NULL}, SIZES[k].name, 416,
                       "metadata"));
        s[n - 1].dim[1] = tokens + 1;
        CHECK(is_dfine(s, n, NULL, SIZES[k].name, 640, "default"));
    }
}

TEST(bad_input_size_in_metadata_is_an_error)
{
    static const char *const BAD[] = {
        "300", "abc",  "320x300", "",     "320x", "x320", "320x320x32",          "-320",
        "0",   " 320", "+320",    "320 ", "0x20", "320.", "99999999999999999999"};
    static const struct shape S[] = {{"backbone.stem.stem1.conv.weight", {16, 3, 3, 3}, 4},
                                     {"decoder.enc_score_head.weight", {3, 128}, 2},
                                     {"decoder.up", {1}, 1},
                                     {"encoder.input_proj.0.conv.weight", {128, 512, 1, 1}, 4},
                                     {"encoder.input_proj.1.conv.weight", {128, 1024, 1, 1}, 4}};
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        const char *path = write_shapes("size.safetensors", S, 5,
                                        (const char *const[]){"input_size", BAD[i], NULL});
        CHECK(path != NULL);
        um_model_info info = {.struct_size = sizeof info};
        um_status st = um_model_inspect(path, &info);
        remove(path);
        CHECK_MSG(st == UM_EFORMAT && strstr(um_last_error(), "input_size"), "\"%s\": %s", BAD[i],
                  um_status_name(st));
    }
}

TEST(sam_kinds_are_recognised)
{
    struct shape s[] = {
        {"mask_decoder.iou_token.weight", {1, 256}, 2},
        {"prompt_encoder.pe_layer.positional_encoding_gaussian_matrix", {2, 128}, 2},
        {"image_encoder.patch_embed.seq.0.c.weight", {32, 3, 3, 3}, 4}};
    static const struct {
        int64_t kernel;
        um_model_kind kind;
        const char *name;
        int input;
    } TINY[] = {{3, UM_MODEL_MOBILE_SAM, "mobile-sam", 1024},
                {1, UM_MODEL_LITE_MEDSAM, "lite-medsam", 256},
                {2, UM_MODEL_UNKNOWN, "unknown", 0}};
    um_model_info info = {.struct_size = sizeof info};
    for (int i = 0; i < 3; i++) {
        s[2].dim[2] = s[2].dim[3] = TINY[i].kernel;
        const char *path = write_shapes("sam.safetensors", s, 3, NULL);
        CHECK(path != NULL);
        CHECK_OK(um_model_inspect(path, &info));
        remove(path);
        CHECK_EQ(info.kind, TINY[i].kind);
        CHECK_STR(info.architecture, TINY[i].name);
        CHECK_EQ(info.input_size, TINY[i].input);
    }
    /* equal tensors: metadata decides, unless they are another family's */
    s[2].dim[2] = s[2].dim[3] = 3;
    const char *tiny = write_shapes("tiny.safetensors", s, 3,
                                    (const char *const[]){"architecture", "tiny-sam", NULL});
    CHECK(tiny != NULL);
    CHECK_OK(um_model_inspect(tiny, &info));
    remove(tiny);
    CHECK_EQ(info.kind, UM_MODEL_MOBILE_SAM);
    CHECK_STR(info.architecture, "tiny-sam");
    const char *wrong = write_shapes("wrong.safetensors", s, 3,
                                     (const char *const[]){"architecture", "lite-medsam", NULL});
    CHECK(wrong != NULL);
    CHECK_EQ(um_model_inspect(wrong, &info), UM_EFORMAT);
    remove(wrong);
    CHECK(strstr(um_last_error(), "lite-medsam") && strstr(um_last_error(), "mobile-sam"));
    s[2] = (struct shape){"image_encoder.pos_embed", {1, 16, 16, 768}, 4};
    const char *path = write_shapes("vit.safetensors", s, 3, NULL);
    CHECK(path != NULL);
    CHECK_OK(um_model_inspect(path, &info));
    remove(path);
    CHECK_EQ(info.kind, UM_MODEL_SAM_VIT);
    CHECK_STR(info.architecture, "sam-vit-b");
    CHECK_EQ(info.input_size, 256);
    CHECK_STR(info.input_size_from, "tensors");
}

TEST(an_unknown_file_is_no_error)
{
    um_model_info info = {.struct_size = sizeof info};
    CHECK_OK(um_model_inspect(FOLDER "state.pt", &info));
    CHECK_EQ(info.kind, UM_MODEL_UNKNOWN);
    CHECK_STR(info.architecture, "unknown");
    CHECK_STR(info.format, "torch zip");
    CHECK_EQ(info.tensors, 19);
    CHECK_EQ(info.parameters, 60 + 1 + 12 + 12 + 15 + 6 + 6 + 6 + 4);
    CHECK_EQ(strlen(info.sha256), 64);
    um_weights *w = NULL;
    CHECK_OK(um_weights_open(&w, FOLDER "state.pt"));
    struct um_dfine_info dfine;
    CHECK_EQ(um_dfine_recognise(w, &dfine), UM_EFORMAT);
    CHECK(strstr(um_last_error(), "an unknown network of 19 tensors"));
    CHECK(strstr(um_last_error(), "want a D-FINE checkpoint"));
    CHECK(!um_sam_recognise(w));
    um_weights_close(&w);
    CHECK_EQ(um_model_inspect("/nowhere", &info), UM_EIO);
    info.struct_size = 0;
    CHECK_EQ(um_model_inspect(FOLDER "state.pt", &info), UM_EINVAL);
    struct {
        um_model_info info;
        unsigned char after;
    } old;
    memset(&old, 0x5a, sizeof old);
    old.info.struct_size = offsetof(um_model_info, classes); /* a caller with an older header */
    CHECK_OK(um_model_inspect(FOLDER "state.pt", &old.info));
    CHECK_EQ(old.info.classes, 0x5a5a5a5a);
}

struct listing {
    int count;
    char last[64];
};

static void list_tensor(void *ctx, const char *name, const char *dtype, int rank,
                        const int64_t *dim)
{
    struct listing *l = ctx;
    l->count++;
    snprintf(l->last, sizeof l->last, "%.40s %s %d %d", name, dtype, rank, rank ? (int)dim[0] : 0);
}

static void list_pair(void *ctx, const char *key, const char *value)
{
    struct listing *l = ctx;
    l->count++;
    snprintf(l->last, sizeof l->last, "%.20s=%.40s", key, value);
}

TEST(tensors_and_metadata_are_listed)
{
    struct listing l = {0};
    CHECK_OK(um_model_tensors(FOLDER "types.safetensors", list_tensor, &l));
    CHECK_EQ(l.count, 12);
    CHECK_STR(l.last, "type.u8 U8 2 2");
    l.count = 0;
    CHECK_OK(um_model_metadata(FOLDER "types.safetensors", list_pair, &l));
    CHECK_EQ(l.count, 2);
    CHECK_OK(um_model_metadata(FOLDER "state.pt", list_pair, &l));
    CHECK_EQ(l.count, 2);
    CHECK_EQ(um_model_tensors("/nowhere", list_tensor, &l), UM_EIO);
    CHECK_EQ(um_model_metadata("/nowhere", list_pair, &l), UM_EIO);
}

/* ---- writing ---- */

TEST(convert_keeps_values_and_says_where_they_come_from)
{
    static const char *const PRECISION[] = {"fp32", "fp16"};
    for (int p = 0; p < 2; p++) {
        const char *out = temporary("converted.safetensors");
        CHECK_OK(convert(FOLDER "state.pt", out, PRECISION[p], 0,
                         (const char *const[]){"licence", "none", "note", "a \"b\"\n", NULL}));
        um_weights *w = NULL, *from = NULL;
        CHECK_OK(um_weights_open(&from, FOLDER "state.pt"));
        CHECK_OK(um_weights_open(&w, out));
        CHECK_EQ(um_weights_count(w), um_weights_count(from));
        for (int i = 0; i < um_weights_count(from); i++) {
            const struct um_wtensor *a = um_weights_at(from, i), *b = um_weights_find(w, a->name);
            CHECK(b && b->rank == a->rank && memcmp(a->dim, b->dim, sizeof a->dim) == 0);
            bool floating = a->type <= UM_W_F64;
            CHECK_EQ(b->type, floating ? (p ? UM_W_F16 : UM_W_F32) : a->type);
            for (int64_t e = 0; e < um_wtensor_elements(a); e++)
                CHECK(um_wtensor_at(a, e) == um_wtensor_at(b, e));
        }
        CHECK_STR(um_weights_meta(w, "architecture"), "unknown");
        CHECK_STR(um_weights_meta(w, "source_sha256"), um_weights_sha256(from));
        CHECK_STR(um_weights_meta(w, "licence"), "none");
        CHECK_STR(um_weights_meta(w, "note"), "a \"b\"\n");
        CHECK(strncmp(um_weights_meta(w, "producer"), "ultramotion ", 12) == 0);
        CHECK(!um_weights_meta(w, "input_size"));
        um_weights_close(&w);
        um_weights_close(&from);
        remove(out);
    }
}

TEST(convert_drops_counters_and_tables_of_another_size)
{
    static const struct shape S[] = {{"backbone.stem.stem1.conv.weight", {16, 3, 3, 3}, 4},
                                     {"backbone.stem.stem1.bn.num_batches_tracked", {0}, 0},
                                     {"decoder.enc_score_head.weight", {3, 128}, 2},
                                     {"decoder.up", {1}, 1},
                                     {"decoder.anchors", {1, 500, 4}, 3},
                                     {"decoder.valid_mask", {1, 500, 1}, 3},
                                     {"encoder.input_proj.0.conv.weight", {128, 512, 1, 1}, 4},
                                     {"encoder.input_proj.1.conv.weight", {128, 1024, 1, 1}, 4}};
    const char *in = write_shapes("in.safetensors", S, 8,
                                  (const char *const[]){"licence", "x", "producer", "y", NULL});
    const char *out = temporary("out.safetensors");
    CHECK(in != NULL);
    um_model_info info = {.struct_size = sizeof info};
    CHECK_OK(convert(in, out, "fp32", 0, NULL));
    CHECK_OK(um_model_inspect(out, &info));
    CHECK_EQ(info.input_size, 320);
    CHECK_STR(info.input_size_from, "metadata");
    CHECK_EQ(info.tensors, 7);
    CHECK_OK(convert(in, out, "fp32", 640, NULL));
    CHECK_OK(um_model_inspect(out, &info));
    CHECK_EQ(info.input_size, 640);
    CHECK_EQ(info.tensors, 5);
    CHECK_EQ(info.classes, 3);
    um_weights *w = NULL;
    CHECK_OK(um_weights_open(&w, out));
    CHECK_STR(um_weights_meta(w, "classes"), "3");
    CHECK_STR(um_weights_meta(w, "licence"), "x");
    CHECK(strncmp(um_weights_meta(w, "producer"), "ultramotion ", 12) == 0);
    um_weights_close(&w);
    CHECK_EQ(convert(in, out, "fp32", 333, NULL), UM_EINVAL);
    CHECK_EQ(convert(in, out, "fp32", -32, NULL), UM_EINVAL);
    remove(in);
    remove(out);
}

TEST(convert_refuses)
{
    const char *in = temporary("self.safetensors"), *out = temporary("none.safetensors");
    static const float BIG[] = {1, -70000.0f};
    struct um_wout t = {.name = "big", .type = UM_W_F32, .rank = 1, .dim = {2}, .data = BIG};
    CHECK_OK(um_safetensors_write(in, &t, 1, NULL));
    CHECK_EQ(convert(in, in, "fp32", 0, NULL), UM_EINVAL);
    CHECK(strstr(um_last_error(), "also the input"));
    CHECK_EQ(symlink(in, out), 0);
    CHECK_EQ(convert(in, out, "fp32", 0, NULL), UM_EINVAL);
    CHECK_EQ(remove(out), 0);
    CHECK_EQ(convert(in, out, "int8", 0, NULL), UM_EUNSUPPORTED);
    CHECK_EQ(convert(in, out, NULL, 0, NULL), UM_EINVAL);
    CHECK_EQ(convert(in, out, "fp16", 0, NULL), UM_EFORMAT);
    CHECK(strstr(um_last_error(), "tensor big: value -70000 at 1 does not fit fp16"));
    CHECK_EQ(convert(in, out, "fp32", 0, (const char *const[]){"key", NULL}), UM_EINVAL);
    CHECK_EQ(convert(in, "/nowhere/x.safetensors", "fp32", 0, NULL), UM_EIO);
    CHECK_EQ(convert("/nowhere", out, "fp32", 0, NULL), UM_EIO);
    CHECK(access(out, F_OK) != 0); /* nothing is left where nothing was finished */
    um_model_info info = {.struct_size = sizeof info};
    CHECK_OK(um_model_inspect(in, &info)); /* and the input is what it was */
    remove(in);
}

/* Of its own are some entries, too. */
TEST(convert_writes_no_more_metadata_than_is_read)
{
    enum { MOST = 512 };
    const char *in = temporary("many.safetensors"), *out = temporary("more.safetensors");
    static const float value = 1;
    static char key[MOST][8];
    const char *meta[2 * MOST + 1] = {NULL};
    struct um_wout t = {.name = "a", .type = UM_W_F32, .rank = 0, .data = &value};
    for (int few = 0; few < 2; few++) {
        int n = few ? MOST - 20 : MOST;
        for (int i = 0; i < n; i++) {
            snprintf(key[i], sizeof key[i], "k%d", i);
            meta[2 * i] = meta[2 * i + 1] = key[i];
        }
        meta[2 * (size_t)n] = NULL;
        um_weights *w = NULL;
        CHECK_OK(um_safetensors_write(in, &t, 1, meta));
        CHECK_EQ(convert(in, out, "fp32", 0, NULL), few ? UM_OK : UM_EINVAL);
        CHECK_EQ(um_weights_open(&w, out), few ? UM_OK : UM_EIO);
        um_weights_close(&w);
    }
    remove(in);
    remove(out);
}

TEST(convert_keeps_infinities)
{
    const char *in = temporary("inf.safetensors"), *out = temporary("inf16.safetensors");
    const float values[] = {INFINITY, -INFINITY, NAN, 65504.0f};
    struct um_wout t = {
        .name = "decoder.anchors", .type = UM_W_F32, .rank = 1, .dim = {4}, .data = values};
    CHECK_OK(um_safetensors_write(in, &t, 1, NULL));
    CHECK_OK(convert(in, out, "fp16", 0, NULL));
    um_weights *w = NULL;
    CHECK_OK(um_weights_open(&w, out));
    const struct um_wtensor *r = um_weights_find(w, "decoder.anchors");
    CHECK(r && um_wtensor_at(r, 0) == INFINITY && um_wtensor_at(r, 1) == -INFINITY &&
          isnan(um_wtensor_at(r, 2)) && um_wtensor_at(r, 3) == 65504);
    um_weights_close(&w);
    remove(in);
    remove(out);
}

TEST(convert_to_the_same_keeps_every_type)
{
    const char *in = temporary("mixed.safetensors"), *out = temporary("same.safetensors");
    const float values[] = {1, -70000}; /* the second is none of fp16's */
    static const enum um_wtype TYPE[] = {UM_W_F16, UM_W_BF16, UM_W_F32, UM_W_I64};
    static const char *const NAME[] = {"half", "brain", "full", "whole"};
    struct um_wout t[4];
    for (int i = 0; i < 4; i++)
        t[i] = (struct um_wout){
            .name = NAME[i], .type = TYPE[i], .rank = 1, .dim = {1}, .data = values};
    CHECK_OK(um_safetensors_write(in, t, 4, NULL));
    CHECK_OK(convert(in, out, "same", 0, NULL));
    um_weights *before = NULL, *after = NULL;
    CHECK_OK(um_weights_open(&before, in));
    CHECK_OK(um_weights_open(&after, out));
    for (int i = 0; i < 4; i++) {
        const struct um_wtensor *a = um_weights_find(before, NAME[i]),
                                *b = um_weights_find(after, NAME[i]);
        CHECK(a && b && b->type == TYPE[i] && um_wtensor_at(a, 0) == um_wtensor_at(b, 0));
    }
    um_weights_close(&before);
    um_weights_close(&after);
    remove(in);
    remove(out);
}

TEST(convert_survives_every_failing_allocation)
{
    const char *out = temporary("alloc.safetensors");
    int k = 1;
    for (;; k++) {
        FORGET_ERROR();
        um_mem_fail_at((uint64_t)k);
        um_status st = convert(FOLDER "state.pt", out, "fp16", 0, NULL);
        um_mem_fail_at(0);
        CHECK_MEMORY(st);
        if (st == UM_OK)
            break;
        CHECK_MSG(st == UM_ENOMEM, "allocation %d: %s", k, um_last_error());
        CHECK(access(out, F_OK) != 0);
        CHECK(k < 1000);
    }
    CHECK(k > 10);
    remove(out);
}

/* ---- the models that ship ---- */

TEST(shipped_models_are_what_they_say)
{
    um_model_info info = {.struct_size = sizeof info};
    CHECK_OK(um_model_inspect(UM_SOURCE_DIR "/models/dfine_n_bone_320.safetensors", &info));
    CHECK_EQ(info.kind, UM_MODEL_DFINE);
    CHECK_STR(info.architecture, "dfine-n");
    CHECK_EQ(info.classes, 1);
    CHECK_EQ(info.channels, 3);
    CHECK_EQ(info.input_size, 320);
    CHECK_STR(info.input_size_from, "metadata");
    CHECK_OK(um_model_inspect(UM_SOURCE_DIR "/models/mobile_sam_bone_384.safetensors", &info));
    CHECK_EQ(info.kind, UM_MODEL_MOBILE_SAM);
    CHECK_EQ(info.input_size, 384);
    CHECK_EQ(info.classes, 0);
    CHECK_EQ(info.tensors, 412);
}

TEST_MAIN
