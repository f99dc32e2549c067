/* SPDX-License-Identifier: Apache-2.0 */
/* Convolutions and linear layers as one matrix product, rows of pixels times packed weights; k runs
 * over the window's places, then channels. Where the rows are halves to be taken as they are, they
 * and the weights go to shared memory in stages that are on their way while others are multiplied.
 * Where something is to be done to the rows first (a norm, an addend, floats, single channels), they
 * are prepared once, as a panel of all k, for all the columns a block has. A lane's share of a tile
 * of weights is 16 contiguous bytes (pack.h). The sums go through shared memory once more, as
 * floats, so that whatever follows (residuals, norms of a row, vectors of stores) sees whole rows. */
#include "nn/cuda/gemm.h"

#include "nn/cuda/kernel.h"

#define UM_PACK DEVICE
#include "nn/cuda/pack.h"

enum {
    STEP = 32, /* of k in packed weights */
    SPACE = UM_GEMM_SPACE,
    PAD = UM_GEMM_PAD
};

/* ---- gathered rows ---- */

/* The place in the window that an index of k stands for. */
struct place {
    int c, kx, ky;
};

DEVICE void move(place &p, const um_gemm_args &a, int by)
{
    p.c += by;
    while (p.c >= a.x.c) {
        p.c -= a.x.c;
        if (++p.kx == a.kw) {
            p.kx = 0;
            p.ky++;
        }
    }
}

/* A pixel is its own window. */
DEVICE bool is_flat(const um_gemm_args &a)
{
    return a.kh * a.kw == 1 && a.stride == 1 && a.pad_top == 0 && a.pad_left == 0;
}

/* Row of x under place p of output row `row`; -1 outside the image. */
DEVICE int64_t source(const um_gemm_args &a, int row, const place &p, int width)
{
    if (is_flat(a))
        return row;
    int y = row / width * a.stride - a.pad_top + p.ky, x = row % width * a.stride - a.pad_left + p.kx;
    return y < 0 || y >= a.x.h || x < 0 || x >= a.x.w ? -1 : (int64_t)y * a.x.w + x;
}

/* Eight neighbours in k of one row as floats, zero where there is nothing. */
DEVICE void gather(const um_gemm_args &a, int row, place p, int k, int width, float v[8])
{
    UNROLL
    for (int i = 0; i < 8; i++)
        v[i] = 0;
    if (row >= a.rows || k >= a.k)
        return;
    if (a.wide) {
        int64_t from = source(a, row, p, width);
        if (from >= 0)
            load8(a.x, from, p.c, v);
        return;
    }
    ROLL
    for (int i = 0; i < 8; i++) { /* each moves the others up: no index that is not a constant */
        int64_t from = k + i < a.k ? source(a, row, p, width) : -1;
        UNROLL
        for (int e = 0; e < 7; e++)
            v[e] = v[e + 1];
        v[7] = from >= 0 ? load(a.x, from, p.c) : 0;
        move(p, a, 1);
    }
}

/* What a thread has on the way for eight neighbours in k of one row: bytes as they lie in memory, so
 * that nothing waits for them until they are stored. */
struct arriving {
    um_words x[2], plus[2]; /* 8 halves in the first, or 8 floats */
    bool there;
};

template <class H>
DEVICE void request(arriving &r, const um_gemm_args &a, int row, const place &p, int k, int width,
                    bool plus)
{
    r.there = false;
    r.x[0] = um_words{{0, 0, 0, 0}};
    if (row >= a.rows || k >= a.k)
        return;
    if (!a.wide) { /* no vectors: one by one, and ready */
        float v[8];
        gather(a, row, p, k, width, v);
        if (a.gamma_in || plus) {
            UNROLL
            for (int i = 0; i < 8; i++)
                r.x[i / 4].w[i % 4] = float_bits(v[i]);
            r.there = true;
            return;
        }
        UNROLL
        for (int i = 0; i < 4; i++)
            r.x[0].w[i] = H::pack(v[2 * i], v[2 * i + 1]);
        return;
    }
    int64_t from = source(a, row, p, width);
    if (from < 0)
        return;
    r.there = true;
    fetch8(r.x, a.x.dtype, a.x.data, from * a.x.ld + p.c);
    if (plus)
        fetch8(r.plus, a.plus.dtype, a.plus.data, (int64_t)row * a.plus.ld + k);
}

/* The same as halves: normalised (statistics: mean, 1/deviation), `plus` added. */
template <class H>
DEVICE um_words arrived(const arriving &r, const um_gemm_args &a, int row, int k,
                        const float *statistics, bool plus)
{
    um_words u = r.x[0];
    if (!r.there || (a.x.dtype == H::dtype && a.wide && !a.gamma_in && !plus))
        return u;
    float v[8], w[8];
    unpack8(r.x, a.wide ? a.x.dtype : UM_F32, v);
    if (a.gamma_in && a.wide) {
        float g[8], b[8];
        load_floats(a.gamma_in + k, g);
        load_floats(a.beta_in + k, b);
        UNROLL
        for (int i = 0; i < 8; i++)
            v[i] = (v[i] - statistics[0]) * statistics[1] * g[i] + b[i];
    } else if (a.gamma_in) {
        UNROLL
        for (int i = 0; i < 8; i++)
            if (k + i < a.k)
                v[i] = (v[i] - statistics[0]) * statistics[1] * a.gamma_in[k + i] + a.beta_in[k + i];
    }
    if (plus && a.wide) {
        unpack8(r.plus, a.plus.dtype, w);
        UNROLL
        for (int i = 0; i < 8; i++)
            v[i] += w[i];
    } else if (plus) {
        UNROLL
        for (int i = 0; i < 8; i++)
            if (k + i < a.k)
                v[i] += load(a.plus, row, k + i);
    }
    return pack8<H>(v);
}

/* Mean and 1/deviation of the block's rows over all of k into shared memory: eight lanes a row, so
 * that a warp has four rows on the way; the second pass finds them in the first cache. */
template <int BM, int WARPS> DEVICE void row_statistics(const um_gemm_args &a, int row0, float *to)
{
    enum { LANES = 8, AHEAD = 5 }; /* 5 vectors of 8 by 8 lanes: 320 channels at once */
    int lane = threadIdx.x % LANES;
    for (int r = (int)threadIdx.x / LANES; r < BM; r += 32 * WARPS / LANES) {
        int row = row0 + r;
        float mean = 0, scale = 0;
        for (int pass = 0; pass < 2; pass++) {
            float sum = 0;
            for (int k0 = 0; row < a.rows && k0 < a.k; k0 += 8 * LANES * AHEAD) {
                if (!a.wide) {
                    for (int k = k0 + lane; k < a.k && k < k0 + 8 * LANES * AHEAD; k += LANES) {
                        float v = load(a.x, row, k) - mean;
                        sum += pass ? v * v : v;
                    }
                    continue;
                }
                um_words u[AHEAD][2];
                UNROLL
                for (int i = 0; i < AHEAD; i++)
                    if (k0 + 8 * (lane + LANES * i) < a.k)
                        fetch8(u[i], a.x.dtype, a.x.data, (int64_t)row * a.x.ld + k0 + 8 * (lane + LANES * i));
                UNROLL
                for (int i = 0; i < AHEAD; i++)
                    if (k0 + 8 * (lane + LANES * i) < a.k) {
                        float v[8];
                        unpack8(u[i], a.x.dtype, v);
                        UNROLL
                        for (int e = 0; e < 8; e++)
                            sum += pass ? (v[e] - mean) * (v[e] - mean) : v[e];
                    }
            }
            UNROLL
            for (int m = LANES / 2; m; m >>= 1)
                sum += shfl_xor(sum, m);
            if (pass)
                scale = 1 / sqrtf(sum / (float)a.k + a.eps_in);
            else
                mean = sum / (float)a.k;
        }
        if (lane == 0) {
            to[2 * r] = mean;
            to[2 * r + 1] = scale;
        }
    }
}

/* ---- the product ---- */

/* A block's tile: BM rows, BN columns, warps DOWN x ACROSS; BK columns of k in a stage. */
template <int BM_, int BN_, int DOWN_, int ACROSS, int BK_, int STAGES_> struct tile {
    static const int BM = BM_, BN = BN_, DOWN = DOWN_, BK = BK_, STAGES = STAGES_;
    static const int across = ACROSS, warps = DOWN * ACROSS, threads = 32 * warps;
    static const int rows = BM / DOWN, columns = BN / ACROSS; /* of a warp */
    static const int mt = rows / 16, nt = columns / 8;        /* in mma */
    static const int ld = BK + SPACE, row_bytes = BM * ld * 2, weight_bytes = BN * BK * 2;
    static const int groups = BK / 8; /* of 8 columns of k, which a thread moves at once */
    static const int chunks = (BM * groups + threads - 1) / threads; /* of rows, for a thread */
    static const int shares = BN * groups / threads;                 /* of weights */
};

/* What a thread brings of the weights: `shares` vectors of every stage, a stage further each time. */
template <class T> struct weights {
    const um_words *from;
    int stride, left, step, steps; /* left: tiles of columns from the thread's first on */
};

/* Columns 8 * tile0.. from column k0 of k on. */
template <class T>
DEVICE weights<T> find_weights(const void *packed, int tile0, int n, int k0, int k)
{
    int t = (int)threadIdx.x, tile = tile0 + t / T::BK;
    weights<T> w;
    w.left = (n + 7) / 8 - tile;
    w.step = k0 / STEP + t / 32 % (T::BK / STEP);
    w.steps = kept((k + STEP - 1) / STEP);
    w.stride = kept(T::threads / T::BK * w.steps * 32);
    w.from = (const um_words *)packed + ((int64_t)tile * w.steps + w.step) * 32 + (t & 31);
    return w;
}

/* to: the thread's place in the stage. */
template <class T> DEVICE void send_weights(um_shared to, weights<T> &w)
{
    bool in = w.step < w.steps;
    UNROLL
    for (int i = 0; i < T::shares; i++)
        cp_async(to + 16 * i * T::threads, w.from + i * w.stride,
                 in && i * (T::threads / T::BK) < w.left);
    w.step += T::BK / STEP;
    w.from += T::BK / STEP * 32;
}

/* acc += one stage. rows: where this lane reads the warp's rows, ld bytes apart; share: its
 * weights. */
template <class H, class T>
DEVICE void multiply_stage(um_shared rows, int ld, um_shared share, float *acc)
{
    UNROLL
    for (int step = 0; step < T::BK / STEP; step++) {
        uint32_t w[T::nt][4];
        UNROLL
        for (int i = 0; i < T::nt; i++)
            load_shared(w[i], share + 16 * (i * T::BK + 32 * step));
        UNROLL
        for (int half = 0; half < 2; half++)
            UNROLL
            for (int m = 0; m < T::mt; m++) {
                uint32_t f[4];
                ldmatrix4(f, rows + 16 * m * ld + 2 * (STEP * step + 16 * half));
                UNROLL
                for (int i = 0; i < T::nt; i++)
                    H::mma(acc + 4 * (m * T::nt + i), f, w[i] + 2 * half);
            }
    }
}

/* Where this lane reads rows of the warp, ld bytes apart from `at` on, and weights of a stage. */
template <class T> DEVICE um_shared lane_rows(um_shared at, int ld)
{
    int lane = threadIdx.x & 31, down = (int)(threadIdx.x >> 5) / T::across;
    return at + (down * T::rows + (lane & 15)) * ld + 16 * (lane >> 4);
}

template <class T> DEVICE um_shared lane_weights(um_shared at)
{
    int across = (int)(threadIdx.x >> 5) % T::across;
    return at + 16 * (across * T::nt * T::BK + (int)(threadIdx.x & 31));
}

/* What a thread brings of the rows: of each pixel that a chunk of its stands for, eight channels at
 * the place that the stage is at. FLAT: a pixel is its own window, so that nothing but k moves. */
template <class T, bool FLAT> struct rows {
    const uint16_t *from;          /* FLAT: of the first chunk */
    int left, stride;              /* FLAT: rows from there on; elements to the next chunk's */
    int y[T::chunks], x[T::chunks]; /* of the window's first place */
    int k;
    place p;
};

template <class T, bool FLAT> DEVICE rows<T, FLAT> find_rows(const um_gemm_args &a, int row0)
{
    enum { DOWN = T::threads / T::groups }; /* rows between chunks */
    int first = row0 + (int)threadIdx.x / T::groups, width = a.up ? a.x.w : a.out.w;
    rows<T, FLAT> of;
    of.k = 8 * (int)(threadIdx.x % T::groups);
    of.left = kept(a.rows - first);
    of.stride = kept(DOWN * a.x.ld);
    of.from = (const uint16_t *)a.x.data;
    if (FLAT) {
        of.from += (int64_t)first * a.x.ld + of.k;
        return of;
    }
    of.p = place{of.k, 0, 0};
    move(of.p, a, 0);
    UNROLL
    for (int i = 0; i < T::chunks; i++) {
        int row = first + i * DOWN;
        of.y[i] = row < a.rows ? row / width * a.stride - a.pad_top : -(1 << 20);
        of.x[i] = row % width * a.stride - a.pad_left;
    }
    return of;
}

/* to: the thread's place in the stage. */
template <class T, bool FLAT>
DEVICE void send_rows(um_shared to, const um_gemm_args &a, rows<T, FLAT> &of)
{
    enum { DOWN = T::threads / T::groups };
    bool real = of.k < a.k, all = T::BM % DOWN == 0; /* every thread has a chunk */
    UNROLL
    for (int i = 0; i < T::chunks; i++) {
        const uint16_t *from = of.from + i * of.stride;
        bool there = real && i * DOWN < of.left;
        if (!FLAT) {
            int y = of.y[i] + of.p.ky, x = of.x[i] + of.p.kx;
            there = real && (unsigned)y < (unsigned)a.x.h && (unsigned)x < (unsigned)a.x.w;
            /* unsigned, since what lies outside may be far away */
            from = of.from + (int)(((unsigned)y * (unsigned)a.x.w + (unsigned)x) * (unsigned)a.x.ld +
                                   (unsigned)of.p.c);
        }
        if (all || (int)threadIdx.x < T::BM * T::groups)
            cp_async(to + 2 * i * DOWN * T::ld, from, there);
    }
    of.k += T::BK;
    if (FLAT)
        of.from += T::BK;
    else
        move(of.p, a, T::BK);
}

/* acc += rows row0.. of x times columns 8 * tile0.. of the weights, both in stages. */
template <class H, class T, bool FLAT>
DEVICE void multiply_stages(const um_gemm_args &a, const void *packed, int row0, int tile0, int n,
                            float *acc)
{
    enum { STAGE = T::row_bytes + T::weight_bytes, RING = T::STAGES * STAGE };
    int count = kept((a.k + T::BK - 1) / T::BK), t = (int)threadIdx.x;
    um_shared base = shared_address(shared_memory());
    um_shared to_rows = kept(base + 2 * (t / T::groups * T::ld + t % T::groups * 8)),
              to_weights = kept(base + T::row_bytes + 16 * t);
    um_shared at_rows = kept(lane_rows<T>(base, 2 * T::ld)),
              at_weights = kept(lane_weights<T>(base + T::row_bytes));
    rows<T, FLAT> of = find_rows<T, FLAT>(a, row0);
    weights<T> w = find_weights<T>(packed, tile0, n, 0, a.k);
    UNROLL
    for (int sent = 0; sent < T::STAGES - 1; sent++) {
        if (sent < count) {
            send_rows<T, FLAT>(to_rows + sent * STAGE, a, of);
            send_weights<T>(to_weights + sent * STAGE, w);
        }
        cp_commit();
    }
    int into = RING - STAGE, from = 0;
    ROLL for (int stage = T::STAGES - 1; stage < count + T::STAGES - 1; stage++)
    {
        cp_wait<T::STAGES - 2>();
        sync(); /* all copies of this stage have landed, and nobody reads the one before it */
        if (stage < count) {
            send_rows<T, FLAT>(to_rows + into, a, of);
            send_weights<T>(to_weights + into, w);
        }
        cp_commit();
        multiply_stage<H, T>(at_rows + from, 2 * T::ld, at_weights + from, acc);
        into = into + STAGE == RING ? 0 : into + STAGE;
        from = from + STAGE == RING ? 0 : from + STAGE;
    }
}

/* ---- a panel: rows in shared memory, prepared ---- */

DEVICE place place_of(const um_gemm_args &a, int k)
{
    place p = {k, 0, 0};
    if (a.kh * a.kw > 1) {
        p.c = k % a.x.c;
        p.kx = k / a.x.c % a.kw;
        p.ky = k / a.x.c / a.kw;
    }
    return p;
}

/* Columns k0.. of rows row0.., whatever they are made of. */
template <class H, class T>
DEVICE void fill_panel(const um_gemm_args &a, int row0, int k0, int columns, bool plus,
                       const float *statistics, uint16_t *panel)
{
    enum { AHEAD = 2 };
    int groups = columns / 8, items = T::BM * groups, width = a.up ? a.x.w : a.out.w;
    for (int first = threadIdx.x; first < items; first += AHEAD * T::threads) {
        arriving g[AHEAD];
        UNROLL
        for (int i = 0; i < AHEAD; i++) {
            int item = first + i * T::threads, r = item / groups, k = k0 + item % groups * 8;
            request<H>(g[i], a, item < items ? row0 + r : a.rows, place_of(a, k), k, width, plus);
        }
        UNROLL
        for (int i = 0; i < AHEAD; i++) {
            int item = first + i * T::threads, r = item / groups, k = k0 + item % groups * 8;
            if (item < items)
                *(um_words *)(panel + r * (columns + SPACE) + k - k0) =
                    arrived<H>(g[i], a, row0 + r, k, statistics + 2 * r, plus);
        }
    }
}

/* All columns of rows row0.., halves as they are: on their way when this returns. */
template <class T>
DEVICE void send_panel(const um_gemm_args &a, int row0, int columns, uint16_t *panel)
{
    int groups = columns / 8;
    um_shared to = shared_address(panel);
    for (int item = threadIdx.x; item < T::BM * groups; item += T::threads) {
        int r = item / groups, k = item % groups * 8, row = row0 + r;
        bool there = row < a.rows && k < a.k;
        const uint16_t *from = (const uint16_t *)a.x.data;
        cp_async(to + 2 * (r * (columns + SPACE) + k), from + (row * a.x.ld + k), there);
    }
    cp_commit();
}

DEVICE float sum_of(const float v[8])
{
    return ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
}

/* The panel's rows normalised where they lie, by eight lanes each. */
template <class H, class T>
DEVICE void normalise_panel(const um_gemm_args &a, int columns, uint16_t *panel)
{
    enum { LANES = 8 };
    int lane = threadIdx.x % LANES;
    for (int r = (int)threadIdx.x / LANES; r < T::BM; r += T::threads / LANES) {
        um_words *row = (um_words *)(panel + r * (columns + SPACE));
        float mean = 0, scale = 0;
        for (int pass = 0; pass < 2; pass++) {
            float sum = 0;
            for (int k = lane; k < a.k / 8; k += LANES) {
                float v[8];
                unpack8(&row[k], H::dtype, v);
                UNROLL
                for (int e = 0; e < 8; e++)
                    v[e] = pass ? (v[e] - mean) * (v[e] - mean) : v[e];
                sum += sum_of(v);
            }
            UNROLL
            for (int m = LANES / 2; m; m >>= 1)
                sum += shfl_xor(sum, m);
            if (pass)
                scale = 1 / sqrtf(sum / (float)a.k + a.eps_in);
            else
                mean = sum / (float)a.k;
        }
        for (int k = lane; k < a.k / 8; k += LANES) {
            float v[8], g[8], b[8];
            load_floats(a.gamma_in + 8 * k, g);
            load_floats(a.beta_in + 8 * k, b);
            unpack8(&row[k], H::dtype, v);
            UNROLL
            for (int e = 0; e < 8; e++)
                v[e] = (v[e] - mean) * scale * g[e] + b[e];
            row[k] = pack8<H>(v);
        }
    }
}

/* The first stages of the weights on their way. */
template <class T> DEVICE void start_weights(um_shared shared, weights<T> &w, int count)
{
    um_shared to = shared + 16 * (int)threadIdx.x;
    UNROLL
    for (int sent = 0; sent < T::STAGES - 1; sent++) {
        if (sent < count)
            send_weights<T>(to + sent * T::weight_bytes, w);
        cp_commit();
    }
}

/* acc += the panel times the weights that were started, in `count` stages. Starts with a barrier. */
template <class H, class T>
DEVICE void multiply_panel(weights<T> &w, int count, int columns, const uint16_t *panel,
                           um_shared shared, float *acc)
{
    enum { RING = T::STAGES * T::weight_bytes };
    int ld = 2 * (columns + SPACE), into = RING - T::weight_bytes, from = 0;
    um_shared rows = kept(lane_rows<T>(shared_address(panel), ld)),
              share = kept(lane_weights<T>(shared)), to = kept(shared + 16 * (int)threadIdx.x);
    ROLL for (int stage = T::STAGES - 1; stage < count + T::STAGES - 1; stage++)
    {
        cp_wait<T::STAGES - 2>();
        sync();
        if (stage < count)
            send_weights<T>(to + into, w);
        cp_commit();
        multiply_stage<H, T>(rows, ld, share + from, acc);
        rows += 2 * T::BK;
        into = into + T::weight_bytes == RING ? 0 : into + T::weight_bytes;
        from = from + T::weight_bytes == RING ? 0 : from + T::weight_bytes;
    }
}

template <class T> DEVICE void put_sums(const float *acc, float *sums)
{
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    int row = warp / T::across * T::rows + (lane >> 2);
    int col = warp % T::across * T::columns + 2 * (lane & 3);
    UNROLL
    for (int m = 0; m < T::mt; m++)
        UNROLL
        for (int i = 0; i < T::nt; i++)
            UNROLL
            for (int e = 0; e < 2; e++) {
                const float *v = acc + 4 * (m * T::nt + i) + 2 * e;
                *(um_words2 *)(sums + (row + 16 * m + 8 * e) * (T::BN + PAD) + col + 8 * i) =
                    um_words2{{float_bits(v[0]), float_bits(v[1])}};
            }
}

template <class T> DEVICE void clear(float *acc)
{
    UNROLL
    for (int i = 0; i < 4 * T::mt * T::nt; i++)
        acc[i] = 0;
}

/* ---- what follows the product ---- */

/* Add the residual of columns col..col+count-1 of the output. */
DEVICE void add_residual(const um_gemm_args &a, int row, int col, int count, float v[8])
{
    int64_t from = row;
    if (a.add_up2)
        from = (int64_t)(row / a.out.w / 2) * (a.out.w / 2) + row % a.out.w / 2;
    if (count == 8 && a.add.c > 1) {
        float w[8];
        load8(a.add, from, col, w);
        UNROLL
        for (int i = 0; i < 8; i++)
            v[i] += w[i];
        return;
    }
    UNROLL
    for (int i = 0; i < 8; i++)
        if (i < count)
            v[i] += load(a.add, from, a.add.c > 1 ? col + i : 0);
}

/* Columns col.. of an output row, to where they belong: with `up` column (a, b, o) of pixel (y, x)
 * goes to pixel (2y + a, 2x + b). */
DEVICE void put(const um_gemm_args &a, int row, int col, int count, const float v[8])
{
    if (!a.up) {
        store8(a.out, row, col, v, count);
        return;
    }
    int c = a.out.c, y = row / a.x.w, x = row % a.x.w;
    if (c % 8 == 0) {
        int ab = col / c;
        int64_t to = (int64_t)(2 * y + ab / 2) * a.out.w + 2 * x + ab % 2;
        store8(a.out, to, col % c, v, count);
        return;
    }
    UNROLL
    for (int i = 0; i < 8; i++)
        if (i < count) {
            int ab = (col + i) / c;
            store(a.out, (int64_t)(2 * y + ab / 2) * a.out.w + 2 * x + ab % 2, (col + i) % c, v[i]);
        }
}

/* bias, residual, activation, affine, residual */
DEVICE void finish8(const um_gemm_args &a, const float *bias, int row, int col, int out_col,
                    int count, float v[8], bool exact)
{
    if (bias && count == 8 && (uintptr_t)bias % 16 == 0) {
        float b[8];
        load_floats(bias + col, b);
        UNROLL
        for (int i = 0; i < 8; i++)
            v[i] += b[i];
    } else {
        UNROLL
        for (int i = 0; i < 8; i++)
            if (bias && i < count)
                v[i] += bias[col + i];
    }
    if (a.add.data && !a.add_last)
        add_residual(a, row, out_col, count, v);
    activate_all<8>(a.act, a.limit, v, exact);
    if (a.lab_scale != 0) {
        UNROLL
        for (int i = 0; i < 8; i++)
            v[i] = v[i] * a.lab_scale + a.lab_shift;
    }
    if (a.add.data && a.add_last)
        add_residual(a, row, out_col, count, v);
}

template <int BN> DEVICE void read8(const float *sums, int r, int c, float v[8])
{
    UNROLL
    for (int k = 0; k < 2; k++) {
        um_words u = *(const um_words *)(sums + r * (BN + PAD) + c + 4 * k);
        UNROLL
        for (int i = 0; i < 4; i++)
            v[4 * k + i] = bits_float(u.w[i]);
    }
}

/* Sums of columns col0.. (of n, which are outputs out0..) finished and stored, or put back for the
 * norm. */
template <int BM, int BN, int THREADS>
DEVICE void finish(const um_gemm_args &a, const float *bias, float *sums, int row0, int col0, int n,
                   int out0, bool exact)
{
    for (int i = threadIdx.x; i < BM * (BN / 8); i += THREADS) {
        int r = i / (BN / 8), c = i % (BN / 8) * 8, count = n - col0 - c;
        float v[8];
        if (row0 + r >= a.rows || count <= 0)
            continue;
        count = count < 8 ? count : 8;
        read8<BN>(sums, r, c, v);
        finish8(a, bias, row0 + r, col0 + c, out0 + col0 + c, count, v, exact);
        if (!a.gamma_out) {
            put(a, row0 + r, out0 + col0 + c, count, v);
            continue;
        }
        UNROLL
        for (int k = 0; k < 8; k++)
            sums[r * (BN + PAD) + c + k] = v[k];
    }
}

/* The same for plain outputs: a thread keeps its eight columns from row to row. */
template <class H, class T>
DEVICE void finish_plain(const um_gemm_args &a, const float *bias, const float *sums, int row0,
                         int col0, int n, int out0)
{
    enum { ACROSS = T::BN / 8, DOWN = T::threads / ACROSS };
    int c = (int)threadIdx.x % ACROSS * 8, r = (int)threadIdx.x / ACROSS, left = a.rows - row0;
    int out = (row0 + r) * a.out.ld + out0 + col0 + c, add = (row0 + r) * a.add.ld + out0 + col0 + c;
    float b[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    if (col0 + c >= n)
        return;
    if (bias)
        load_floats(bias + col0 + c, b);
    left = left < T::BM ? left : T::BM;
    ROLL for (; r < left; r += DOWN, out += DOWN * a.out.ld, add += DOWN * a.add.ld)
    {
        um_words residual = halves_at(a.add, add);
        float v[8];
        read8<T::BN>(sums, r, c, v);
        UNROLL
        for (int i = 0; i < 8; i++)
            v[i] += b[i];
        *(um_words *)((uint16_t *)a.out.data + out) = finish_halves<H>(a, residual, v);
    }
}

/* Every `group` columns of a row normalised, one warp a row and group. */
template <int BM, int BN, int WARPS>
DEVICE void normalise(const um_gemm_args &a, float *sums, int row0, int n)
{
    int lane = threadIdx.x & 31, groups = n / a.group, c = a.group;
    for (int i = (int)(threadIdx.x >> 5); i < BM * groups; i += WARPS) {
        int r = i / groups, first = i % groups * c;
        float *v = sums + r * (BN + PAD) + first;
        float sum = 0, squares = 0;
        bool real = row0 + r < a.rows;
        for (int k = lane; real && k < c; k += 32)
            sum += v[k];
        float mean = warp_sum(sum) / (float)c;
        for (int k = lane; real && k < c; k += 32)
            squares += (v[k] - mean) * (v[k] - mean);
        float scale = 1 / sqrtf(warp_sum(squares) / (float)c + a.eps_out);
        for (int k = lane; real && k < c; k += 32)
            v[k] = (v[k] - mean) * scale * a.gamma_out[k] + a.beta_out[k];
    }
    sync();
    for (int i = threadIdx.x; i < BM * (BN / 8); i += 32 * WARPS) {
        int r = i / (BN / 8), col = i % (BN / 8) * 8, count = n - col;
        float v[8];
        if (row0 + r >= a.rows || count <= 0)
            continue;
        read8<BN>(sums, r, col, v);
        activate_all<8>(a.norm_act, 0, v, false);
        put(a, row0 + r, col, count < 8 ? count : 8, v);
    }
}

/* What becomes of the sums of column tile t. */
template <class H, class T>
DEVICE void finish_tile(const um_gemm_args &a, bool first, int t, const float *acc, float *sums, int row0)
{
    int n = first ? a.n : a.n2;
    put_sums<T>(acc, sums);
    sync();
    if (a.plain) {
        finish_plain<H, T>(a, first ? a.b : a.b2, sums, row0, t * T::BN, n, first ? 0 : a.n);
        return;
    }
    finish<T::BM, T::BN, T::threads>(a, first ? a.b : a.b2, sums, row0, t * T::BN, n, first ? 0 : a.n,
                                     false);
    if (a.gamma_out) {
        sync();
        normalise<T::BM, T::BN, T::warps>(a, sums, row0, n);
    }
}

/* Rows as they are; a block has one tile of columns of w or of w2. */
template <class H, class T> DEVICE void gemm(const um_gemm_args &a)
{
    int row0 = (int)blockIdx.x * T::BM, t = (int)blockIdx.y;
    bool first = t < a.tiles;
    float acc[4 * T::mt * T::nt];
    t -= first ? 0 : a.tiles;
    clear<T>(acc);
    if (is_flat(a))
        multiply_stages<H, T, true>(a, first ? a.w : a.w2, row0, t * (T::BN / 8),
                                    first ? a.n : a.n2, acc);
    else
        multiply_stages<H, T, false>(a, first ? a.w : a.w2, row0, t * (T::BN / 8),
                                     first ? a.n : a.n2, acc);
    sync();
    finish_tile<H, T>(a, first, t, acc, (float *)shared_memory(), row0);
}

/* Which tiles of columns a block has: a.each of w, or of w2. */
struct share {
    bool first;
    int begin, end;
};

DEVICE share share_of(const um_gemm_args &a)
{
    int groups = (a.tiles + a.each - 1) / a.each, group = (int)blockIdx.y;
    share s;
    s.first = group < groups;
    s.begin = (s.first ? group : group - groups) * a.each;
    s.end = s.first ? a.tiles : a.tiles2;
    s.end = s.begin + a.each < s.end ? s.begin + a.each : s.end;
    return s;
}

/* A panel of rows as they are, and its statistics' place; the weights come behind. */
template <class T> DEVICE unsigned char *behind_panel(int columns)
{
    return shared_memory() + T::BM * ((columns + SPACE) * 2 + 2 * sizeof(float));
}

/* Rows normalised first. */
template <class H, class T> DEVICE void gemm_norm(const um_gemm_args &a)
{
    share s = share_of(a);
    uint16_t *panel = (uint16_t *)shared_memory();
    unsigned char *to = behind_panel<T>(a.panel);
    um_shared stages = shared_address(to);
    int row0 = (int)blockIdx.x * T::BM, n = s.first ? a.n : a.n2, count = (a.k + T::BK - 1) / T::BK;
    float acc[4 * T::mt * T::nt];
    send_panel<T>(a, row0, a.panel, panel);
    for (int t = s.begin; t < s.end; t++) {
        weights<T> w = find_weights<T>(s.first ? a.w : a.w2, t * (T::BN / 8), n, 0, a.k);
        start_weights<T>(stages, w, count);
        if (t == s.begin) {
            cp_wait<T::STAGES - 1>();
            sync();
            normalise_panel<H, T>(a, a.panel, panel);
        }
        clear<T>(acc);
        multiply_panel<H, T>(w, count, a.panel, panel, stages, acc);
        sync();
        finish_tile<H, T>(a, s.first, t, acc, (float *)to, row0);
        if (t + 1 < s.end)
            sync();
    }
}

/* Whatever is to be done to the rows first, a panel of k at a time. */
template <class H, class T> DEVICE void gemm_panel(const um_gemm_args &a)
{
    share s = share_of(a);
    uint16_t *panel = (uint16_t *)shared_memory();
    float *statistics = (float *)(panel + T::BM * (a.panel + SPACE)), acc[4 * T::mt * T::nt];
    unsigned char *to = behind_panel<T>(a.panel);
    um_shared stages = shared_address(to);
    int row0 = (int)blockIdx.x * T::BM, n = s.first ? a.n : a.n2, at = -1; /* what k the panel has */
    if (a.gamma_in) {
        row_statistics<T::BM, T::warps>(a, row0, statistics);
        sync();
    }
    for (int t = s.begin; t < s.end; t++) {
        clear<T>(acc);
        for (int k0 = 0; k0 < a.k; k0 += a.panel) {
            int left = a.k - k0 < a.panel ? a.k - k0 : a.panel, count = (left + T::BK - 1) / T::BK;
            weights<T> w = find_weights<T>(s.first ? a.w : a.w2, t * (T::BN / 8), n, k0, a.k);
            start_weights<T>(stages, w, count);
            if (k0 != at)
                fill_panel<H, T>(a, row0, k0, a.panel, a.plus.data && s.first, statistics, panel);
            at = k0;
            multiply_panel<H, T>(w, count, a.panel, panel, stages, acc);
            sync(); /* panel and weights have been read */
        }
        finish_tile<H, T>(a, s.first, t, acc, (float *)to, row0);
        if (t + 1 < s.end)
            sync();
    }
}

/* A kernel for either kind of half: function<H, what follows>. */
#define BOTH(name, args_t, threads, function, ...)   \
    KERNEL(name##_f16, args_t, a, threads)           \
    {                                                \
        function<F16, __VA_ARGS__>(a);               \
    }                                                \
    KERNEL(name##_bf16, args_t, a, threads)          \
    {                                                \
        function<BF16, __VA_ARGS__>(a);              \
    }
#define TILE(suffix, ...) typedef tile<__VA_ARGS__> tile_##suffix;
#define TILED(name, function, t) BOTH(name, um_gemm_args, t::threads, function, t)
#define GEMM(suffix, ...) TILED(um_gemm_##suffix, gemm, tile_##suffix)
#define NORM(suffix, ...) TILED(um_gemm_##suffix##_norm, gemm_norm, tile_##suffix)
#define PANEL(suffix, ...) TILED(um_gemm_##suffix##_panel, gemm_panel, tile_##suffix)
UM_CUDA_GEMM_LARGE(TILE)
UM_CUDA_GEMM_TILES(TILE)
UM_CUDA_GEMM_ROWS(TILE)
UM_CUDA_GEMM_LARGE(GEMM)
UM_CUDA_GEMM_TILES(GEMM)
UM_CUDA_GEMM_ROWS(GEMM)
UM_CUDA_GEMM_TILES(NORM)
UM_CUDA_GEMM_TILES(PANEL)
UM_CUDA_GEMM_ROWS(PANEL)

/* ---- a pixel a thread: few channels, for which a tensor core's tile would be mostly padding ---- */

template <class H, int N> DEVICE void narrow(const um_gemm_args &a)
{
    float *w = (float *)shared_memory(), acc[N];
    int steps = (a.k + STEP - 1) / STEP, row = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    for (int i = threadIdx.x; i < a.k * N; i += (int)blockDim.x) {
        int k = i / N, n = i % N;
        w[i] = n < a.n ? H::load(((const uint16_t *)a.w)[um_pack_place(n, k, steps)]) : 0;
    }
    sync();
    if (row >= a.rows)
        return;
    int y0 = row / a.out.w * a.stride - a.pad_top, x0 = row % a.out.w * a.stride - a.pad_left;
    UNROLL
    for (int n = 0; n < N; n++)
        acc[n] = 0;
    for (int ky = 0; ky < a.kh; ky++)
        for (int kx = 0; kx < a.kw; kx++) {
            int y = y0 + ky, x = x0 + kx;
            const float *of = w + (ky * a.kw + kx) * a.x.c * N;
            if (y < 0 || y >= a.x.h || x < 0 || x >= a.x.w)
                continue;
            for (int c = 0; c < a.x.c; c++, of += N) {
                float v = load(a.x, (int64_t)y * a.x.w + x, c);
                UNROLL
                for (int n = 0; n < N; n += 4) {
                    um_words u = *(const um_words *)(of + n);
                    UNROLL
                    for (int i = 0; i < 4; i++)
                        acc[n + i] = fmaf(v, bits_float(u.w[i]), acc[n + i]);
                }
            }
        }
    UNROLL
    for (int n = 0; n < N; n += 8) {
        int count = a.n - n < 8 ? a.n - n : 8;
        if (count > 0) {
            finish8(a, a.b, row, n, n, count, acc + n, false);
            if (a.plain) {
                *(um_words *)((uint16_t *)a.out.data + (int64_t)row * a.out.ld + n) =
                    pack8<H>(acc + n);
            } else {
                put(a, row, n, count, acc + n);
            }
        }
    }
}

BOTH(um_conv_narrow16, um_gemm_args, 256, narrow, 16)
BOTH(um_conv_narrow32, um_gemm_args, 256, narrow, 32)

/* ---- D-FINE's gateway: two products into the same sums, then the gate; the norm follows ---- */

template <class H, class T> DEVICE void gate(const um_gate_args &a)
{
    enum { SUMS = T::BM * (T::BN + PAD) };
    uint16_t *panel = (uint16_t *)shared_memory();
    unsigned char *to = behind_panel<T>(a.panel);
    um_shared stages = shared_address(to);
    float *sums = (float *)to, acc[2][4 * T::mt * T::nt]; /* what of a passes, what of b */
    int row0 = (int)blockIdx.x * T::BM, col0 = (int)blockIdx.y * T::BN, c = a.out.c;
    int count = a.panel / T::BK;
    um_gemm_args g = {};
    g.rows = a.rows;
    g.k = c;
    g.kh = g.kw = g.stride = 1;
    clear<T>(acc[0]);
    clear<T>(acc[1]);
    ROLL for (int side = 0; side < 2; side++)
    {
        g.x = side ? a.b : a.a;
        g.out = g.x;
        g.wide = g.x.vec >= (g.x.dtype == UM_F32 ? 4 : 8);
        UNROLL
        for (int half = 0; half < 2; half++) {
            weights<T> w = find_weights<T>(side ? a.wb : a.wa, (half * c + col0) / 8, 2 * c, 0, c);
            start_weights<T>(stages, w, count);
            if (half == 0)
                fill_panel<H, T>(g, row0, 0, a.panel, false, NULL, panel);
            multiply_panel<H, T>(w, count, a.panel, panel, stages, acc[half]);
            sync();
        }
    }
    put_sums<T>(acc[0], sums);
    put_sums<T>(acc[1], sums + SUMS);
    sync();
    for (int i = threadIdx.x; i < T::BM * (T::BN / 8); i += T::threads) {
        int r = i / (T::BN / 8), at = i % (T::BN / 8) * 8, col = col0 + at;
        float to_a[8], to_b[8], x[8], y[8];
        if (row0 + r >= a.rows || col >= c)
            continue;
        read8<T::BN>(sums, r, at, to_a);
        read8<T::BN>(sums + SUMS, r, at, to_b);
        load8(a.a, row0 + r, col, x);
        load8(a.b, row0 + r, col, y);
        UNROLL
        for (int k = 0; k < 8; k++) {
            to_a[k] += a.bias ? a.bias[col + k] : 0;
            to_b[k] += a.bias ? a.bias[c + col + k] : 0;
        }
        activate_all<8>(UM_ACT_SIGMOID, 0, to_a, false);
        activate_all<8>(UM_ACT_SIGMOID, 0, to_b, false);
        UNROLL
        for (int k = 0; k < 8; k++)
            x[k] = to_a[k] * x[k] + to_b[k] * y[k];
        store8(a.out, row0 + r, col, x, 8);
    }
}

BOTH(um_gate, um_gate_args, tile_16x32::threads, gate, tile_16x32)

/* ---- plain twins: fp32 FMAs in order of k ---- */

/* BM x 64 sums by 256 threads, each BM/16 x 4. Weights as op_ref.c has them, [n][k]. */
template <int BM> DEVICE void plain(const um_gemm_args &a)
{
    enum { BN = 64, K = 16, MT = BM / 16, SA = BM + 1, SB = BN + 1 };
    float *sa = (float *)shared_memory(), *sb = sa + K * SA, *sums = (float *)shared_memory();
    const float *w = (const float *)a.w;
    int row0 = (int)blockIdx.x * BM, col0 = (int)blockIdx.y * BN, tid = threadIdx.x;
    int ty = tid / 16, tx = tid % 16, width = a.up ? a.x.w : a.out.w;
    float acc[MT][4] = {};
    for (int k0 = 0; k0 < a.k; k0 += K) {
        place p = {0, 0, 0};
        if (tid < 2 * BM) { /* eight neighbours each */
            float v[8];
            int k = k0 + tid % 2 * 8;
            p.c = k % a.x.c;
            p.kx = k / a.x.c % a.kw;
            p.ky = k / a.x.c / a.kw;
            gather(a, row0 + tid / 2, p, k, width, v);
            UNROLL
            for (int i = 0; i < 8; i++)
                sa[(tid % 2 * 8 + i) * SA + tid / 2] = v[i];
        }
        UNROLL
        for (int i = 0; i < BN * K / 256; i++) {
            int k = tid % K, n = tid / K + i * (256 / K);
            sb[k * SB + n] =
                col0 + n < a.n && k0 + k < a.k ? w[(int64_t)(col0 + n) * a.k + k0 + k] : 0;
        }
        sync();
        UNROLL
        for (int k = 0; k < K; k++)
            UNROLL
            for (int m = 0; m < MT; m++)
                UNROLL
                for (int n = 0; n < 4; n++)
                    acc[m][n] = fmaf(sa[k * SA + ty + 16 * m], sb[k * SB + tx + 16 * n], acc[m][n]);
        sync();
    }
    UNROLL
    for (int m = 0; m < MT; m++)
        UNROLL
        for (int n = 0; n < 4; n++)
            sums[(ty + 16 * m) * (BN + PAD) + tx + 16 * n] = acc[m][n];
    sync();
    finish<BM, BN, 256>(a, a.b, sums, row0, col0, a.n, 0, true);
}

KERNEL(um_gemm_plain_64, um_gemm_args, a, 256)
{
    plain<64>(a);
}

KERNEL(um_gemm_plain_16, um_gemm_args, a, 256)
{
    plain<16>(a);
}

/* out[m][n] = a[m] . b[n], a thread for each: many columns, few rows, short products. */
KERNEL(um_matmul_nt_rows, um_matmul_nt_args, a, 256)
{
    int n = (int)(blockIdx.x * blockDim.x + threadIdx.x), m = (int)blockIdx.y, k = 0;
    float sum = 0;
    if (n >= a.n)
        return;
    for (; k + 8 <= a.a.c; k += 8) {
        float x[8], y[8];
        load8(a.a, m, k, x);
        load8(a.b, n, k, y);
        UNROLL
        for (int i = 0; i < 8; i++)
            sum = fmaf(x[i], y[i], sum);
    }
    for (; k < a.a.c; k++)
        sum = fmaf(load(a.a, m, k), load(a.b, n, k), sum);
    store(a.out, m, n, sum);
}
