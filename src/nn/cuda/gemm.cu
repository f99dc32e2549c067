/* SPDX-License-Identifier: Apache-2.0 */
/* Convolutions and linear layers as one matrix product, rows of pixels times packed weights. The
 * rows are gathered on the way into shared memory (k runs over the window's places, then channels),
 * there normalised and added to if asked for; the weights never pass through it, since a lane's
 * share of a tile is 16 contiguous bytes (pack.h). The sums go through shared memory once more, as
 * floats, so that whatever follows (residuals, norms of a row, vectors of stores) sees whole rows. */
#include "nn/cuda/gemm.h"

#include "nn/cuda/kernel.h"

enum {
    STEP = 32,        /* of k */
    LD = UM_GEMM_LD,  /* STEP and 8 more: no bank conflicts */
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

/* Row of x under place p of output row `row`; -1 outside the picture. */
DEVICE int64_t source(const um_gemm_args &a, int row, const place &p, int width)
{
    if (a.kh * a.kw == 1 && a.stride == 1 && a.pad_top == 0 && a.pad_left == 0)
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

/* Rows are gathered in one of three ways. BARE kernels: halves in vectors, nothing to be done to
 * them. Else in vectors of halves or floats (a.wide), normalised and added to if asked for, or one
 * by one. */

/* What a thread has on the way for eight neighbours in k of one row: bytes as they lie in memory, so
 * that nothing waits for them until they are stored. */
struct arriving {
    um_words x[2], plus[2]; /* 8 halves in the first, or 8 floats */
    bool there;
};

template <class H, bool BARE>
DEVICE void request(arriving &r, const um_gemm_args &a, int row, const place &p, int k, int width,
                    bool plus)
{
    r.there = false;
    r.x[0] = um_words{{0, 0, 0, 0}};
    if (row >= a.rows || k >= a.k)
        return;
    if (BARE) {
        int64_t from = source(a, row, p, width);
        if (from >= 0)
            r.x[0] = *(const um_words *)((const uint16_t *)a.x.data + from * a.x.ld + p.c);
        return;
    }
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
template <class H, bool BARE>
DEVICE um_words arrived(const arriving &r, const um_gemm_args &a, int row, int k,
                        const float *statistics, bool plus)
{
    um_words u = r.x[0];
    if (BARE || !r.there || (a.x.dtype == H::dtype && a.wide && !a.gamma_in && !plus))
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
    UNROLL
    for (int i = 0; i < 4; i++)
        u.w[i] = H::pack(v[2 * i], v[2 * i + 1]);
    return u;
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

/* A block's tile: BM rows, BN columns, warps DOWN x ACROSS. */
template <int BM, int BN, int DOWN, int ACROSS> struct tile {
    static const int warps = DOWN * ACROSS, threads = 32 * warps;
    static const int rows = BM / DOWN, columns = BN / ACROSS; /* of a warp */
    static const int mt = rows / 16, nt = columns / 8;        /* in mma */
    static const int chunks = (BM * (STEP / 8) + threads - 1) / threads; /* gathered by a thread */
};

/* One lane's weights of a step. */
template <int NT>
DEVICE void fetch_weights(um_words *w, const void *packed, int tile0, int tiles, int step,
                          int steps)
{
    const um_words *from = (const um_words *)packed + (threadIdx.x & 31);
    UNROLL
    for (int i = 0; i < NT; i++) {
        w[i] = um_words{{0, 0, 0, 0}};
        if (tile0 + i < tiles && step < steps)
            w[i] = from[((int64_t)(tile0 + i) * steps + step) * 32];
    }
}

/* acc += rows row0.. of x times columns col0.. of the packed weights (n of them). `a_tile` is two
 * gathered tiles. */
template <class H, int BM, int BN, int DOWN, int ACROSS, bool BARE>
DEVICE void multiply(const um_gemm_args &a, const void *packed, int row0, int col0, int n, bool plus,
                     uint16_t *a_tile, const float *statistics, float *acc)
{
    typedef tile<BM, BN, DOWN, ACROSS> T;
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    int down = warp / ACROSS, across = warp % ACROSS;
    int steps = (a.k + STEP - 1) / STEP, tiles = (n + 7) / 8, width = a.up ? a.x.w : a.out.w;
    int tile0 = (col0 + across * T::columns) / 8, k8 = 8 * (int)(threadIdx.x % (STEP / 8));
    place p = {0, 0, 0};
    um_words w[2][T::nt];
    arriving g[T::chunks];
    move(p, a, k8);
    UNROLL
    for (int i = 0; i < T::chunks; i++) {
        int r = (int)(threadIdx.x + i * T::threads) / (STEP / 8);
        request<H, BARE>(g[i], a, r < BM ? row0 + r : a.rows, p, k8, width, plus);
    }
    UNROLL
    for (int i = 0; i < T::chunks; i++) {
        int r = (int)(threadIdx.x + i * T::threads) / (STEP / 8);
        if (r < BM)
            *(um_words *)(a_tile + r * LD + k8) =
                arrived<H, BARE>(g[i], a, row0 + r, k8, statistics + 2 * r, plus);
    }
    fetch_weights<T::nt>(w[0], packed, tile0, tiles, 0, steps);
    sync();
    for (int step = 0; step < steps; step++) {
        const uint16_t *now = a_tile + (step & 1) * BM * LD;
        uint16_t *next = a_tile + (~step & 1) * BM * LD;
        int k = (step + 1) * STEP + k8;
        if (step + 1 < steps)
            move(p, a, STEP);
        UNROLL
        for (int i = 0; i < T::chunks; i++) {
            int r = (int)(threadIdx.x + i * T::threads) / (STEP / 8);
            bool more = r < BM && step + 1 < steps;
            request<H, BARE>(g[i], a, more ? row0 + r : a.rows, p, k, width, plus);
        }
        fetch_weights<T::nt>(w[1], packed, tile0, tiles, step + 1, steps);
        UNROLL
        for (int half = 0; half < 2; half++)
            UNROLL
            for (int m = 0; m < T::mt; m++) {
                uint32_t f[4];
                ldmatrix4(f, now + (down * T::rows + 16 * m + (lane & 15)) * LD + 16 * half +
                                 8 * (lane >> 4));
                UNROLL
                for (int i = 0; i < T::nt; i++)
                    H::mma(acc + 4 * (m * T::nt + i), f, w[0][i].w + 2 * half);
            }
        UNROLL
        for (int i = 0; i < T::chunks; i++) {
            int r = (int)(threadIdx.x + i * T::threads) / (STEP / 8);
            if (r < BM && step + 1 < steps)
                *(um_words *)(next + r * LD + k8) =
                    arrived<H, BARE>(g[i], a, row0 + r, k, statistics + 2 * r, plus);
        }
        UNROLL
        for (int i = 0; i < T::nt; i++)
            w[0][i] = w[1][i];
        sync();
    }
}

template <int BM, int BN, int DOWN, int ACROSS> DEVICE void put_sums(const float *acc, float *sums)
{
    typedef tile<BM, BN, DOWN, ACROSS> T;
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    int row = warp / ACROSS * T::rows + (lane >> 2), col = warp % ACROSS * T::columns + 2 * (lane & 3);
    UNROLL
    for (int m = 0; m < T::mt; m++)
        UNROLL
        for (int i = 0; i < T::nt; i++)
            UNROLL
            for (int e = 0; e < 2; e++) {
                const float *v = acc + 4 * (m * T::nt + i) + 2 * e;
                *(um_words2 *)(sums + (row + 16 * m + 8 * e) * (BN + PAD) + col + 8 * i) =
                    um_words2{{float_bits(v[0]), float_bits(v[1])}};
            }
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
    UNROLL
    for (int i = 0; i < 8; i++)
        if (bias && i < count)
            v[i] += bias[col + i];
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

template <class H, int BM, int BN, int DOWN, int ACROSS, bool BARE>
DEVICE void gemm(const um_gemm_args &a)
{
    typedef tile<BM, BN, DOWN, ACROSS> T;
    uint16_t *a_tile = (uint16_t *)shared_memory();
    float *statistics = (float *)(a_tile + 2 * BM * LD), *sums = (float *)shared_memory();
    int row0 = (int)blockIdx.x * BM, t = (int)blockIdx.y;
    bool first = t < a.tiles;
    int col0 = (first ? t : t - a.tiles) * BN, n = first ? a.n : a.n2, out0 = first ? 0 : a.n;
    float acc[4 * T::mt * T::nt];
    UNROLL
    for (int i = 0; i < 4 * T::mt * T::nt; i++)
        acc[i] = 0;
    if (!BARE && a.gamma_in) {
        row_statistics<BM, T::warps>(a, row0, statistics);
        sync();
    }
    multiply<H, BM, BN, DOWN, ACROSS, BARE>(a, first ? a.w : a.w2, row0, col0, n, a.plus.data && first,
                                      a_tile, statistics, acc);
    put_sums<BM, BN, DOWN, ACROSS>(acc, sums);
    sync();
    finish<BM, BN, T::threads>(a, first ? a.b : a.b2, sums, row0, col0, n, out0, false);
    if (a.gamma_out) {
        sync();
        normalise<BM, BN, T::warps>(a, sums, row0, n);
    }
}

#define GEMM(suffix, m, n, down, across, bare)                          \
    KERNEL(um_gemm_##suffix##_f16, um_gemm_args, a, 32 * down * across) \
    {                                                                   \
        gemm<F16, m, n, down, across, bare>(a);                         \
    }                                                                   \
    KERNEL(um_gemm_##suffix##_bf16, um_gemm_args, a, 32 * down * across) \
    {                                                                   \
        gemm<BF16, m, n, down, across, bare>(a);                        \
    }
UM_CUDA_GEMM_TILES(GEMM)
UM_CUDA_GEMM_ROWS(GEMM)

/* ---- D-FINE's gateway: two products into the same sums, then the gate and the norm ---- */

template <class H, int BN> DEVICE void gate(const um_gate_rows_args &a)
{
    enum { BM = 16, WARPS = 8 };
    typedef tile<BM, BN, 1, WARPS> T;
    uint16_t *a_tile = (uint16_t *)shared_memory();
    float *sums = (float *)shared_memory(), acc[4 * T::mt * T::nt];
    int row0 = (int)blockIdx.x * BM, lane = threadIdx.x & 31, c = a.c;
    um_gemm_args g = {};
    g.rows = a.rows;
    g.k = c;
    g.kh = g.kw = g.stride = 1;
    UNROLL
    for (int i = 0; i < 4 * T::mt * T::nt; i++)
        acc[i] = 0;
    for (int side = 0; side < 2; side++) {
        g.x = side ? a.b : a.a;
        g.out = g.x;
        g.wide = g.x.vec >= (g.x.dtype == UM_F32 ? 4 : 8) && c % 8 == 0;
        multiply<H, BM, BN, 1, WARPS, false>(g, side ? a.wb : a.wa, row0, 0, 2 * c, false, a_tile, NULL,
                                      acc);
    }
    put_sums<BM, BN, 1, WARPS>(acc, sums);
    sync();
    for (int r = (int)(threadIdx.x >> 5); r < BM; r += WARPS) {
        int64_t row = row0 + r;
        float *v = sums + r * (BN + PAD), sum = 0, squares = 0;
        bool real = row < a.rows;
        for (int k = lane; real && k < c; k += 32) {
            float to_a = activate(UM_ACT_SIGMOID, 0, v[k] + (a.bias ? a.bias[k] : 0), false);
            float to_b =
                activate(UM_ACT_SIGMOID, 0, v[c + k] + (a.bias ? a.bias[c + k] : 0), false);
            v[k] = to_a * load(a.a, row, k) + to_b * load(a.b, row, k);
            sum += v[k];
        }
        float mean = warp_sum(sum) / (float)c;
        for (int k = lane; real && k < c; k += 32)
            squares += (v[k] - mean) * (v[k] - mean);
        float scale = 1 / sqrtf(warp_sum(squares) / (float)c + a.eps);
        for (int k = lane; real && k < c; k += 32)
            store(a.out, row, k, (v[k] - mean) * scale * a.gamma[k] + a.beta[k]);
    }
}

#define GATE(columns)                                             \
    KERNEL(um_gate_rows_##columns##_f16, um_gate_rows_args, a, 256) \
    {                                                             \
        gate<F16, columns>(a);                                    \
    }                                                             \
    KERNEL(um_gate_rows_##columns##_bf16, um_gate_rows_args, a, 256) \
    {                                                             \
        gate<BF16, columns>(a);                                   \
    }
GATE(256)
GATE(512)

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
