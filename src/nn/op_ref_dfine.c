/* SPDX-License-Identifier: Apache-2.0 */
/* References: src/zoo/dfine/dfine_decoder.py, dfine_utils.py, utils.py and postprocessor.py of
 * Peterande/D-FINE. */
#include "nn/op_dfine.h"
#include "nn/op_ref.h"
#include "nn/record.h"
#include "nn/score.h"
#include "nn/track.h"

#include <math.h>
#include <string.h>

static int rows(const struct um_view *v)
{
    return v->h * v->w;
}

static float sigmoid(float x)
{
    return 1 / (1 + expf(-x));
}

void um_ref_topk(const struct um_call *call)
{
    struct best {
        float key;
        int32_t row;
    } *best = um_pool_scratch(call->pool, 0);
    const struct um_view *out = &call->t[0], *scores = &call->t[1];
    int k = rows(out), n = 0;
    for (int32_t r = 0; r < rows(scores); r++) {
        const float *s = um_view_at(scores, r);
        float key = -INFINITY;
        for (int c = 0; c < scores->c; c++)
            key = s[c] > key ? s[c] : key;
        if (n == k && !(key > best[n - 1].key))
            continue;
        int at = n < k ? n++ : n - 1;
        for (; at > 0 && key > best[at - 1].key; at--) /* equal keys keep the order of rows */
            best[at] = best[at - 1];
        best[at] = (struct best){key, r};
    }
    for (int i = 0; i < k; i++)
        ((int32_t *)out->data)[i * out->ld] = best[i].row;
}

/* acc += weight * the map [h,w,d] at (x,y) in pixels, bilinear, zero outside (grid_sample,
 * align_corners = false). The range is tested in float: a huge or NaN coordinate touches nothing.
 */
static void sample(float *acc, const struct um_view *memory, int row0, int h, int w, int col, int d,
                   float x, float y, float weight)
{
    if (!(x > -1 && x < (float)w && y > -1 && y < (float)h))
        return;
    int x0 = (int)floorf(x), y0 = (int)floorf(y);
    float fx = x - (float)x0, fy = y - (float)y0;
    for (int k = 0; k < 4; k++) {
        int xi = x0 + k % 2, yi = y0 + k / 2;
        if (xi < 0 || xi >= w || yi < 0 || yi >= h)
            continue;
        float tap = weight * (k % 2 ? fx : 1 - fx) * (k / 2 ? fy : 1 - fy);
        const float *src = um_view_at(memory, row0 + (ptrdiff_t)yi * w + xi) + col;
        for (int i = 0; i < d; i++)
            acc[i] += tap * src[i];
    }
}

static void deform_query(void *ctx, int q, int worker)
{
    const struct um_call *call = ctx;
    const struct um_deform_args *a = call->args;
    const struct um_view *memory = &call->t[3];
    const float *ref = um_view_at(&call->t[2], q);
    int d = memory->c / a->heads, points = 0;
    (void)worker;
    for (int l = 0; l < a->levels; l++)
        points += a->points[l];
    for (int head = 0; head < a->heads; head++) {
        const float *offset = um_view_at(&call->t[1], q) + 2 * points * head;
        const float *logit = um_view_at(&call->t[1], q) + 2 * points * a->heads + points * head;
        float *y = um_view_at(&call->t[0], q) + d * head;
        float top = -INFINITY, sum = 0;
        for (int p = 0; p < points; p++)
            top = logit[p] > top ? logit[p] : top;
        for (int p = 0; p < points; p++)
            sum += expf(logit[p] - top);
        for (int i = 0; i < d; i++)
            y[i] = 0;
        for (int l = 0, p = 0, row0 = 0; l < a->levels; row0 += a->h[l] * a->w[l], l++) {
            float share = 1 / (float)a->points[l];
            for (int k = 0; k < a->points[l]; k++, p++) {
                float x = ref[0] + offset[2 * p] * share * ref[2] * 0.5f;
                float z = ref[1] + offset[2 * p + 1] * share * ref[3] * 0.5f;
                sample(y, memory, row0, a->h[l], a->w[l], d * head, d, x * (float)a->w[l] - 0.5f,
                       z * (float)a->h[l] - 0.5f, expf(logit[p] - top) / sum);
            }
        }
    }
}

void um_ref_deform(const struct um_call *call)
{
    um_pool_run(call->pool, rows(&call->t[0]), deform_query, (void *)(uintptr_t)call);
}

void um_ref_refine(const struct um_call *call)
{
    const struct um_refine_args *a = call->args;
    const struct um_view *t = call->t;
    for (int r = 0; r < rows(&t[0]); r++)
        for (int i = 0; i < t[0].c; i++) {
            float base = um_view_at(&t[2], r)[i];
            if (a->inverse) {
                float x = base < 0 ? 0 : base > 1 ? 1 : base;
                base = logf((x > 1e-5f ? x : 1e-5f) / (1 - x > 1e-5f ? 1 - x : 1e-5f));
            }
            um_view_at(&t[0], r)[i] = sigmoid(um_view_at(&t[1], r)[i] + base);
        }
}

static void integral_query(void *ctx, int r, int worker)
{
    const struct um_call *call = ctx;
    const struct um_integral_args *a = call->args;
    const struct um_view *t = call->t;
    const float *ref = um_view_at(&t[2], r);
    int bins = t[1].c / 4;
    float half = 0.5f * a->reg_scale, dist[4];
    (void)worker;
    for (int side = 0; side < 4; side++) {
        const float *logit = um_view_at(&t[1], r) + bins * side;
        float top = -INFINITY, sum = 0, mean = 0;
        for (int n = 0; n < bins; n++)
            top = logit[n] > top ? logit[n] : top;
        for (int n = 0; n < bins; n++) {
            float e = expf(logit[n] - top);
            sum += e;
            mean += e * um_view_at(&t[3], n)[0];
        }
        dist[side] = mean / sum;
    }
    float x1 = ref[0] - (half + dist[0]) * (ref[2] / a->reg_scale);
    float y1 = ref[1] - (half + dist[1]) * (ref[3] / a->reg_scale);
    float x2 = ref[0] + (half + dist[2]) * (ref[2] / a->reg_scale);
    float y2 = ref[1] + (half + dist[3]) * (ref[3] / a->reg_scale);
    float *y = um_view_at(&t[0], r);
    y[0] = (x1 + x2) / 2;
    y[1] = (y1 + y2) / 2;
    y[2] = x2 - x1;
    y[3] = y2 - y1;
}

void um_ref_integral(const struct um_call *call)
{
    um_pool_run(call->pool, rows(&call->t[0]), integral_query, (void *)(uintptr_t)call);
}

static void lqe_query(void *ctx, int r, int worker)
{
    const struct um_call *call = ctx;
    const struct um_view *t = call->t;
    int bins = t[1].c / 4;
    (void)worker;
    for (int side = 0; side < 4; side++) {
        const float *logit = um_view_at(&t[1], r) + bins * side;
        float *y = um_view_at(&t[0], r) + 5 * side;
        float top[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY}, sum = 0;
        for (int n = 0; n < bins; n++) {
            int at = 4;
            for (; at > 0 && logit[n] > top[at - 1]; at--)
                if (at < 4)
                    top[at] = top[at - 1];
            if (at < 4)
                top[at] = logit[n];
        }
        for (int n = 0; n < bins; n++)
            sum += expf(logit[n] - top[0]);
        for (int k = 0; k < 4; k++)
            y[k] = expf(top[k] - top[0]) / sum;
        y[4] = (y[0] + y[1] + y[2] + y[3]) / 4;
    }
}

void um_ref_lqe_stats(const struct um_call *call)
{
    um_pool_run(call->pool, rows(&call->t[0]), lqe_query, (void *)(uintptr_t)call);
}

/* A (query, class) that may be picked; query -1: none is left. */
struct pick {
    int query, label;
    float logit;
};

/* Left, top, right, bottom of a box cxcywh. */
static float side_of(const float *box, int i)
{
    return box[i % 2] + (i < 2 ? -0.5f : 0.5f) * box[2 + i % 2];
}

static bool overlap(const float *a, const float *b, float nms)
{
    float side[2][4];
    for (int i = 0; i < 4; i++) {
        side[0][i] = side_of(a, i);
        side[1][i] = side_of(b, i);
    }
    return um_track_iou(side[0], side[1]) > (double)nms;
}

static bool taken(const struct pick *picked, int n, int query, int label,
                  const struct um_view *boxes, const struct um_frame_header *header)
{
    for (int i = 0; i < n; i++)
        if (picked[i].query >= 0 &&
            ((header->per_class ? picked[i].label == label : picked[i].query == query) ||
             (header->nms > 0 && picked[i].label == label &&
              overlap(um_view_at(boxes, picked[i].query), um_view_at(boxes, query), header->nms))))
            return true;
    return false;
}

static struct pick pick_next(const struct um_view *logits, const struct um_view *boxes,
                             const struct um_frame_header *header, const struct pick *picked, int n)
{
    struct pick best = {.query = -1, .label = -1, .logit = -INFINITY};
    for (int q = 0; q < rows(logits); q++)
        for (int c = 0; c < logits->c; c++) {
            float v = um_view_at(logits, q)[c];
            if ((header->label < 0 || header->label == c) && v > best.logit &&
                !taken(picked, n, q, c, boxes, header))
                best = (struct pick){q, c, v};
        }
    return best;
}

static bool any_nan(const struct um_view *logits)
{
    for (int q = 0; q < rows(logits); q++)
        for (int c = 0; c < logits->c; c++)
            if (isnan(um_view_at(logits, q)[c]))
                return true;
    return false;
}

/* The score of a frame whose best box is `best`. */
static float presence(const struct um_view *logits, const struct um_view *boxes,
                      struct um_frame_header header, struct pick best)
{
    struct pick counted[UM_BOXES_MAX] = {best};
    double none = 1 - (double)um_box_score(best.logit);
    header.label = best.label;
    header.per_class = 0;
    for (int i = 1; i < (int)header.presence; i++) {
        counted[i] = pick_next(logits, boxes, &header, counted, i);
        none *= 1 - (double)um_box_score(counted[i].logit);
    }
    return um_presence(none, (double)header.presence_half);
}

static struct um_gate judge(struct pick pick, float score, const struct um_view *boxes,
                            const struct um_frame_header *header, bool nan)
{
    struct um_gate gate = {
        .query = pick.query, .label = pick.label, .logit = pick.logit, .gain = header->gain};
    float w = (float)header->width, h = (float)header->height;
    if (gate.query >= 0) {
        const float *b = um_view_at(boxes, gate.query);
        gate.score = score;
        for (int i = 0; i < 4; i++) {
            int xy = i % 2;
            float side = side_of(b, i);
            if (header->box_scale[xy] != 0)
                side = side * header->box_scale[xy] + header->box_shift[xy];
            gate.box[i] = side * (xy ? h : w);
        }
    }
    bool finite = gate.query >= 0 && isfinite(gate.logit);
    for (int i = 0; i < 4; i++)
        finite = finite && isfinite(gate.box[i]);
    if (!finite)
        gate.flags |= UM_GATE_NONFINITE;
    if (gate.box[2] < gate.box[0] || gate.box[3] < gate.box[1])
        gate.flags |= UM_GATE_INVERTED;
    if (gate.box[2] < 0 || gate.box[3] < 0 || gate.box[0] > w || gate.box[1] > h)
        gate.flags |= UM_GATE_OUTSIDE;
    if (!(gate.score >= header->tau_conf))
        gate.flags |= UM_GATE_BELOW_TAU;
    if (nan)
        gate.flags |= UM_GATE_NAN;
    if (!gate.flags)
        gate.flags = UM_GATE_OK;
    return gate;
}

static struct um_prompt prompt_of(const struct um_gate *gate, const struct um_frame_header *header)
{
    struct um_prompt prompt = {.width = header->width, .height = header->height, .has_box = 1};
    if (!(gate->flags & UM_GATE_NONFINITE)) {
        memcpy(prompt.box, gate->box, sizeof prompt.box);
    } else { /* whoever runs ahead of the verdict must still compute on numbers */
        prompt.box[2] = (float)header->width;
        prompt.box[3] = (float)header->height;
    }
    for (int i = 0; i < UM_POINTS_MAX; i++)
        prompt.label[i] = -1;
    return prompt;
}

void um_ref_best_box(const struct um_call *call)
{
    const struct um_view *logits = &call->t[2], *boxes = &call->t[3];
    struct um_gate *gates = call->t[0].data;
    struct um_prompt *prompts = call->t[1].data;
    struct um_frame_header header;
    struct pick picked[UM_BOXES_MAX];
    struct um_gate gate[UM_BOXES_MAX];
    int n = rows(&call->t[0]), at = 0;
    memcpy(&header, call->t[4].data, sizeof header);
    int wanted = header.objects ? (int)header.objects : 1;
    bool nan = any_nan(logits);
    for (int i = 0; i < n; i++) {
        picked[i] = i < wanted ? pick_next(logits, boxes, &header, picked, i)
                               : (struct pick){-1, -1, -INFINITY};
        float score = wanted == 1 && header.presence ? presence(logits, boxes, header, picked[0])
                                                     : um_box_score(picked[i].logit);
        gate[i] = judge(picked[i], score, boxes, &header, nan);
    }
    for (int ok = 1; ok >= 0; ok--)
        for (int i = 0; i < n; i++) {
            if ((gate[i].flags == UM_GATE_OK) != ok)
                continue;
            struct um_prompt prompt = prompt_of(&gate[i], &header);
            if (gate[i].flags & UM_GATE_NONFINITE)
                memset(gate[i].box, 0, sizeof gate[i].box);
            memcpy(&gates[at], &gate[i], sizeof gate[i]);
            memcpy(&prompts[at++], &prompt, sizeof prompt);
        }
}
