/* SPDX-License-Identifier: Apache-2.0 */
/* What Hugging Face keeps beside a model: config.json and preprocessor_config.json, in the words of
 * our own metadata. transformers, models/d_fine/configuration_d_fine.py: a key that is left out has
 * its default, and one that would change the network without a trace in the tensors must have the
 * value that the network here has. */
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/number.h"
#include "base/text.h"
#include "weights/labels.h"
#include "weights/view.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CONFIG_BYTES_MAX = 4 << 20, LABELS_MAX = 1 << 16 };

static um_status add(um_weights *w, const char *key, const char *value)
{
    enum { FACTS_MAX = 8 }; /* five keys, and a size twice */
    if (!w->fact)
        w->fact = um_arena_take(&w->arena, FACTS_MAX * sizeof *w->fact);
    char *copy = w->fact ? um_arena_string(&w->arena, value, strlen(value)) : NULL;
    if (!copy)
        return um_fail(UM_ENOMEM, "config.json");
    w->fact[w->fact_count++] = (struct um_wpair){key, copy};
    return UM_OK;
}

/* From 1 to `most`? */
static bool is_whole(const cJSON *x, int most)
{
    return cJSON_IsNumber(x) && x->valuedouble >= 1 && x->valuedouble <= most &&
           x->valuedouble == floor(x->valuedouble);
}

/* A side of at most five digits in a two-number array [h,w], or one number. */
static bool side(const cJSON *x, int axis, int *out)
{
    const cJSON *n = cJSON_IsArray(x) ? cJSON_GetArrayItem(x, axis) : x;
    if (!is_whole(n, 99999))
        return false;
    *out = (int)n->valuedouble;
    return true;
}

static um_status add_size(um_weights *w, const char *path, const char *key, const cJSON *h_of,
                          const cJSON *w_of)
{
    int width = 0, height = 0;
    char text[32];
    if (!side(h_of, 0, &height) || !side(w_of, 1, &width))
        return um_fail(UM_EUNSUPPORTED, "%s: %s is no height and width, only those are computed",
                       path, key);
    snprintf(text, sizeof text, "%dx%d", width, height);
    return add(w, "input_size", text);
}

/* A key, and what the network here computes. */
struct fixed {
    const char *key, *text; /* text NULL: a number (false is 0) */
    double number;
};

static double number_of(const cJSON *x)
{
    return cJSON_IsNumber(x) ? x->valuedouble : cJSON_IsTrue(x) ? 1 : 0;
}

static bool is_near(const cJSON *x, double number)
{
    return (cJSON_IsNumber(x) || cJSON_IsBool(x)) &&
           fabs(number_of(x) - number) <= 1e-6 * fabs(number);
}

/* `prefix`: of the object that has the keys, with a dot. */
static um_status check_fixed(const char *path, const char *prefix, const cJSON *config,
                             const struct fixed *fixed, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct fixed *f = &fixed[i];
        const cJSON *x = cJSON_GetObjectItemCaseSensitive(config, f->key);
        if (!x || cJSON_IsNull(x))
            continue;
        if (f->text && (!cJSON_IsString(x) || strcmp(x->valuestring, f->text) != 0))
            return um_fail(UM_EUNSUPPORTED, "%s: %s%s is %.40s, only %s is computed", path, prefix,
                           f->key, cJSON_IsString(x) ? x->valuestring : "no text", f->text);
        if (!f->text && !is_near(x, f->number))
            return um_fail(UM_EUNSUPPORTED, "%s: %s%s is %g, only %g is computed", path, prefix,
                           f->key, number_of(x), f->number);
    }
    return UM_OK;
}

/* A list of `n` numbers; a pair of equal ones is a number. */
static um_status check_list(const char *path, const char *prefix, const cJSON *config,
                            const char *key, const double *want, int n)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(config, key), *x = NULL;
    char text[64] = "";
    int at = 0;
    bool equal = true;
    if (!list || cJSON_IsNull(list))
        return UM_OK;
    for (int i = 0; i < n; i++)
        um_number_print(text + strlen(text), sizeof text - strlen(text), "%s%g", i ? "," : "",
                        want[i]);
    cJSON_ArrayForEach(x, list)
    {
        const cJSON *first = cJSON_IsArray(x) ? cJSON_GetArrayItem(x, 0) : x,
                    *second = cJSON_IsArray(x) ? cJSON_GetArrayItem(x, 1) : x;
        equal = equal && at < n && is_near(first, want[at]) && is_near(second, want[at]);
        at++;
    }
    return cJSON_IsArray(list) && equal && at == n
               ? UM_OK
               : um_fail(UM_EUNSUPPORTED, "%s: %s%s is another list, only [%s] is computed", path,
                         prefix, key, text);
}

static um_status check_backbone(const um_weights *w, const char *path, const cJSON *config)
{
    static const double STAGES[] = {2, 2, 2, 2}, STEM[] = {2, 1, 1, 2, 1}, DOWN[] = {0, 1, 1, 1};
    const struct um_wtensor *stem = um_weights_find(w, "backbone.stem.stem1.conv.weight");
    bool affine = um_weights_find(w, "backbone.stem.stem1.lab.scale") != NULL;
    const struct fixed fixed[] = {{"hidden_act", "relu", 0},
                                  {"use_learnable_affine_block", NULL, affine}};
    um_status st = check_fixed(path, "backbone_config.", config, fixed, stem ? 2 : 1);
    if (st == UM_OK)
        st = check_list(path, "backbone_config.", config, "stage_downsample_strides", STAGES, 4);
    if (st == UM_OK)
        st = check_list(path, "backbone_config.", config, "stage_downsample", DOWN, 4);
    return st == UM_OK ? check_list(path, "backbone_config.", config, "stem_strides", STEM, 5) : st;
}

/* Attention is over the last level. */
static um_status check_levels(const char *path, const cJSON *config)
{
    const cJSON *n = cJSON_GetObjectItemCaseSensitive(config, "num_feature_levels");
    double last = cJSON_IsNumber(n) ? n->valuedouble - 1 : 2;
    return check_list(path, "", config, "encode_proj_layers", &last, 1);
}

/* Keys of config.json that leave no trace in the tensors. */
static um_status check_config(const um_weights *w, const char *path, const cJSON *config)
{
    static const struct fixed FIXED[] = {
        {"activation_function", "silu", 0},   {"encoder_activation_function", "gelu", 0},
        {"decoder_method", "default", 0},     {"normalize_before", NULL, 0},
        {"learn_initial_query", NULL, 0},     {"encoder_attention_heads", NULL, 8},
        {"decoder_attention_heads", NULL, 8}, {"encoder_layers", NULL, 1},
        {"decoder_offset_scale", NULL, 0.5},  {"positional_encoding_temperature", NULL, 10000},
        {"layer_norm_eps", NULL, 1e-5},       {"batch_norm_eps", NULL, 1e-5},
        {"top_prob_values", NULL, 4},         {"lqe_layers", NULL, 2},
    };
    um_status st = check_fixed(path, "", config, FIXED, sizeof FIXED / sizeof *FIXED);
    if (st == UM_OK)
        st = check_levels(path, config);
    if (st == UM_OK)
        st = check_backbone(w, path, cJSON_GetObjectItemCaseSensitive(config, "backbone_config"));
    if (st != UM_OK)
        return st;
    const cJSON *eval_size = cJSON_GetObjectItemCaseSensitive(config, "eval_size");
    if (eval_size && !cJSON_IsNull(eval_size)) /* transformers leaves out positions then */
        return um_fail(UM_EUNSUPPORTED, "%s: eval_size is set, only null is computed", path);
    const cJSON *layers = cJSON_GetObjectItemCaseSensitive(config, "decoder_layers");
    const cJSON *last = cJSON_GetObjectItemCaseSensitive(config, "eval_idx");
    int count = cJSON_IsNumber(layers) ? layers->valueint : 6;
    if (cJSON_IsNumber(last) && last->valueint != -1 && last->valueint != count - 1)
        return um_fail(UM_EUNSUPPORTED,
                       "%s: eval_idx is %d of %d layers, only the last is computed", path,
                       last->valueint, count);
    return UM_OK;
}

static bool is_text(const char *s)
{
    size_t n = strlen(s), bytes = 1;
    for (size_t i = 0; i < n && bytes; i += bytes)
        bytes = um_text_utf8(s + i, n - i, NULL);
    return bytes > 0;
}

/* id2label, {"0": "bone", …}, as our list of names. */
static um_status add_labels(um_weights *w, const char *path, const cJSON *labels)
{
    int n = 0;
    const cJSON *x = NULL;
    if (labels && !cJSON_IsNull(labels) && !cJSON_IsObject(labels))
        return um_fail(UM_EFORMAT, "%s: id2label is no object", path);
    cJSON_ArrayForEach(x, labels)
    {
        char *end = NULL;
        long id = strtol(x->string, &end, 10);
        if (!*x->string || *end || id < 0 || id >= LABELS_MAX || !cJSON_IsString(x) ||
            !is_text(x->valuestring))
            return um_fail(UM_EFORMAT, "%s: id2label: \"%.40s\" is no label with a name", path,
                           x->string);
        n = id >= n ? (int)id + 1 : n;
    }
    if (!n)
        return UM_OK;
    const struct um_wtensor *head = um_weights_find(w, "decoder.enc_score_head.weight");
    if (head && head->rank == 2 && head->dim[0] != n)
        return um_fail(UM_EFORMAT, "%s: id2label has %d name%s, the detector has %lld class%s",
                       path, n, n == 1 ? "" : "s", (long long)head->dim[0],
                       head->dim[0] == 1 ? "" : "es");
    const char **name = um_array((size_t)n, sizeof *name);
    if (!name)
        return um_fail(UM_ENOMEM, "%s: %d names", path, n);
    memset(name, 0, (size_t)n * sizeof *name);
    cJSON_ArrayForEach(x, labels) name[strtol(x->string, NULL, 10)] = x->valuestring;
    char *list = NULL;
    um_status st = um_labels_print(name, n, &list);
    if (st == UM_OK)
        st = add(w, "classes", list);
    um_free(list);
    um_free(name);
    return st;
}

static um_status add_points(um_weights *w, const char *path, const cJSON *x)
{
    enum { LEVELS = 4, MOST = 64 };
    char text[64] = "";
    int n = cJSON_IsArray(x) ? cJSON_GetArraySize(x) : 1;
    if (!x || cJSON_IsNull(x))
        return UM_OK;
    for (int i = 0; i < n; i++) {
        const cJSON *one = cJSON_IsArray(x) ? cJSON_GetArrayItem(x, i) : x;
        size_t used = strlen(text);
        if (n > LEVELS || !is_whole(one, MOST))
            return um_fail(UM_EFORMAT, "%s: decoder_n_points: want one number, or one a level",
                           path);
        snprintf(text + used, sizeof text - used, "%s%d", i ? "," : "", one->valueint);
    }
    return add(w, "points", text);
}

static um_status add_config(um_weights *w, const char *path, const cJSON *config)
{
    enum { QUERIES = 300, MOST = 1 << 16 };
    char number[16];
    um_status st = check_config(w, path, config);
    if (st != UM_OK)
        return st;
    const cJSON *act = cJSON_GetObjectItemCaseSensitive(config, "decoder_activation_function");
    const cJSON *queries = cJSON_GetObjectItemCaseSensitive(config, "num_queries");
    const cJSON *anchors = cJSON_GetObjectItemCaseSensitive(config, "anchor_image_size");
    bool said = queries && !cJSON_IsNull(queries);
    if (said && !is_whole(queries, MOST))
        return um_fail(UM_EFORMAT, "%s: num_queries is no whole number from 1 on", path);
    if (act && !cJSON_IsNull(act) && !cJSON_IsString(act))
        return um_fail(UM_EFORMAT, "%s: decoder_activation_function is no text", path);
    st = add(w, "activation", cJSON_IsString(act) ? act->valuestring : "relu");
    snprintf(number, sizeof number, "%d", said ? queries->valueint : QUERIES);
    if (st == UM_OK)
        st = add(w, "queries", number);
    if (st == UM_OK)
        st = add_labels(w, path, cJSON_GetObjectItemCaseSensitive(config, "id2label"));
    if (st == UM_OK)
        st = add_points(w, path, cJSON_GetObjectItemCaseSensitive(config, "decoder_n_points"));
    return st == UM_OK && anchors && !cJSON_IsNull(anchors)
               ? add_size(w, path, "anchor_image_size", anchors, anchors)
               : st;
}

/* Images are stretched to a size, bilinear, and divided by 255. */
static um_status add_preprocessor(um_weights *w, const char *path, const cJSON *config)
{
    enum { BILINEAR = 2 };
    static const struct fixed FIXED[] = {{"do_normalize", NULL, 0},
                                         {"do_rescale", NULL, 1},
                                         {"rescale_factor", NULL, 1.0 / 255},
                                         {"do_resize", NULL, 1},
                                         {"resample", NULL, BILINEAR}};
    um_status st = check_fixed(path, "", config, FIXED, sizeof FIXED / sizeof *FIXED);
    const cJSON *size = cJSON_GetObjectItemCaseSensitive(config, "size");
    const cJSON *pad = cJSON_GetObjectItemCaseSensitive(config, "pad_size");
    if (st != UM_OK)
        return st;
    if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(config, "do_pad")) && pad &&
        !cJSON_IsNull(pad))
        return um_fail(UM_EUNSUPPORTED,
                       "%s: do_pad is true, only images without padding are computed", path);
    if (!size || cJSON_IsNull(size))
        return UM_OK;
    const cJSON *height = cJSON_GetObjectItemCaseSensitive(size, "height");
    const cJSON *width = cJSON_GetObjectItemCaseSensitive(size, "width");
    return cJSON_IsArray(size) ? add_size(w, path, "size", size, size)
                               : add_size(w, path, "size", height, width);
}

/* By its type, else, where it has none, by a key that other models' configs have not. */
static bool is_dfine(const um_weights *w, const cJSON *config)
{
    static const char *const KEYS[] = {"decoder_activation_function", "decoder_n_points",
                                       "num_queries"};
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(config, "model_type");
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(config, "architectures");
    const cJSON *first = cJSON_IsArray(list) ? cJSON_GetArrayItem(list, 0) : NULL;
    bool known = w->hugging_face && cJSON_IsObject(config);
    if (cJSON_IsString(type))
        return strcmp(type->valuestring, "d_fine") == 0;
    if (cJSON_IsString(first))
        return strcmp(first->valuestring, "DFineForObjectDetection") == 0;
    for (size_t i = 0; i < sizeof KEYS / sizeof *KEYS; i++)
        known = known || cJSON_GetObjectItemCaseSensitive(config, KEYS[i]) != NULL;
    return known;
}

um_status um_config_parse(um_weights *w, const char *path, const void *text, size_t n)
{
    cJSON *config = NULL;
    um_status st = um_json_parse(&config, text, n, NULL, false);
    if (st != UM_OK)
        return st;
    if (config && is_dfine(w, config))
        st = add_config(w, path, config);
    else if (!w->hugging_face) /* any trainer may leave a config.json beside other weights */
        w->broken_config = !cJSON_IsObject(config);
    else
        st = config ? um_fail(UM_EFORMAT,
                              "%s: is of another model, want model_type d_fine as the tensors of "
                              "%s; give the folder that both are from",
                              path, w->path)
                    : um_fail(UM_EFORMAT, "%s: not JSON", path);
    cJSON_Delete(config);
    return st;
}

um_status um_preprocessor_parse(um_weights *w, const char *path, const void *text, size_t n)
{
    cJSON *config = NULL;
    um_status st = um_json_parse(&config, text, n, NULL, false);
    if (st == UM_OK)
        st = config ? add_preprocessor(w, path, config) : um_fail(UM_EFORMAT, "%s: not JSON", path);
    cJSON_Delete(config);
    return st;
}

/* FOLDER NAME, if it is there. */
static um_status read_beside(um_weights *w, const char *name,
                             um_status (*parse)(um_weights *, const char *, const void *, size_t))
{
    const char *slash = strrchr(w->path, '/');
    size_t folder = slash ? (size_t)(slash - w->path) + 1 : 0, size = 0;
    unsigned char *text = NULL;
    char *path = um_alloc(folder + strlen(name) + 1);
    if (!path)
        return um_fail(UM_ENOMEM, "path of %s", name);
    memcpy(path, w->path, folder);
    strcpy(path + folder, name);
    um_status st = UM_OK;
    if (access(path, F_OK) == 0) {
        st = um_file_read(path, CONFIG_BYTES_MAX, &text, &size);
        bool foreign = !w->hugging_face && !w->fact_count; /* who knows of what it is? */
        if (st == UM_OK) {
            st = parse(w, path, text, size);
        } else if (foreign && st != UM_ENOMEM) {
            w->broken_config = true;
            st = UM_OK;
        } else {
            st = um_fail_in(st, path);
        }
    }
    um_free(text);
    um_free(path);
    return st;
}

um_status um_config_read(um_weights *w)
{
    if (!w->hugging_face && !um_weights_find(w, "decoder.up"))
        return UM_OK; /* a segmenter that lies beside a D-FINE */
    um_status st = read_beside(w, "config.json", um_config_parse);
    return st == UM_OK && w->fact_count
               ? read_beside(w, "preprocessor_config.json", um_preprocessor_parse)
               : st;
}
