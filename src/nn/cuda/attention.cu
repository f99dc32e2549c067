/* SPDX-License-Identifier: Apache-2.0 */
/* softmax(scale q k^T + bias) v by heads, for any queries and keys and for TinyViT's and SAM's windows.
 * Scores and softmax are fp32 everywhere; softmaxes over some of the keys, (maximum m, sum l,
 * weighted values o), merge in a fixed order. */
#include "nn/cuda/attention.h"

#include "nn/cuda/kernel.h"

#include <float.h>

DEVICE int smaller(int a, int b)
{
    return a < b ? a : b;
}

/* ---- plain: a lane has 16 columns of a head and every slices-th key ---- */

enum { PLAIN_THREADS = 256, PART = UM_ATTEND_PART, BATCH = UM_ATTEND_BATCH };

/* A head, and the first position of a window. */
struct um_place {
    int head, y, x;
};

/* Where one head's rows are. query(): the row of query i, -1 if there is none; key(): n columns of
 * key j or its value from column col of the head on; prepare(): what bias() needs of the thread's
 * columns of the query. */
struct um_dense {
    typedef um_attention_plain_args args;
    DEVICE const um_gview &queries(const args &a)
    {
        return a.q;
    }
    DEVICE int column(const args &a, const um_place &p)
    {
        return p.head * a.a.d;
    }
    DEVICE int query(const args &a, const um_place &, int i)
    {
        return i < a.queries ? i : -1;
    }
    DEVICE void key(const args &a, const um_place &p, int j, bool value, int col, int n, float *x)
    {
        load_some(value ? a.v : a.k, j, p.head * a.a.d + col, n, x);
    }
    DEVICE void prepare(const args &, int, const float *)
    {
    }
    DEVICE float bias(const args &, const um_place &, int, int)
    {
        return 0;
    }
};

/* Lines of window^2 tokens: i / a.window for i < window^2. */
template <class A> DEVICE int line_of(const A &a, int i)
{
    return (int)((uint64_t)(uint32_t)i * a.reciprocal >> 32);
}

struct um_tiled {
    typedef um_window_attention_plain_args args;
    DEVICE const um_gview &queries(const args &a)
    {
        return a.qkv;
    }
    DEVICE int column(const args &a, const um_place &p)
    {
        return 3 * p.head * a.a.d;
    }
    DEVICE int query(const args &a, const um_place &p, int i)
    {
        int y = p.y + i / a.window, x = p.x + i % a.window;
        return i < a.a.keys && y < a.out.h && x < a.out.w ? y * a.out.w + x : -1;
    }
    DEVICE void key(const args &a, const um_place &p, int j, bool value, int col, int n, float *x)
    {
        int ky = p.y + j / a.window, kx = p.x + j % a.window, d = a.a.d;
        bool inside = ky < a.out.h && kx < a.out.w;
        um_gview from = inside ? a.qkv : a.pad;
        int row = inside ? ky * a.out.w + kx : 0;
        load_some(from, row, (3 * p.head + (value ? 2 : 1)) * d + col, n, x);
    }
    DEVICE void prepare(const args &, int, const float *)
    {
    }
    DEVICE float bias(const args &a, const um_place &p, int i, int j)
    {
        int iy = line_of(a, i), jy = line_of(a, j);
        int dy = iy - jy, dx = i - j - dy * a.window;
        dy = dy < 0 ? -dy : dy;
        dx = dx < 0 ? -dx : dx;
        return ((const float *)a.bias.data)[(int64_t)p.head * a.bias.ld + dy * a.window + dx];
    }
};

struct um_related {
    typedef um_relative_attention_plain_args args;
    DEVICE const um_gview &queries(const args &a)
    {
        return a.qkv;
    }
    DEVICE int column(const args &a, const um_place &p)
    {
        return p.head * a.a.d;
    }
    DEVICE int query(const args &a, const um_place &p, int i)
    {
        int y = p.y + i / a.window, x = p.x + i % a.window;
        return i < a.a.keys && y < a.out.h && x < a.out.w ? y * a.out.w + x : -1;
    }
    DEVICE void key(const args &a, const um_place &p, int j, bool value, int col, int n, float *x)
    {
        int ky = p.y + j / a.window, kx = p.x + j % a.window;
        bool inside = ky < a.out.h && kx < a.out.w;
        um_gview from = inside ? a.qkv : a.pad;
        int row = inside ? ky * a.out.w + kx : 0;
        load_some(from, row, (value ? 2 : 1) * a.out.c + p.head * a.a.d + col, n, x);
    }
    DEVICE float *sums(const args &a)
    {
        return (float *)shared_memory() + a.sums + (int)threadIdx.x / a.a.lanes * 2 * a.window;
    }
    /* The query times what the tables have for its distance to each line and each column. */
    DEVICE void prepare(const args &a, int query, const float *q)
    {
        int i = query < a.a.keys ? query : a.a.keys - 1, y = i / a.window, x = i % a.window;
        int part = threadIdx.x % a.a.parts, slice = threadIdx.x % a.a.lanes / a.a.parts,
            slices = a.a.lanes / a.a.parts, most = 2 * a.window - 1;
        float *to = sums(a);
        for (int e0 = 0; e0 <= most; e0 += slices) {
            int e = e0 + slice < most ? e0 + slice : most;
            bool line = e < a.window;
            int row = line ? y - e : x - (e - a.window);
            float sum = 0;
            UNROLL
            for (int c = 0; c < PART; c += 8) {
                float r[8];
                load_some(line ? a.rows : a.columns, row + a.window - 1, PART * part + c,
                          a.a.d - PART * part - c, r);
                UNROLL
                for (int k = 0; k < 8; k++)
                    sum += q[c + k] * r[k];
            }
            for (int mask = 1; mask < a.a.parts; mask <<= 1)
                sum += shfl_xor(sum, mask);
            if (part == 0 && e0 + slice <= most)
                to[e] = sum;
        }
    }
    DEVICE float bias(const args &a, const um_place &, int, int j)
    {
        int line = line_of(a, j);
        const float *from = sums(a);
        return from[line] + from[a.window + j - line * a.window];
    }
};

/* Four floats of shared memory at once. */
DEVICE void load_four(const float *from, float x[4])
{
    um_words u = *(const um_words *)from;
    UNROLL
    for (int i = 0; i < 4; i++)
        x[i] = bits_float(u.w[i]);
}

DEVICE void store_four(float *to, const float x[4])
{
    um_words u;
    UNROLL
    for (int i = 0; i < 4; i++)
        u.w[i] = float_bits(x[i]);
    *(um_words *)to = u;
}

/* Query `query` of a place, for the threads that share it. */
template <class Rows>
DEVICE void attend_plain(const typename Rows::args &args, const um_place &p, int query)
{
    const um_attend &a = args.a;
    int tid = threadIdx.x, stride = UM_ATTEND_STRIDE(a.parts), slices = a.lanes / a.parts;
    int part = tid % a.parts, slice = tid % a.lanes / a.parts, here = a.d - PART * part;
    float *ks = (float *)shared_memory(), *vs = ks + a.tile * stride;
    float q[PART], o[PART], m = -FLT_MAX, l = 0;
    int row = Rows::query(args, p, query), col = Rows::column(args, p) + PART * part;
    UNROLL
    for (int i = 0; i < PART; i += 8)
        load_some(Rows::queries(args), row < 0 ? 0 : row, col + i, here - i, q + i);
    Rows::prepare(args, query, q);
    UNROLL
    for (int i = 0; i < PART; i++)
        o[i] = 0;
    for (int t0 = 0; t0 < a.keys; t0 += a.tile) {
        int n = smaller(a.tile, a.keys - t0), groups = 2 * a.parts;
        sync();
        for (int i = tid; i < n * groups; i += PLAIN_THREADS) {
            int j = i / groups, c = i % groups * 8;
            UNROLL
            for (int value = 0; value < 2; value++) {
                float x[8];
                Rows::key(args, p, t0 + j, value, c, a.d - c, x);
                store_four((value ? vs : ks) + j * stride + c, x);
                store_four((value ? vs : ks) + j * stride + c + 4, x + 4);
            }
        }
        sync();
        for (int j0 = slice; j0 - slice < n; j0 += BATCH * slices) {
            float s[BATCH], top = m;
            UNROLL
            for (int u = 0; u < BATCH; u++) {
                const float *k = ks + smaller(j0 + u * slices, n - 1) * stride + PART * part;
                s[u] = 0;
                UNROLL
                for (int i = 0; i < PART; i += 4) {
                    float x[4];
                    load_four(k + i, x);
                    UNROLL
                    for (int e = 0; e < 4; e++)
                        s[u] += q[i + e] * x[e];
                }
            }
            for (int mask = 1; mask < a.parts; mask <<= 1) {
                UNROLL
                for (int u = 0; u < BATCH; u++)
                    s[u] += shfl_xor(s[u], mask);
            }
            UNROLL
            for (int u = 0; u < BATCH; u++) {
                int j = j0 + u * slices;
                s[u] *= a.scale;
                if (row >= 0 && j < n)
                    s[u] += Rows::bias(args, p, query, t0 + j);
                s[u] = j < n ? s[u] : -INFINITY;
                top = fmaxf(top, s[u]);
            }
            float fade = expf(m - top);
            m = top;
            l *= fade;
            UNROLL
            for (int i = 0; i < PART; i++)
                o[i] *= fade;
            UNROLL
            for (int u = 0; u < BATCH; u++) {
                const float *v = vs + smaller(j0 + u * slices, n - 1) * stride + PART * part;
                float e = expf(s[u] - m);
                l += e;
                UNROLL
                for (int i = 0; i < PART; i += 4) {
                    float x[4];
                    load_four(v + i, x);
                    UNROLL
                    for (int k = 0; k < 4; k++)
                        o[i + k] += e * x[k];
                }
            }
        }
    }
    /* slices in this warp */
    for (int mask = a.parts; mask < smaller(a.lanes, 32); mask <<= 1) {
        float m2 = shfl_xor(m, mask), l2 = shfl_xor(l, mask), top = fmaxf(m, m2);
        float f = expf(m - top), f2 = expf(m2 - top);
        m = top;
        l = l * f + l2 * f2;
        UNROLL
        for (int i = 0; i < PART; i++)
            o[i] = o[i] * f + shfl_xor(o[i], mask) * f2;
    }
    col = p.head * a.d;
    if (a.lanes <= 32) {
        if (row >= 0 && slice == 0) {
            UNROLL
            for (int i = 0; i < PART; i++)
                o[i] /= l;
            UNROLL
            for (int i = 0; i < PART; i += 8)
                store8(args.out, row, col + PART * part + i, o + i, smaller(here - i, 8));
        }
        return; /* the whole grid */
    }
    /* slices in other warps */
    float *merge = (float *)shared_memory();
    int warps = a.lanes / 32, width = PART * a.parts + 2;
    sync();
    if (tid % 32 < a.parts) {
        float *mine = merge + tid / 32 * width;
        UNROLL
        for (int i = 0; i < PART; i++)
            mine[2 + PART * part + i] = o[i];
        if (part == 0) {
            mine[0] = m;
            mine[1] = l;
        }
    }
    sync();
    merge += tid / a.lanes * warps * width;
    for (int c = tid % a.lanes; row >= 0 && c < a.d; c += a.lanes) {
        float top = merge[0], sum = 0, x = 0;
        for (int w = 1; w < warps; w++)
            top = fmaxf(top, merge[w * width]);
        for (int w = 0; w < warps; w++) {
            float f = expf(merge[w * width] - top);
            sum += f * merge[w * width + 1];
            x += f * merge[w * width + 2 + c];
        }
        store(args.out, row, col + c, x / sum);
    }
}

KERNEL(um_attention_plain, um_attention_plain_args, a, PLAIN_THREADS)
{
    int per_block = PLAIN_THREADS / a.a.lanes;
    um_place p = {(int)blockIdx.y, 0, 0};
    attend_plain<um_dense>(a, p, (int)blockIdx.x * per_block + (int)threadIdx.x / a.a.lanes);
}

KERNEL(um_window_attention_plain, um_window_attention_plain_args, a, PLAIN_THREADS)
{
    int per_block = PLAIN_THREADS / a.a.lanes, tile = (int)blockIdx.x / a.groups;
    um_place p = {(int)blockIdx.y, tile / a.windows_x * a.window, tile % a.windows_x * a.window};
    attend_plain<um_tiled>(a, p,
                           (int)blockIdx.x % a.groups * per_block + (int)threadIdx.x / a.a.lanes);
}

KERNEL(um_relative_attention_plain, um_relative_attention_plain_args, a, PLAIN_THREADS)
{
    int per_block = PLAIN_THREADS / a.a.lanes, tile = (int)blockIdx.x / a.groups;
    um_place p = {(int)blockIdx.y, tile / a.windows_x * a.window, tile % a.windows_x * a.window};
    attend_plain<um_related>(a, p,
                             (int)blockIdx.x % a.groups * per_block + (int)threadIdx.x / a.a.lanes);
}

/* ---- on tensor cores ----
 *
 * The order of a head's columns is ours to choose as long as q and k agree, and so is that of v and
 * the result. In fragments of D/8 tiles of 8 columns, lane (g, t) = (lane/4, lane%4) has columns
 * 2t, 2t + 1 of every tile; here these are the head's columns t*D/4 ... t*D/4 + D/4 - 1, so that a
 * lane's queries and results are neighbours in memory. Keys and values are laid out for that on
 * their way to shared memory: column t*D/4 + 2*tile + e goes to place 8*tile + 2t + e. */

/* Eight halves of a row from column col on. RAW: they are stored as such. */
template <class H, bool RAW> DEVICE um_words load_halves(const um_gview &v, int64_t row, int col)
{
    um_words u;
    if (RAW)
        return *(const um_words *)((const uint16_t *)v.data + row * v.ld + col);
    float x[8];
    load8(v, row, col, x);
    UNROLL
    for (int i = 0; i < 4; i++)
        u.w[i] = H::pack(x[2 * i], x[2 * i + 1]);
    return u;
}

/* Columns 8c..8c+7 of the head into a row of shared memory. */
template <int D> DEVICE void put(uint16_t *row, int c, const um_words &u)
{
    UNROLL
    for (int i = 0; i < 4; i++) {
        int col = 8 * c + 2 * i, t = col / (D / 4), tile = col % (D / 4) / 2;
        ((uint32_t *)row)[4 * tile + t] = u.w[i];
    }
}

/* A's fragments of two rows of queries; row -1 is row 0. */
template <class H, int D>
DEVICE void load_queries(uint32_t q[D / 16][4], const um_gview &v, int row0, int row1, int col,
                         bool raw)
{
    int lane = threadIdx.x & 31, t = lane & 3;
    UNROLL
    for (int r = 0; r < 2; r++) {
        int row = r ? row1 : row0;
        row = row < 0 ? 0 : row;
        /* of D = 16, a lane wants half of what it loads */
        int c = t * (D / 4) / 8, skip = D == 16 ? 2 * (t & 1) : 0;
        um_words u = raw ? load_halves<H, true>(v, row, col + 8 * c)
                         : load_halves<H, false>(v, row, col + 8 * c);
        UNROLL
        for (int tile = 0; tile < D / 8; tile++)
            q[tile / 2][2 * (tile & 1) + r] = skip ? u.w[(tile + 2) & 3] : u.w[tile];
    }
}

/* Scores of 16 queries and 16 keys, the first of which is at k. */
template <class H, int D>
DEVICE void score(float s0[4], float s1[4], const uint32_t q[D / 16][4], const uint16_t *k)
{
    int lane = threadIdx.x & 31;
    uint32_t b[4];
    UNROLL
    for (int i = 0; i < 4; i++)
        s0[i] = s1[i] = 0;
    if (D == 16) { /* columns 0..15 of keys 0..7, then of keys 8..15 */
        ldmatrix4(b, k + (lane % 8 + lane / 16 * 8) * UM_ATTENTION_STRIDE(D) + lane / 8 % 2 * 8);
        H::mma(s0, q[0], b);
        H::mma(s1, q[0], b + 2);
    } else {
        const uint16_t *row = k + lane % 8 * UM_ATTENTION_STRIDE(D) + lane / 8 * 8;
        ldmatrix4(b, row);
        H::mma(s0, q[0], b);
        H::mma(s0, q[D / 16 - 1], b + 2);
        ldmatrix4(b, row + 8 * UM_ATTENTION_STRIDE(D));
        H::mma(s1, q[0], b);
        H::mma(s1, q[D / 16 - 1], b + 2);
    }
}

/* o += p v for 16 keys, the first of which is at v; p as halves: of each 8 keys two registers. */
template <class H, int D>
DEVICE void weigh(float o[D / 8][4], const uint32_t p[4], const uint16_t *v)
{
    int lane = threadIdx.x & 31;
    UNROLL
    for (int tile = 0; tile < D / 8; tile += 2) {
        uint32_t b[4];
        ldmatrix4_trans(b, v + lane % 16 * UM_ATTENTION_STRIDE(D) + lane / 16 * 8 + 8 * tile);
        H::mma(o[tile], p, b);
        H::mma(o[tile + 1], p, b + 2);
    }
}

/* Over the lanes that have the same rows. */
DEVICE float quad_max(float v)
{
    v = fmaxf(v, shfl_xor(v, 1));
    return fmaxf(v, shfl_xor(v, 2));
}

DEVICE float quad_sum(float v)
{
    v += shfl_xor(v, 1);
    return v + shfl_xor(v, 2);
}

/* Keys t0..t0+n-1 and their values to shared memory, zeros up to a multiple of the chunk. */
template <class H, int D, bool RAW>
DEVICE void stage(const um_attention_mma_args &a, int t0, int n, uint16_t *ks, uint16_t *vs)
{
    enum { GROUPS = D / 8, AT_ONCE = D == 16 ? 8 : GROUPS }; /* loads under way */
    int threads = blockDim.x, col = (int)blockIdx.y * D;
    int items = (n + UM_ATTEND_CHUNK - 1) / UM_ATTEND_CHUNK * UM_ATTEND_CHUNK * GROUPS;
    for (int i0 = threadIdx.x; i0 < items; i0 += AT_ONCE * threads) {
        um_words k[AT_ONCE], v[AT_ONCE];
        UNROLL
        for (int u = 0; u < AT_ONCE; u++) {
            int i = i0 + u * threads, j = i / GROUPS, c = i % GROUPS;
            k[u] = v[u] = um_words();
            if (j < n) {
                k[u] = load_halves<H, RAW>(a.k, t0 + j, col + 8 * c);
                v[u] = load_halves<H, RAW>(a.v, t0 + j, col + 8 * c);
            }
        }
        UNROLL
        for (int u = 0; u < AT_ONCE; u++) {
            int i = i0 + u * threads, at = i / GROUPS * UM_ATTENTION_STRIDE(D);
            if (i < items) {
                put<D>(ks + at, i % GROUPS, k[u]);
                put<D>(vs + at, i % GROUPS, v[u]);
            }
        }
    }
}

template <class H> DEVICE bool is_raw(const um_gview &v)
{
    return v.dtype == H::dtype && v.vec >= 8;
}

/* A block has some tiles of 16 queries, and a head. The keys pass through its shared memory, a.tile at
 * a time; the a.splits warps of a tile of queries take turns at chunks of them, each with a softmax of its
 * own: maximum m, sum l and values o of the keys so far, which a greater maximum fades. Lane (g, t) has
 * rows g and g + 8 of scores and values. At the end the warps' shares meet in shared memory. */
template <class H, int D> DEVICE void attend(const um_attention_mma_args &a)
{
    enum { TILES = D / 8, STRIDE = UM_ATTENTION_STRIDE(D), CHUNK = UM_ATTEND_CHUNK };
    uint16_t *ks = (uint16_t *)shared_memory(), *vs = ks + a.tile * STRIDE;
    int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5, g = lane >> 2, t = lane & 3;
    int row_tiles = (int)blockDim.x / 32 / a.splits, split = warp % a.splits;
    int first = ((int)blockIdx.x * row_tiles + warp / a.splits) * 16, col = (int)blockIdx.y * D;
    bool raw = is_raw<H>(a.k) && is_raw<H>(a.v);
    uint32_t q[D / 16][4];
    float o[TILES][4], m[2] = {-FLT_MAX, -FLT_MAX}, l[2] = {0, 0};
    load_queries<H, D>(q, a.q, smaller(first + g, a.queries - 1),
                       smaller(first + g + 8, a.queries - 1), col, is_raw<H>(a.q));
    UNROLL
    for (int i = 0; i < TILES; i++) {
        UNROLL
        for (int e = 0; e < 4; e++)
            o[i][e] = 0;
    }
    for (int t0 = 0; t0 < a.keys; t0 += a.tile) {
        int n = smaller(a.tile, a.keys - t0);
        sync();
        if (raw)
            stage<H, D, true>(a, t0, n, ks, vs);
        else
            stage<H, D, false>(a, t0, n, ks, vs);
        sync();
        for (int j0 = CHUNK * split; j0 < n; j0 += CHUNK * a.splits) {
            float s[CHUNK / 8][4];
            uint32_t p[CHUNK / 8 * 2];
            UNROLL
            for (int i = 0; i < CHUNK / 8; i += 2)
                score<H, D>(s[i], s[i + 1], q, ks + (j0 + 8 * i) * STRIDE);
            if (j0 + CHUNK > n) {
                UNROLL
                for (int i = 0; i < CHUNK / 8; i++) {
                    UNROLL
                    for (int e = 0; e < 4; e++)
                        if (j0 + 8 * i + 2 * t + (e & 1) >= n)
                            s[i][e] = -INFINITY;
                }
            }
            UNROLL
            for (int r = 0; r < 2; r++) { /* rows g and g + 8 */
                float top = m[r];
                UNROLL
                for (int i = 0; i < CHUNK / 8; i++)
                    top = fmaxf(top, fmaxf(s[i][2 * r], s[i][2 * r + 1]));
                top = quad_max(top);
                float fade = exp2_approx((m[r] - top) * a.scale), sum = 0;
                m[r] = top;
                top *= a.scale;
                UNROLL
                for (int i = 0; i < CHUNK / 8; i++) {
                    float x = exp2_approx(s[i][2 * r] * a.scale - top);
                    float y = exp2_approx(s[i][2 * r + 1] * a.scale - top);
                    sum += x + y;
                    p[2 * i + r] = H::pack(x, y);
                }
                l[r] = l[r] * fade + sum;
                UNROLL
                for (int i = 0; i < TILES; i++) {
                    o[i][2 * r] *= fade;
                    o[i][2 * r + 1] *= fade;
                }
            }
            UNROLL
            for (int i = 0; i < CHUNK / 8; i += 2)
                weigh<H, D>(o, p + 2 * i, vs + (j0 + 8 * i) * STRIDE);
        }
    }

    /* shares of all warps to shared memory, a row D values, m, l; then a thread merges 8 columns */
    enum { WIDTH = D + 4 };
    float *shares = (float *)shared_memory();
    sync();
    UNROLL
    for (int r = 0; r < 2; r++) {
        float *share = shares + (16 * warp + g + 8 * r) * WIDTH;
        float sum = quad_sum(l[r]);
        UNROLL
        for (int i = 0; i < TILES; i += 2) {
            float x[4] = {o[i][2 * r], o[i][2 * r + 1], o[i + 1][2 * r], o[i + 1][2 * r + 1]};
            store_four(share + t * (D / 4) + 2 * i, x);
        }
        if (t == 0) {
            share[D] = m[r];
            share[D + 1] = sum;
        }
    }
    sync();
    for (int i = tid; i < row_tiles * 16 * TILES; i += blockDim.x) {
        int row = i / TILES, c = i % TILES * 8, query = (int)blockIdx.x * row_tiles * 16 + row;
        const float *share = shares + (row / 16 * a.splits * 16 + row % 16) * WIDTH;
        float top = -FLT_MAX, sum = 0, x[8] = {0, 0, 0, 0, 0, 0, 0, 0};
        for (int w = 0; w < a.splits; w++)
            top = fmaxf(top, share[w * 16 * WIDTH + D]);
        for (int w = 0; w < a.splits; w++) {
            const float *from = share + w * 16 * WIDTH;
            float f = exp2_approx((from[D] - top) * a.scale);
            sum += f * from[D + 1];
            float y[8];
            load_four(from + c, y);
            load_four(from + c + 4, y + 4);
            UNROLL
            for (int k = 0; k < 8; k++)
                x[k] += f * y[k];
        }
        UNROLL
        for (int k = 0; k < 8; k++)
            x[k] /= sum;
        if (query < a.queries)
            store8(a.out, query, col + c, x, 8);
    }
}

KERNEL(um_attention_16_f16, um_attention_mma_args, a, 512)
{
    attend<F16, 16>(a);
}

KERNEL(um_attention_16_bf16, um_attention_mma_args, a, 512)
{
    attend<BF16, 16>(a);
}

KERNEL(um_attention_32_f16, um_attention_mma_args, a, 512)
{
    attend<F16, 32>(a);
}

KERNEL(um_attention_32_bf16, um_attention_mma_args, a, 512)
{
    attend<BF16, 32>(a);
}

/* ---- windows on tensor cores: heads of 32, up to TILES x 8 keys in one or two rounds ---- */

/* Keys and values of the window. Positions beyond the map are the pad row. */
template <class H, int KEYS, bool RAW>
DEVICE void stage_window(const um_window_attention_mma_args &a, int y0, int x0, uint16_t *ks,
                         uint16_t *vs)
{
    enum { AT_ONCE = 4, D = 32, GROUPS = D / 8, STRIDE = UM_ATTENTION_STRIDE(D) };
    int threads = blockDim.x, col = ((int)blockIdx.y * 3 + 1) * D, n = a.window * a.window;
    for (int i0 = threadIdx.x; i0 < KEYS * GROUPS; i0 += AT_ONCE * threads) {
        um_words k[AT_ONCE], v[AT_ONCE];
        bool inside[AT_ONCE];
        UNROLL
        for (int u = 0; u < AT_ONCE; u++) {
            int i = i0 + u * threads, j = i / GROUPS, c = i % GROUPS;
            int y = y0 + j / a.window, x = x0 + j % a.window;
            inside[u] = y < a.out.h && x < a.out.w;
            k[u] = v[u] = um_words();
            if (j < n && inside[u]) {
                int64_t row = (int64_t)y * a.out.w + x;
                k[u] = load_halves<H, RAW>(a.qkv, row, col + 8 * c);
                v[u] = load_halves<H, RAW>(a.qkv, row, col + D + 8 * c);
            }
        }
        UNROLL
        for (int u = 0; u < AT_ONCE; u++) {
            int i = i0 + u * threads, j = i / GROUPS, c = i % GROUPS;
            if (j < n && !inside[u]) {
                k[u] = load_halves<H, false>(a.pad, 0, col + 8 * c);
                v[u] = load_halves<H, false>(a.pad, 0, col + D + 8 * c);
            }
            if (j < KEYS) {
                put<D>(ks + j * STRIDE, c, k[u]);
                put<D>(vs + j * STRIDE, c, v[u]);
            }
        }
    }
}

/* Softmax of two rows of queries over the keys so far: as in attend(). */
template <int D> struct um_rows {
    float o[D / 8][4], m[2], l[2];
};

/* TILES x 8 keys from tile FIRST on: their scores are in registers at once. The last of an odd
 * number is followed by a tile that is not looked at. */
template <class H, int FIRST, int TILES>
DEVICE void attend_keys(um_rows<32> &rows, const uint32_t q[2][4], const uint16_t *ks,
                        const uint16_t *vs, const uint32_t *places, const float *biases,
                        const int bias[2], int n, float scale)
{
    enum { D = 32, STRIDE = UM_ATTENTION_STRIDE(D), EVEN = (TILES + 1) / 2 * 2 };
    int t = threadIdx.x & 3;
    float s[EVEN][4];
    uint32_t p[2 * EVEN];
    UNROLL
    for (int i = 0; i < TILES; i += 2)
        score<H, D>(s[i], s[i + 1], q, ks + 8 * (FIRST + i) * STRIDE);
    float top[2] = {rows.m[0], rows.m[1]};
    UNROLL
    for (int i = 0; i < TILES; i++) {
        int key = 8 * (FIRST + i) + 2 * t;
        uint32_t pair = places[key / 2];
        UNROLL
        for (int e = 0; e < 4; e++)
            s[i][e] = s[i][e] * scale +
                      biases[bias[e >> 1] - (int)(e & 1 ? pair >> 16 : pair & 0xffff)];
        if (8 * (FIRST + i) + 8 > n) {
            UNROLL
            for (int e = 0; e < 4; e++)
                if (key + (e & 1) >= n)
                    s[i][e] = -INFINITY;
        }
        UNROLL
        for (int e = 0; e < 4; e++)
            top[e >> 1] = fmaxf(top[e >> 1], s[i][e]);
    }
    UNROLL
    for (int r = 0; r < 2; r++) {
        float m = quad_max(top[r]), fade = exp2_approx(rows.m[r] - m), sum = 0;
        UNROLL
        for (int i = 0; i < TILES; i++) {
            float x = exp2_approx(s[i][2 * r] - m), y = exp2_approx(s[i][2 * r + 1] - m);
            sum += x + y;
            p[2 * i + r] = H::pack(x, y);
        }
        rows.m[r] = m;
        rows.l[r] = rows.l[r] * fade + sum;
        UNROLL
        for (int i = 0; i < D / 8; i++) {
            rows.o[i][2 * r] *= fade;
            rows.o[i][2 * r + 1] *= fade;
        }
    }
    if constexpr (TILES < EVEN)
        p[2 * TILES] = p[2 * TILES + 1] = 0;
    UNROLL
    for (int i = 0; i < TILES; i += 2)
        weigh<H, D>(rows.o, p + 2 * i, vs + 8 * (FIRST + i) * STRIDE);
}

/* A window and a head are a.groups blocks, each of which has all keys and values of the window in shared
 * memory and 16 of its queries for a warp. Scores of at most 14 tiles of keys fit into registers: the
 * larger window takes two rounds, and the softmax of the first one fades as above. */
template <class H, int TILES> DEVICE void attend_window(const um_window_attention_mma_args &a)
{
    enum { D = 32, STRIDE = UM_ATTENTION_STRIDE(D), KEYS = (TILES + 1) / 2 * 16 };
    int ws = a.window, n = ws * ws, span = 2 * ws - 1;
    uint16_t *ks = (uint16_t *)shared_memory(), *vs = ks + KEYS * STRIDE;
    uint32_t *places = (uint32_t *)(vs + KEYS * STRIDE); /* of two keys each */
    float *biases = (float *)(places + KEYS / 2);
    int tid = threadIdx.x, lane = tid & 31, g = lane >> 2, t = lane & 3, head = blockIdx.y;
    int tile = (int)blockIdx.x / a.groups;
    int y0 = tile / a.windows_x * ws, x0 = tile % a.windows_x * ws;
    bool raw = is_raw<H>(a.qkv);
    if (raw)
        stage_window<H, KEYS, true>(a, y0, x0, ks, vs);
    else
        stage_window<H, KEYS, false>(a, y0, x0, ks, vs);
    /* bias of displacement (dy, dx) at (dy + ws - 1) span + dx + ws - 1: the place of the query
     * less that of the key */
    for (int i = tid; i < span * span; i += blockDim.x) {
        int dy = i / span - (ws - 1), dx = i % span - (ws - 1);
        dy = dy < 0 ? -dy : dy;
        dx = dx < 0 ? -dx : dx;
        biases[i] = ((const float *)a.bias.data)[(int64_t)head * a.bias.ld + dy * ws + dx] *
                    1.44269504088896341f;
    }
    for (int j = 2 * tid; j < KEYS; j += 2 * blockDim.x) {
        uint32_t lo = j / ws * span + j % ws, hi = (j + 1) / ws * span + (j + 1) % ws;
        places[j / 2] = (j < n ? lo : 0) | (j + 1 < n ? hi : 0) << 16;
    }
    sync();

    int first = ((int)blockIdx.x % a.groups * ((int)blockDim.x / 32) + (tid >> 5)) * 16;
    int row[2]; /* of rows g and g + 8; -1: there is no such query */
    int bias[2];
    UNROLL
    for (int r = 0; r < 2; r++) {
        int i = first + g + 8 * r, y = i / ws, x = i % ws;
        bool exists = i < n && y0 + y < a.out.h && x0 + x < a.out.w;
        row[r] = exists ? (y0 + y) * a.out.w + x0 + x : -1;
        bias[r] = (ws - 1) * (span + 1) + (exists ? y * span + x : 0);
    }
    if (!warp_ballot(row[0] >= 0 || row[1] >= 0))
        return; /* the whole warp, and no barrier follows */

    enum { HALF = TILES > 14 ? 14 : TILES };
    um_rows<D> rows = {{}, {-FLT_MAX, -FLT_MAX}, {0, 0}};
    uint32_t q[D / 16][4];
    load_queries<H, D>(q, a.qkv, row[0], row[1], 3 * head * D, raw);
    attend_keys<H, 0, HALF>(rows, q, ks, vs, places, biases, bias, n, a.scale);
    if constexpr (HALF < TILES) {
        if (8 * HALF < n)
            attend_keys<H, HALF, TILES - HALF>(rows, q, ks, vs, places, biases, bias, n, a.scale);
    }
    UNROLL
    for (int r = 0; r < 2; r++) {
        float x[8], sum = quad_sum(rows.l[r]);
        UNROLL
        for (int i = 0; i < 8; i++)
            x[i] = rows.o[i / 2][2 * r + (i & 1)] / sum;
        if (row[r] >= 0)
            store8(a.out, row[r], head * D + 8 * t, x, 8);
    }
}

KERNEL(um_window_attention_49_f16, um_window_attention_mma_args, a, 128)
{
    attend_window<F16, 7>(a);
}

KERNEL(um_window_attention_49_bf16, um_window_attention_mma_args, a, 128)
{
    attend_window<BF16, 7>(a);
}

KERNEL(um_window_attention_196_f16, um_window_attention_mma_args, a, 224)
{
    attend_window<F16, 25>(a);
}

KERNEL(um_window_attention_196_bf16, um_window_attention_mma_args, a, 224)
{
    attend_window<BF16, 25>(a);
}
