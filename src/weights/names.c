/* SPDX-License-Identifier: Apache-2.0 */
/* Names as upstream spells them: what trainers, compilers and wrappers have put in front goes. */
#include "base/text.h"
#include "weights/view.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* What wrappers of a module are called wherever they stand: DistributedDataParallel and
 * DataParallel, torch.compile, FullyShardedDataParallel, checkpoint_wrapper. */
static const char *const WRAPPER[] = {"module.", "_orig_mod.", "_fsdp_wrapped_module.",
                                      "_checkpoint_wrapped_module."};
/* A name that every network of a family has: what precedes it precedes them all. The second row
 * finds parts of networks, so that they can be named. */
static const char *const ANCHOR[2][5] = {
    {"backbone.stem.stem1.conv.weight", "model.backbone.model.embedder.stem1.convolution.weight",
     "mask_decoder.iou_token.weight"},
    {"decoder.enc_score_head.weight", "encoder.input_proj.0.conv.weight",
     "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
     "image_encoder.patch_embed.seq.0.c.weight", "image_encoder.patch_embed.proj.weight"},
};
enum { ANCHORS = 5, PREFIXES_MAX = 4 };
#define COUNT(a) (sizeof(a) / sizeof *(a))

struct prefix {
    const char *text; /* not terminated */
    size_t length;
};

/* Names are the arena's: shortened in place. */
static void drop_wrappers(char *name)
{
    for (char *at = name; at; at = strchr(at, '.'), at = at ? at + 1 : NULL)
        for (size_t i = 0; i < COUNT(WRAPPER); i++) {
            size_t n = strlen(WRAPPER[i]);
            if (strncmp(at, WRAPPER[i], n) == 0 && at[n]) {
                memmove(at, at + n, strlen(at + n) + 1);
                i = (size_t)-1; /* from the first again */
            }
        }
}

static bool same(struct prefix a, struct prefix b)
{
    return a.length == b.length && memcmp(a.text, b.text, a.length) == 0;
}

static int find_prefixes(const um_weights *w, const char *const *anchor,
                         struct prefix out[PREFIXES_MAX])
{
    int found = 0;
    for (int i = 0; i < w->count; i++)
        for (int k = 0; k < ANCHORS && anchor[k] && found < PREFIXES_MAX; k++) {
            const char *name = w->tensor[i].name;
            size_t n = strlen(name), m = strlen(anchor[k]);
            struct prefix p = {name, n - m};
            bool known =
                n < m || strcmp(name + n - m, anchor[k]) != 0 || (n > m && name[n - m - 1] != '.');
            for (int j = 0; j < found && !known; j++)
                known = same(out[j], p);
            if (!known)
                out[found++] = p;
        }
    return found;
}

static bool is_averaged(struct prefix p)
{
    static const char *const WORD[] = {"ema", "averaged", "shadow"};
    for (size_t i = 0; i + 3 <= p.length; i++)
        for (size_t k = 0; k < COUNT(WORD); k++) {
            size_t n = strlen(WORD[k]);
            if (n <= p.length - i && um_text_same_n(p.text + i, WORD[k], n))
                return true;
        }
    return false;
}

static bool starts(const char *name, struct prefix p)
{
    return strncmp(name, p.text, p.length) == 0;
}

/* A checkpoint with the averaged weights beside the raw ones: the raw twins of what is averaged. */
static um_status drop_twins(um_weights *w, struct prefix averaged, struct prefix raw)
{
    int kept = 0;
    bool *twin = um_arena_take(&w->arena, (size_t)w->count + 1);
    if (!twin)
        return um_fail(UM_ENOMEM, "list of tensors");
    for (int i = 0; i < w->count; i++) {
        char name[UM_W_NAME_MAX + 1];
        const char *own = w->tensor[i].name;
        twin[i] = false;
        if (starts(own, averaged) || !starts(own, raw))
            continue;
        int n = snprintf(name, sizeof name, "%.*s%s", (int)averaged.length, averaged.text,
                         own + raw.length);
        twin[i] = n < (int)sizeof name && um_weights_find(w, name);
    }
    for (int i = 0; i < w->count; i++)
        if (!twin[i])
            w->tensor[kept++] = w->tensor[i];
    w->count = kept;
    return UM_OK;
}

/* Which of several prefixes is the network's; -1: nobody can say. */
static int choose(const struct prefix *p, int n)
{
    int chosen = n == 1 ? 0 : -1, averaged = 0;
    for (int i = 0; i < n && n > 1; i++)
        if (is_averaged(p[i])) {
            chosen = i;
            averaged++;
        }
    return averaged > 1 ? -1 : chosen;
}

um_status um_names_strip(um_weights *w)
{
    struct prefix p[PREFIXES_MAX];
    for (int i = 0; i < w->count; i++)
        drop_wrappers((char *)(uintptr_t)w->tensor[i].name);
    int n = find_prefixes(w, ANCHOR[0], p);
    if (n == 0)
        n = find_prefixes(w, ANCHOR[1], p);
    int k = choose(p, n);
    um_status st = UM_OK;
    if (n > 1 && k < 0)
        return um_fail(
            UM_EFORMAT,
            "holds several networks, one under \"%.*s\" and one under \"%.*s\"; save the "
            "one to use in a file of its own",
            (int)p[0].length, p[0].text, (int)p[1].length, p[1].text);
    if (n > 1) {
        um_view_sort(w);
        for (int i = 0; i < n; i++)
            if (i != k && st == UM_OK)
                st = drop_twins(w, p[k], p[i]);
    }
    for (int i = 0; n && i < w->count && st == UM_OK; i++)
        if (starts(w->tensor[i].name, p[k]) && w->tensor[i].name[p[k].length])
            w->tensor[i].name += p[k].length;
    return st;
}
