/* SPDX-License-Identifier: Apache-2.0 */
/* D-FINE's query selection, deformable sampling and boxes; op_ref_dfine.c in kernels. Comparisons
 * are on integers that order like the floats, so that ties fall the same way on every device. */
#include "nn/cuda/select.h"

#include "nn/cuda/kernel.h"
#include "nn/record.h"

#define UM_SCORE DEVICE
#include "nn/score.h"

#define UM_TRACK DEVICE
#define UM_TRACK_MUL(a, b) mul_rn(a, b)
#include "nn/track.h"

/* Orders like v; the two zeros are equal. */
DEVICE uint32_t ordered(float v)
{
    uint32_t u = float_bits(v == 0 ? 0 : v);
    return u >> 31 ? ~u : u | 0x80000000u;
}

/* ---- topk ---- */

/* One block. A row's key is its best score above its inverted number, so all keys differ and the
 * k-th largest is found digit by digit from the top (radix select); the k keys from there on are
 * sorted. Scores are read once if the rows' best fit into shared memory, else once a digit. */

/* Best score of a row, read by `lanes` neighbouring lanes; all of them get it. NaN counts as -inf.
 */
DEVICE uint32_t row_best(const um_topk_rows_args &a, int row, int lanes)
{
    float best = -INFINITY;
    int lane = (int)threadIdx.x & (lanes - 1);
    if (row < a.rows) {
        const float *s = (const float *)a.scores.data + (int64_t)row * a.scores.ld;
        if (a.scores.vec >= 4) {
            for (int i = lane; i < a.scores.c / 4; i += lanes) {
                um_words u = ((const um_words *)s)[i];
                UNROLL
                for (int j = 0; j < 4; j++) {
                    float v = bits_float(u.w[j]);
                    best = v > best ? v : best;
                }
            }
        } else {
            for (int i = lane; i < a.scores.c; i += lanes)
                best = s[i] > best ? s[i] : best;
        }
    }
    for (int m = lanes / 2; m; m >>= 1)
        best = fmaxf(best, shfl_xor(best, m));
    return ordered(best);
}

DEVICE uint64_t row_key(const um_topk_rows_args &a, int row, uint32_t best)
{
    return (uint64_t)best << a.row_bits | (uint32_t)((1 << a.row_bits) - 1 - row);
}

/* The key of this thread's row in the sweep that starts at `first`; 0, which no row has, for
 * threads without one. */
DEVICE uint64_t sweep_key(const um_topk_rows_args &a, const uint32_t *scores, int first, int lanes)
{
    int t = (int)threadIdx.x, row = first + t / lanes;
    uint32_t best = a.stored ? (row < a.rows ? scores[row] : 0) : row_best(a, row, lanes);
    return row < a.rows && t % lanes == 0 ? row_key(a, row, best) : 0;
}

/* Warp 0: the bin that holds the `wanted`-th largest, from the top; writes bin, how many of it are
 * still wanted, and how many it has. */
DEVICE void find_bin(const uint32_t *bins, uint32_t wanted, uint32_t *found)
{
    enum { EACH = UM_TOPK_BINS / 32 };
    int lane = (int)threadIdx.x;
    uint32_t own = 0, above = 0;
    UNROLL
    for (int i = 0; i < EACH; i++)
        own += bins[EACH * lane + i];
    above = own; /* the sum of this lane's bins and all higher */
    UNROLL
    for (int step = 1; step < 32; step *= 2) {
        uint32_t v = shfl(above, (lane + step) & 31);
        above += lane + step < 32 ? v : 0;
    }
    above -= own;
    if (above >= wanted || above + own < wanted)
        return;
    int bin = EACH * lane + EACH - 1;
    for (; above + bins[bin] < wanted; bin--)
        above += bins[bin];
    found[0] = (uint32_t)bin;
    found[1] = wanted - above;
    found[2] = bins[bin];
}

KERNEL(um_topk_rows, um_topk_rows_args, a, UM_TOPK_THREADS)
{
    uint64_t *sorted = (uint64_t *)shared_memory();
    uint32_t *bins = (uint32_t *)(sorted + UM_TOPK_MAX), *found = bins + UM_TOPK_BINS,
             *scores = found + 4;
    int t = (int)threadIdx.x, lanes = a.stored ? 1 : a.lanes;
    if (a.stored)
        for (int first = 0; first < a.rows; first += UM_TOPK_THREADS / a.lanes) {
            int row = first + t / a.lanes;
            uint32_t best = row_best(a, row, a.lanes);
            if (row < a.rows && t % a.lanes == 0)
                scores[row] = best;
        }

    uint64_t prefix = 0; /* the digits of the k-th largest key that are known */
    uint32_t wanted = (uint32_t)a.k, n = 0;
    int shift = 32 + a.row_bits;
    while (shift > 0 && n != wanted) {
        int digit = shift < 8 ? shift : 8;
        shift -= digit;
        if (t < UM_TOPK_BINS)
            bins[t] = 0;
        sync();
        for (int first = 0; first < a.rows; first += UM_TOPK_THREADS / lanes) {
            uint64_t key = sweep_key(a, scores, first, lanes);
            if (key && key >> shift >> digit == prefix)
                atomic_add(&bins[key >> shift & ((1 << digit) - 1)], 1u);
        }
        sync();
        if (t < 32)
            find_bin(bins, wanted, found);
        sync();
        prefix = prefix << digit | found[0];
        wanted = found[1];
        n = found[2];
    }

    uint64_t least = prefix << shift; /* exactly k keys are at least this */
    if (t < UM_TOPK_MAX)
        sorted[t] = 0;
    if (t == 0)
        found[3] = 0;
    sync();
    for (int first = 0; first < a.rows; first += UM_TOPK_THREADS / lanes) {
        uint64_t key = sweep_key(a, scores, first, lanes);
        if (key && key >= least)
            sorted[atomic_add(&found[3], 1u)] = key; /* in any order: they get sorted */
    }

    /* Bitonic, descending. A warp's threads exchange within 64 neighbours while strides are at most
     * 32. */
    bool across = true;
    for (int size = 2; size < 2 * a.k; size *= 2)
        for (int stride = size / 2; stride; stride /= 2) {
            bool far = stride > 32;
            if (far || across)
                sync();
            else
                sync_warp();
            across = far;
            int i = 2 * t - (t & (stride - 1)), j = i + stride;
            if (j < UM_TOPK_MAX) {
                uint64_t x = sorted[i], y = sorted[j];
                if ((x < y) == ((i & size) == 0)) {
                    sorted[i] = y;
                    sorted[j] = x;
                }
            }
        }
    sync();
    if (t < a.k) {
        int mask = (1 << a.row_bits) - 1;
        a.out[(int64_t)t * a.step] = mask - (int)(sorted[t] & (uint32_t)mask);
    }
}

/* ---- deformable sampling ---- */

enum { DEFORM_WARPS = 8 };

/* Where tap t reads (a row of memory, -1: nowhere) and with what weight. A tap is a corner of a
 * point; `share` of the attention belongs to the point. */
DEVICE um_words2 deform_tap(const um_deform_heads_args &a, int query, int head, int t, float share)
{
    um_words2 none = {{0xffffffffu, 0}};
    int p = t / 4, k = t % 4, level = 0, first = 0, left = p;
    if (p >= a.points)
        return none;
    while (left >= a.n[level]) {
        left -= a.n[level];
        first += a.h[level] * a.w[level];
        level++;
    }
    int w = a.w[level], h = a.h[level], col = 2 * (a.points * head + p);
    float part = 1 / (float)a.n[level];
    float ox = mul_rn(load(a.ow, query, col), part), oy = mul_rn(load(a.ow, query, col + 1), part);
    ox = mul_rn(mul_rn(ox, load(a.ref, query, 2)), 0.5f);
    oy = mul_rn(mul_rn(oy, load(a.ref, query, 3)), 0.5f);
    float x = add_rn(mul_rn(add_rn(load(a.ref, query, 0), ox), (float)w), -0.5f);
    float y = add_rn(mul_rn(add_rn(load(a.ref, query, 1), oy), (float)h), -0.5f);
    /* in float: huge and NaN touch nothing */
    if (!(x > -1 && x < (float)w && y > -1 && y < (float)h))
        return none;
    float left_x = floorf(x), top_y = floorf(y), fx = x - left_x, fy = y - top_y;
    int xi = (int)left_x + k % 2, yi = (int)top_y + k / 2;
    if (xi < 0 || xi >= w || yi < 0 || yi >= h)
        return none;
    float weight = share * (k % 2 ? fx : 1 - fx) * (k / 2 ? fy : 1 - fy);
    um_words2 tap = {{(uint32_t)(first + yi * w + xi), float_bits(weight)}};
    return tap;
}

/* The shares of points `lane` and `lane + 32`: softmax, summed in the order of points. */
DEVICE void deform_softmax(const um_deform_heads_args &a, int query, int head, int lane,
                           float share[2])
{
    float top = -INFINITY, sum = 0;
    UNROLL
    for (int k = 0; k < 2; k++) {
        int p = lane + 32 * k;
        share[k] = p < a.points ? load(a.ow, query, 2 * a.points * a.heads + a.points * head + p)
                                : -INFINITY;
        top = fmaxf(top, share[k]);
    }
    top = warp_max(top);
    UNROLL
    for (int k = 0; k < 2; k++)
        share[k] = expf(share[k] - top);
    for (int p = 0; p < 32 && p < a.points; p++)
        sum += shfl(share[0], p);
    for (int p = 32; p < a.points; p++)
        sum += shfl(share[1], p - 32);
    UNROLL
    for (int k = 0; k < 2; k++)
        share[k] /= sum;
}

/* 8 channels of a row, many loads under way at once. UM_U8 stands for any type and alignment. */
template <int DTYPE> DEVICE void deform_fetch(um_words to[2], const um_gview &v, int row, int col)
{
    if (DTYPE == UM_U8) {
        float x[8];
        load8(v, row, col, x);
        UNROLL
        for (int j = 0; j < 8; j++)
            to[j / 4].w[j % 4] = float_bits(x[j]);
    } else {
        fetch8(to, DTYPE, v.data, (int64_t)row * v.ld + col);
    }
}

/* acc += 8 channels of the taps from `first`, every step-th. */
template <int DTYPE>
DEVICE void deform_sum(const um_deform_heads_args &a, const um_words2 *taps, int first, int step,
                       int col, float acc[8])
{
    /* halves, 12 points, 32 channels: all taps at once */
    enum { AHEAD = DTYPE == UM_U8 ? 1 : DTYPE == UM_F32 ? 3 : 6 };
    for (int t0 = first; t0 < 4 * a.points; t0 += AHEAD * step) {
        um_words2 tap[AHEAD];
        um_words in[AHEAD][2];
        UNROLL
        for (int k = 0; k < AHEAD; k++) {
            int t = t0 + k * step;
            um_words2 none = {{0xffffffffu, 0}};
            tap[k] = t < 4 * a.points ? taps[t] : none;
        }
        UNROLL
        for (int k = 0; k < AHEAD; k++) /* nowhere: row 0, not used below */
            deform_fetch<DTYPE>(in[k], a.memory, (int)tap[k].w[0] < 0 ? 0 : (int)tap[k].w[0], col);
        UNROLL
        for (int k = 0; k < AHEAD; k++) {
            bool real = (int)tap[k].w[0] >= 0;
            float x[8];
            unpack8(in[k], DTYPE == UM_U8 ? UM_F32 : DTYPE, x);
            UNROLL
            for (int i = 0; i < 8; i++)
                acc[i] += real ? bits_float(tap[k].w[1]) * x[i] : 0;
        }
    }
}

KERNEL(um_deform_heads, um_deform_heads_args, a, 32 * DEFORM_WARPS)
{
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    int item = (int)blockIdx.x * DEFORM_WARPS + warp, query = item / a.heads, head = item % a.heads;
    um_words2 *taps = (um_words2 *)shared_memory() + warp * 4 * a.points;
    float share[2], acc[8] = {0};
    if (item >= a.items) /* the whole warp; no barrier joins the warps */
        return;
    deform_softmax(a, query, head, lane, share);
    for (int i = 0; i < 4 * a.points; i += 32) {
        int t = i + lane;
        float s = shfl(i < 128 ? share[0] : share[1], t / 4 & 31);
        um_words2 tap = deform_tap(a, query, head, t, s);
        if (t < 4 * a.points)
            taps[t] = tap;
    }
    sync_warp();
    if (!a.lanes) {
        for (int c = lane; c < a.d; c += 32) {
            float sum = 0;
            for (int t = 0; t < 4 * a.points; t++)
                if ((int)taps[t].w[0] >= 0)
                    sum += bits_float(taps[t].w[1]) *
                           load(a.memory, (int)taps[t].w[0], a.d * head + c);
            store(a.out, query, a.d * head + c, sum);
        }
        return;
    }
    /* `lanes` lanes read a tap, 32 / lanes taps at a time */
    int c = 8 * (lane & (a.lanes - 1)), col = a.d * head + c;
    if (c < a.d) {
        if (a.memory.dtype == UM_F16 && a.memory.vec >= 8)
            deform_sum<UM_F16>(a, taps, lane / a.lanes, 32 / a.lanes, col, acc);
        else if (a.memory.dtype == UM_BF16 && a.memory.vec >= 8)
            deform_sum<UM_BF16>(a, taps, lane / a.lanes, 32 / a.lanes, col, acc);
        else if (a.memory.dtype == UM_F32 && a.memory.vec >= 4)
            deform_sum<UM_F32>(a, taps, lane / a.lanes, 32 / a.lanes, col, acc);
        else
            deform_sum<UM_U8>(a, taps, lane / a.lanes, 32 / a.lanes, col, acc);
    }
    for (int m = a.lanes; m < 32; m *= 2) {
        UNROLL
        for (int i = 0; i < 8; i++)
            acc[i] += shfl_xor(acc[i], m);
    }
    if (lane < a.lanes && c < a.d)
        store8(a.out, query, col, acc, 8);
}

/* ---- boxes ---- */

enum { ROW_WARPS = 4, SIDE = 8 /* lanes */ };

DEVICE float sigmoid(float x)
{
    return 1 / (1 + expf(-x));
}

KERNEL(um_refine_elements, um_refine_elements_args, a, 128)
{
    int item = (int)(blockIdx.x * blockDim.x + threadIdx.x), row = item / a.out.c,
        i = item % a.out.c;
    if (item >= a.items)
        return;
    float base = load(a.base, row, i);
    if (a.inverse) {
        float x = base < 0 ? 0 : base > 1 ? 1 : base;
        base = logf((x > 1e-5f ? x : 1e-5f) / (1 - x > 1e-5f ? 1 - x : 1e-5f));
    }
    store(a.out, row, i, sigmoid(load(a.delta, row, i) + base));
}

/* Over the 8 lanes of a side. */
DEVICE float side_sum(float v)
{
    UNROLL
    for (int m = SIDE / 2; m; m >>= 1)
        v += shfl_xor(v, m);
    return v;
}

DEVICE float side_max(float v)
{
    UNROLL
    for (int m = SIDE / 2; m; m >>= 1)
        v = fmaxf(v, shfl_xor(v, m));
    return v;
}

KERNEL(um_integral_rows, um_integral_rows_args, a, 32 * ROW_WARPS)
{
    int lane = threadIdx.x & 31, row = (int)blockIdx.x * ROW_WARPS + (int)(threadIdx.x >> 5);
    int bins = a.corners.c / 4, sub = lane % SIDE, col = bins * (lane / SIDE);
    float top = -INFINITY, sum = 0, mean = 0;
    if (row >= a.rows)
        return;
    for (int n = sub; n < bins; n += SIDE)
        top = fmaxf(top, load(a.corners, row, col + n));
    top = side_max(top);
    for (int n = sub; n < bins; n += SIDE) {
        float e = expf(load(a.corners, row, col + n) - top);
        sum += e;
        mean += e * load(a.project, n, 0);
    }
    float mine = side_sum(mean) / side_sum(sum), dist[4], ref[4];
    UNROLL
    for (int i = 0; i < 4; i++) {
        dist[i] = 0.5f * a.reg_scale + shfl(mine, SIDE * i);
        ref[i] = load(a.ref, row, i);
    }
    /* lanes 0 and 1: x and y. Centre and size of the box that the distances span. */
    int axis = lane & 1;
    float centre = axis ? ref[1] : ref[0], unit = (axis ? ref[3] : ref[2]) / a.reg_scale;
    float lo = add_rn(centre, -mul_rn(axis ? dist[1] : dist[0], unit));
    float hi = add_rn(centre, mul_rn(axis ? dist[3] : dist[2], unit));
    if (lane < 2) {
        store(a.out, row, axis, (lo + hi) / 2);
        store(a.out, row, 2 + axis, hi - lo);
    }
}

/* Into a descending list; NaN stays out. */
DEVICE void insert(float top[4], float v)
{
    UNROLL
    for (int k = 0; k < 4; k++)
        if (v > top[k]) {
            float swap = top[k];
            top[k] = v;
            v = swap;
        }
}

KERNEL(um_lqe_rows, um_lqe_rows_args, a, 32 * ROW_WARPS)
{
    int lane = threadIdx.x & 31, row = (int)blockIdx.x * ROW_WARPS + (int)(threadIdx.x >> 5);
    int bins = a.corners.c / 4, sub = lane % SIDE, col = bins * (lane / SIDE);
    float top[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY}, sum = 0;
    if (row >= a.rows)
        return;
    for (int n = sub; n < bins; n += SIDE)
        insert(top, load(a.corners, row, col + n));
    UNROLL
    for (int m = 1; m < SIDE; m *= 2) {
        float other[4];
        UNROLL
        for (int k = 0; k < 4; k++)
            other[k] = shfl_xor(top[k], m);
        UNROLL
        for (int k = 0; k < 4; k++)
            insert(top, other[k]);
    }
    for (int n = sub; n < bins; n += SIDE)
        sum += expf(load(a.corners, row, col + n) - top[0]);
    sum = side_sum(sum);
    float y[4], out = 0;
    UNROLL
    for (int k = 0; k < 4; k++)
        y[k] = expf(top[k] - top[0]) / sum;
    UNROLL
    for (int k = 0; k < 4; k++)
        out = sub == k ? y[k] : out;
    out = sub == 4 ? (y[0] + y[1] + y[2] + y[3]) / 4 : out;
    if (sub < 5)
        store(a.out, row, 5 * (lane / SIDE) + sub, out);
}

/* ---- best box ---- */

enum { PICK_THREADS = 1024 }; /* a warp of warps */

DEVICE bool finite(float v)
{
    return fabsf(v) < INFINITY;
}

/* Thread 0: the records of the best logit, `at` = query * classes + class, or -1. */
struct verdict {
    int query, label;
    float logit, score, box[4];
    uint32_t flags;
};

/* Left, top, right, bottom of a box cxcywh. */
DEVICE float side_of(const um_gview &boxes, int query, int i)
{
    float centre = load(boxes, query, i % 2), size = load(boxes, query, 2 + i % 2);
    return add_rn(centre, mul_rn(i < 2 ? -0.5f : 0.5f, size));
}

/* Of a pick: query * classes + class, or -1. */
DEVICE float score_of(const um_gview &logits, int64_t at)
{
    return at < 0 ? 0 : um_box_score(load(logits, (int)(at / logits.c), (int)(at % logits.c)));
}

DEVICE verdict judge(const um_best_box_pick_args &a, const um_frame_header *header, int64_t at,
                     float score, bool nan)
{
    float w = (float)header->width, h = (float)header->height;
    verdict v = {-1, -1, -INFINITY, 0, {0, 0, 0, 0}, 0};
    bool good = at >= 0;
    if (at >= 0) {
        v.query = (int)(at / a.logits.c);
        v.label = (int)(at % a.logits.c);
        v.logit = load(a.logits, v.query, v.label);
        v.score = score;
        UNROLL
        for (int i = 0; i < 4; i++) {
            float side = side_of(a.boxes, v.query, i);
            if (header->box_scale[i % 2] != 0)
                side = add_rn(mul_rn(side, header->box_scale[i % 2]), header->box_shift[i % 2]);
            v.box[i] = mul_rn(side, i % 2 ? h : w);
        }
        good = finite(v.logit);
    }
    UNROLL
    for (int i = 0; i < 4; i++)
        good = good && finite(v.box[i]);
    if (!good)
        v.flags |= UM_GATE_NONFINITE;
    if (v.box[2] < v.box[0] || v.box[3] < v.box[1])
        v.flags |= UM_GATE_INVERTED;
    if (v.box[2] < 0 || v.box[3] < 0 || v.box[0] > w || v.box[1] > h)
        v.flags |= UM_GATE_OUTSIDE;
    if (!(v.score >= header->tau_conf))
        v.flags |= UM_GATE_BELOW_TAU;
    if (nan)
        v.flags |= UM_GATE_NAN;
    if (!v.flags)
        v.flags = UM_GATE_OK;
    return v;
}

DEVICE void write_records(um_gate *gate, um_prompt *prompt, const um_frame_header *header,
                          const verdict &v)
{
    bool good = !(v.flags & UM_GATE_NONFINITE);
    gate->flags = v.flags;
    gate->query = v.query;
    gate->label = v.label;
    gate->score = v.score;
    gate->logit = v.logit;
    prompt->width = header->width;
    prompt->height = header->height;
    prompt->has_box = 1;
    prompt->n_points = 0;
    UNROLL
    for (int i = 0; i < 4; i++) {
        gate->box[i] = good ? v.box[i] : 0;
        /* whoever runs ahead of the verdict must still compute on numbers */
        prompt->box[i] = good     ? v.box[i]
                         : i == 2 ? (float)header->width
                         : i == 3 ? (float)header->height
                                  : 0;
    }
    gate->contact = 0;
    gate->gain = header->gain;
    for (int i = 0; i < 5; i++)
        gate->reserved[i] = 0;
    for (int i = 0; i < UM_POINTS_MAX; i++) {
        prompt->xy[2 * i] = prompt->xy[2 * i + 1] = 0;
        prompt->label[i] = -1;
    }
}

DEVICE bool overlap(const um_gview &boxes, int p, int q, float nms)
{
    float side[2][4];
    UNROLL
    for (int i = 0; i < 4; i++) {
        side[0][i] = side_of(boxes, p, i);
        side[1][i] = side_of(boxes, q, i);
    }
    return um_track_iou(side[0], side[1]) > (double)nms;
}

/* What may be picked: classes first to end - 1, their lanes side by side. */
struct choice {
    int first, end, lanes;
    bool per_class;
    float nms;
};

DEVICE choice choose(int label, int classes, bool per_class, float nms)
{
    choice from = {label, label < classes ? label + 1 : label, 1, per_class, nms}; /* may be none */
    if (label < 0) {
        from.first = 0;
        from.end = classes;
    }
    while (from.lanes < 32 && from.lanes * 4 < from.end - from.first)
        from.lanes *= 2;
    return from;
}

DEVICE uint64_t warp_max(uint64_t key)
{
    UNROLL
    for (int m = 16; m; m >>= 1) {
        uint64_t other = (uint64_t)shfl_xor((uint32_t)(key >> 32), m) << 32;
        other |= shfl_xor((uint32_t)key, m);
        key = other > key ? other : key;
    }
    return key;
}

/* The block together: picked[n], of what picked[0] to picked[n - 1] leave. */
DEVICE void pick_next(const um_best_box_pick_args &a, const choice &from, uint64_t *of_warp,
                      int64_t *picked, int n)
{
    int t = (int)threadIdx.x, c = a.logits.c, lanes = from.lanes;
    uint64_t best = 0;
    for (int q = t / lanes; q < a.queries; q += PICK_THREADS / lanes)
        for (int k = from.first + t % lanes; k < from.end; k += lanes) {
            float v = load(a.logits, q, k);
            uint64_t key = (uint64_t)ordered(v) << 32 | ~((uint32_t)q * (uint32_t)c + (uint32_t)k);
            bool open = v > -INFINITY && key > best; /* ties: the first */
            for (int i = 0; open && i < n; i++)
                open = picked[i] < 0 ||
                       ((from.per_class ? picked[i] % c != k : picked[i] / c != q) &&
                        !(from.nms > 0 && picked[i] % c == k &&
                          overlap(a.boxes, (int)(picked[i] / c), q, from.nms)));
            if (open)
                best = key;
        }
    best = warp_max(best);
    if (t % 32 == 0)
        of_warp[t / 32] = best;
    sync();
    best = t < 32 ? warp_max(of_warp[t]) : 0;
    if (t == 0)
        picked[n] = best ? (int64_t)(uint32_t)~best : -1;
    sync();
}

/* One pick after the other, then those that count for a frame's score; they lie in shared memory
 * behind the warps' keys. */
KERNEL(um_best_box_pick, um_best_box_pick_args, a, PICK_THREADS)
{
    const um_frame_header *header = (const um_frame_header *)a.header;
    uint64_t *of_warp = (uint64_t *)shared_memory();
    int64_t *picked = (int64_t *)(of_warp + PICK_THREADS / 32);
    uint32_t *nan = (uint32_t *)(picked + UM_BOXES_MAX);
    int t = (int)threadIdx.x, c = a.logits.c;
    int wanted = header->objects ? (int)header->objects : 1;
    int counted = wanted == 1 ? (int)header->presence : 0;
    bool bad = false;
    if (t == 0)
        *nan = 0;
    sync();
    for (int64_t i = t; i < (int64_t)a.queries * c; i += PICK_THREADS) {
        float v = load(a.logits, (int)(i / c), (int)(i % c));
        bad = bad || v != v;
    }
    if (bad)
        atomic_add(nan, 1u);
    choice from = choose(header->label, c, header->per_class != 0, header->nms);
    for (int n = 0; n < a.n && n < wanted; n++)
        pick_next(a, from, of_warp, picked, n);
    if (counted > 1 && picked[0] >= 0)
        from = choose((int)(picked[0] % c), c, false, header->nms);
    for (int n = 1; n < counted; n++)
        pick_next(a, from, of_warp, picked, n);
    if (t)
        return;
    double none = 1;
    for (int n = 0; n < counted; n++)
        none *= 1 - (double)score_of(a.logits, picked[n]);
    float present = um_presence(none, (double)header->presence_half);
    int at = 0;
    for (int ok = 1; ok >= 0; ok--)
        for (int n = 0; n < a.n; n++) {
            int64_t pick = n < wanted ? picked[n] : -1;
            verdict v =
                judge(a, header, pick, counted ? present : score_of(a.logits, pick), *nan != 0);
            if ((v.flags == UM_GATE_OK) != (ok != 0))
                continue;
            write_records((um_gate *)a.gate + at, (um_prompt *)a.prompt + at, header, v);
            at++;
        }
}
