/* SPDX-License-Identifier: Apache-2.0 */
/* Several linear layers on a few rows as one step. A block keeps its rows in shared memory from
 * layer to layer; what takes the time is the stream of weights out of L2, which every block reads
 * once. So each warp has its weights on the way long before it needs them: the loads run TILES x
 * DEPTH lane shares (16 bytes each) ahead of the tensor cores, across passes, layers and barriers,
 * and nothing a load needs depends on a result. */
#include "nn/cuda/chain.h"

#include "nn/cuda/kernel.h"

enum { REFINE = 1, BOX = 2 }; /* enum um_finish */

/* ---- a layer: mma on rows in shared memory, weights in registers on their way ---- */

/* Where the stream of weights is: a round is DEPTH tiles of k for one pass over the columns. */
struct position {
    int layer, pass, k;
};

template <int DEPTH> DEVICE void advance(position &at, const um_rows_layer &l)
{
    at.k += DEPTH;
    if (at.k < l.k_tiles)
        return;
    at.k = 0;
    if (++at.pass == l.passes) {
        at.pass = 0;
        at.layer++;
    }
}

template <int WARPS, int TILES> DEVICE int tile_of(int pass, int i)
{
    return (pass * TILES + i) * WARPS + (int)(threadIdx.x >> 5);
}

/* A lane's weights of one round, and how many tiles of columns and of k there are. */
struct source {
    const um_words *w;
    int step; /* from one tile of columns to the next */
    int tiles, k;
};

template <int WARPS, int TILES> DEVICE source source_of(const um_rows_layer &l, int pass, int k)
{
    int tile = tile_of<WARPS, TILES>(pass, 0);
    source s;
    s.w = (const um_words *)l.w + ((int64_t)tile * l.k_tiles + k) * 32 + (threadIdx.x & 31);
    s.step = 32 * WARPS * l.k_tiles;
    s.tiles = (l.n_tiles - tile + WARPS - 1) / WARPS;
    s.k = l.k_tiles - k;
    return s;
}

/* One tile of k; zeros for columns that do not exist. */
template <int TILES> DEVICE void fetch(um_words *w, const source &s, int d)
{
    UNROLL
    for (int i = 0; i < TILES; i++) {
        w[i] = um_words{{0, 0, 0, 0}};
        if (i < s.tiles && d < s.k)
            w[i] = s.w[(int64_t)i * s.step + 32 * d];
    }
}

template <int WARPS, int TILES>
DEVICE void fetch_bias(float *bias, const um_rows_layer &l, int pass)
{
    UNROLL
    for (int i = 0; i < 2 * TILES; i++) {
        int col = 8 * tile_of<WARPS, TILES>(pass, i / 2) + 2 * (int)(threadIdx.x & 3) + (i & 1);
        bias[i] = l.bias && col < l.n ? l.bias[col] : 0;
    }
}

/* The stream of a warp for M x 16 rows. */
template <class H, int WARPS, int M, int TILES, int DEPTH> struct stream {
    position at, ahead;
    um_words w[DEPTH][TILES];
    float bias[2 * TILES], acc[4 * M * TILES];
};
#define STREAM stream<H, WARPS, M, TILES, DEPTH>
#define STREAM_TEMPLATE template <class H, int WARPS, int M, int TILES, int DEPTH>

STREAM_TEMPLATE DEVICE void start(STREAM &s, const um_rows_layer *layer)
{
    source first = source_of<WARPS, TILES>(layer[0], 0, 0);
    s.at = s.ahead = position{0, 0, 0};
    fetch_bias<WARPS, TILES>(s.bias, layer[0], 0);
    UNROLL
    for (int d = 0; d < DEPTH; d++)
        fetch<TILES>(s.w[d], first, d);
    advance<DEPTH>(s.ahead, layer[0]);
}

/* One round; true at the end of a pass, with the sums in acc. The stream stays where it is until
 * turn(). */
STREAM_TEMPLATE DEVICE bool round(STREAM &s, const um_rows_layer *layer, int layers)
{
    bool more = s.ahead.layer < layers;
    const um_rows_layer &l = layer[s.at.layer], &next = layer[more ? s.ahead.layer : 0];
    source ahead = source_of<WARPS, TILES>(next, s.ahead.pass, s.ahead.k);
    const uint16_t *from = (const uint16_t *)(shared_memory() + l.from);
    int lane = threadIdx.x & 31;
    if (!more)
        ahead.k = 0;
    if (s.at.k == 0) {
        UNROLL
        for (int i = 0; i < 4 * M * TILES; i++)
            s.acc[i] = s.bias[i / 4 % TILES * 2 + (i & 1)];
    }
    if (more && s.ahead.k == 0)
        fetch_bias<WARPS, TILES>(s.bias, next, s.ahead.pass);
    from += (lane & 15) * l.ld_from + (lane >> 4) * 8 + 32 * s.at.k;
    UNROLL
    for (int d = 0; d < DEPTH; d++) {
        if (s.at.k + d < l.k_tiles) {
            UNROLL
            for (int half = 0; half < 2; half++)
                UNROLL
                for (int m = 0; m < M; m++) {
                    uint32_t a[4];
                    ldmatrix4(a, from + 16 * m * l.ld_from + 32 * d + 16 * half);
                    UNROLL
                    for (int i = 0; i < TILES; i++)
                        H::mma(s.acc + 4 * (m * TILES + i), a, s.w[d][i].w + 2 * half);
                }
        }
        fetch<TILES>(s.w[d], ahead, d);
    }
    return s.at.k + DEPTH >= l.k_tiles;
}

STREAM_TEMPLATE DEVICE void turn(STREAM &s, const um_rows_layer *layer, int layers)
{
    s.at = s.ahead;
    if (s.ahead.layer < layers)
        advance<DEPTH>(s.ahead, layer[s.ahead.layer]);
}

/* The sums of a pass into shared memory: halves, or (last) floats, added to what is there already
 * if `onto`. */
STREAM_TEMPLATE DEVICE void keep(const STREAM &s, const um_rows_layer &l, bool last, bool onto)
{
    unsigned char *to = shared_memory() + l.to;
    int lane = threadIdx.x & 31;
    UNROLL
    for (int i = 0; i < TILES; i++) {
        int col = 8 * tile_of<WARPS, TILES>(s.at.pass, i) + 2 * (lane & 3);
        if (col >= l.columns)
            continue;
        UNROLL
        for (int e = 0; e < 2 * M; e++) {
            const float *acc = s.acc + 4 * (e / 2 * TILES + i) + 2 * (e & 1);
            float x = col < l.n ? acc[0] : 0, y = col + 1 < l.n ? acc[1] : 0;
            int place = (8 * e + (lane >> 2)) * l.ld + col;
            if (last) {
                um_words2 *sum = (um_words2 *)((float *)to + place);
                if (onto) {
                    x += bits_float(sum->w[0]);
                    y += bits_float(sum->w[1]);
                }
                *sum = um_words2{{float_bits(x), float_bits(y)}};
            } else
                *(uint32_t *)((uint16_t *)to + place) = H::pack(x, y);
        }
    }
}

/* ---- rows in and out ---- */

DEVICE void add_some(const um_gview &v, int64_t row, int col, float x[8])
{
    float y[8];
    load_some(v, row, col, v.c - col, y);
    UNROLL
    for (int k = 0; k < 8; k++)
        x[k] += y[k];
}

/* Eight elements in shared memory. */
template <class H> DEVICE void put(uint16_t *to, const float x[8])
{
    um_words u;
    UNROLL
    for (int k = 0; k < 4; k++)
        u.w[k] = H::pack(x[2 * k], x[2 * k + 1]);
    *(um_words *)to = u;
}

DEVICE void put(float *to, const float x[8])
{
    UNROLL
    for (int h = 0; h < 2; h++) {
        um_words u;
        UNROLL
        for (int k = 0; k < 4; k++)
            u.w[k] = float_bits(x[4 * h + k]);
        *(um_words *)(to + 4 * h) = u;
    }
}

DEVICE void get(const float *from, float x[8])
{
    UNROLL
    for (int h = 0; h < 2; h++) {
        um_words u = *(const um_words *)(from + 4 * h);
        UNROLL
        for (int k = 0; k < 4; k++)
            x[4 * h + k] = bits_float(u.w[k]);
    }
}

/* ---- UM_OP_CHAIN ---- */

DEVICE int64_t source_row(const um_gview &index, int64_t row)
{
    return index.data ? ((const int32_t *)index.data)[row * index.ld] : row;
}

/* x[index] + plus as halves; `picked` gets x[index]. */
template <class H> DEVICE void gather(const um_chain_rows_args &a, int64_t row0)
{
    const um_rows_layer &l = a.layer[0];
    uint16_t *to = (uint16_t *)(shared_memory() + l.from);
    int groups = l.k_tiles * 4; /* of 8 elements */
    for (int i = threadIdx.x; i < UM_CHAIN_ROWS * groups; i += blockDim.x) {
        int r = i / groups, col = 8 * (i % groups);
        int64_t row = row0 + r;
        float x[8] = {0, 0, 0, 0, 0, 0, 0, 0};
        if (row < a.rows && col < a.x.c) {
            load_some(a.x, source_row(a.index, row), col, a.x.c - col, x);
            if (a.picked.data)
                store_some(a.picked, row, col, x);
            if (a.plus.data)
                add_some(a.plus, row, col, x);
        }
        put<H>(to + r * l.ld_from + col, x);
    }
}

DEVICE float inverse_sigmoid(float x)
{
    x = x < 0 ? 0 : x > 1 ? 1 : x;
    return logf((x > 1e-5f ? x : 1e-5f) / (1 - x > 1e-5f ? 1 - x : 1e-5f));
}

/* What the end needs, into shared memory while the first weights arrive: under the last layer's
 * floats what is added to them (`add`, and the logit of REFINE's base), behind them BOX's project
 * and base. */
DEVICE void prepare(const um_chain_rows_args &a, int64_t row0)
{
    const um_rows_layer &l = a.layer[a.layers - 1];
    float *y = (float *)(shared_memory() + l.to), *table = (float *)(shared_memory() + a.table);
    int c = a.out.c, bins = c / 4, groups = (c + 7) / 8;
    if (a.add.data)
        ROLL for (int i = threadIdx.x; i < UM_CHAIN_ROWS * groups; i += blockDim.x)
        {
            int r = i / groups, col = 8 * (i % groups);
            float x[8] = {0, 0, 0, 0, 0, 0, 0, 0};
            if (row0 + r < a.rows)
                load_some(a.add, row0 + r, col, a.add.c - col, x);
            put(y + r * l.ld + col, x);
        }
    if (a.add.data && a.finish == REFINE)
        sync();
    if (a.finish == REFINE)
        ROLL for (int i = threadIdx.x; i < UM_CHAIN_ROWS * c; i += blockDim.x)
        {
            int r = i / c, col = i % c;
            float x = 0, *at = y + r * l.ld + col;
            if (row0 + r < a.rows)
                x = load(a.base, source_row(a.index, row0 + r), col);
            if (a.inverse)
                x = inverse_sigmoid(x);
            *at = a.add.data ? *at + x : x;
        }
    if (a.finish == BOX)
        ROLL for (int i = threadIdx.x; i < 4 * UM_CHAIN_ROWS + bins; i += blockDim.x)
        {
            int r = i / 4, bin = i - 4 * UM_CHAIN_ROWS;
            float x = 0;
            if (bin >= 0)
                x = load(a.project, bin, 0);
            else if (row0 + r < a.rows)
                x = load(a.base, row0 + r, i % 4);
            table[i] = x;
        }
}

/* Mean distance of one side: expectation of `project` under softmax(logit). */
DEVICE float expectation(const float *logit, const float *project, int bins)
{
    int lane = threadIdx.x & 31;
    float top = -INFINITY, sum = 0, mean = 0;
    ROLL for (int n = lane; n < bins; n += 32)
        top = fmaxf(top, logit[n]);
    top = warp_max(top);
    ROLL for (int n = lane; n < bins; n += 32)
    {
        float e = expf(logit[n] - top);
        sum += e;
        mean += e * project[n];
    }
    return warp_sum(mean) / warp_sum(sum);
}

/* um_integral() of row r of the block, by one warp: lane 0..3 has the edge of one side. */
DEVICE void integrate(const um_chain_rows_args &a, const float *corners, int64_t row, int r)
{
    const float *table = (const float *)(shared_memory() + a.table), *ref = table + 4 * r;
    int bins = a.out.c / 4, lane = threadIdx.x & 31;
    float far = 0;
    ROLL for (int side = 0; side < 4; side++)
    {
        float v = expectation(corners + bins * side, table + 4 * UM_CHAIN_ROWS, bins);
        if (lane == side)
            far = v;
    }
    far = (0.5f * a.reg_scale + far) * (ref[2 + (lane & 1)] / a.reg_scale);
    float edge = ref[lane & 1] + (lane < 2 ? -far : far), other = shfl_xor(edge, 2);
    if (lane < 2)
        store(a.box, row, lane, (edge + other) / 2);
    else if (lane < 4)
        store(a.box, row, lane, edge - other);
}

/* What follows the last layer, on row r of the block, by one warp. */
DEVICE void finish(const um_chain_rows_args &a, int64_t row, int r)
{
    const um_rows_layer &l = a.layer[a.layers - 1];
    float *y = (float *)(shared_memory() + l.to) + r * l.ld, x[8];
    int lane = threadIdx.x & 31;
    if (a.finish == REFINE) {
        ROLL for (int i = lane; i < a.out.c; i += 32)
            y[i] = activate(UM_ACT_SIGMOID, 0, y[i], true);
        sync_warp();
    }
    ROLL for (int col = 8 * lane; col < a.out.c; col += 8 * 32)
    {
        get(y + col, x);
        store_some(a.out, row, col, x);
    }
    if (a.finish == BOX)
        integrate(a, y, row, r);
}

template <class H> DEVICE void chain(const um_chain_rows_args &a)
{
    int64_t row0 = (int64_t)blockIdx.x * UM_CHAIN_ROWS;
    bool onto = a.add.data || a.finish == REFINE;
    stream<H, UM_CHAIN_WARPS, 1, UM_CHAIN_TILES, 4> s;
    start(s, a.layer);
    gather<H>(a, row0);
    prepare(a, row0);
    while (s.at.layer < a.layers) {
        const um_rows_layer &l = a.layer[s.at.layer];
        if (s.at.pass == 0 && s.at.k == 0)
            sync(); /* the layer's input is complete, and nobody reads what it overwrites */
        if (round(s, a.layer, a.layers)) {
            activate_all<4 * UM_CHAIN_TILES>(l.act, a.limit, s.acc, false);
            keep(s, l, s.at.layer == a.layers - 1, onto);
        }
        turn(s, a.layer, a.layers);
    }
    sync();
    ROLL for (int r = threadIdx.x >> 5; r < UM_CHAIN_ROWS && row0 + r < a.rows;
              r += UM_CHAIN_WARPS)
        finish(a, row0 + r, r);
}

KERNEL(um_chain_f16, um_chain_rows_args, a, 32 * UM_CHAIN_WARPS)
{
    chain<F16>(a);
}

KERNEL(um_chain_bf16, um_chain_rows_args, a, 32 * UM_CHAIN_WARPS)
{
    chain<BF16>(a);
}

/* ---- UM_OP_TOKENS ---- */

/* x + plus and, if a layer reads that, x, as halves; rows beyond the last are zeros. */
template <class H, int M> DEVICE void place(const um_tokens_rows_args &a)
{
    const um_rows_layer &l = a.layer[0];
    uint16_t *placed = (uint16_t *)(shared_memory() + l.from);
    uint16_t *alone = (uint16_t *)(shared_memory() + a.layer[1].from);
    int groups = l.k_tiles * 4;
    for (int i = threadIdx.x; i < 16 * M * groups; i += blockDim.x) {
        int r = i / groups, col = 8 * (i % groups);
        bool exists = r < a.rows && col < a.x.c;
        float x[8] = {0, 0, 0, 0, 0, 0, 0, 0};
        if (exists)
            load_some(a.x, r, col, a.x.c - col, x);
        if (alone != placed)
            put<H>(alone + r * l.ld_from + col, x);
        if (a.plus.data && exists)
            add_some(a.plus, r, col, x);
        put<H>(placed + r * l.ld_from + col, x);
    }
}

/* d elements of two rows of halves. */
template <class H> DEVICE float dot(const uint16_t *p, const uint16_t *q, int d)
{
    float sum = 0;
    int i = 0;
    if (d % 8 == 0) /* then rows and heads start at multiples of 16 bytes */
        for (; i < d; i += 8) {
            um_words u = *(const um_words *)(p + i), v = *(const um_words *)(q + i);
            UNROLL
            for (int k = 0; k < 4; k++) {
                sum += H::load((uint16_t)u.w[k]) * H::load((uint16_t)v.w[k]);
                sum += H::load((uint16_t)(u.w[k] >> 16)) * H::load((uint16_t)(v.w[k] >> 16));
            }
        }
    ROLL for (; i < d; i++)
        sum += H::load(p[i]) * H::load(q[i]);
    return sum;
}

/* softmax(scale q k^T) v of every head and query into the rows that wo reads. A query has `group`
 * lanes: lane j weighs key j, then every lane sums its own channels. */
template <class H, int WARPS> DEVICE void attend(const um_tokens_rows_args &a)
{
    const um_rows_layer &in = a.layer[0], &out = a.layer[a.layers - 1];
    const uint16_t *qkv = (const uint16_t *)(shared_memory() + in.to);
    uint16_t *to = (uint16_t *)(shared_memory() + out.from);
    int c = a.x.c, d = c / a.heads, group = a.group, items = a.heads * a.rows;
    int lane = threadIdx.x & 31, j = lane & (group - 1), per_warp = 32 / group;
    for (int first = (threadIdx.x >> 5) * per_warp; first < items; first += WARPS * per_warp) {
        int item = first + lane / group;
        bool exists = item < items;
        int query = exists ? item % a.rows : 0, col = exists ? item / a.rows * d : 0;
        bool key = exists && j < a.rows;
        float score = -INFINITY, top, e = 0, sum;
        if (key)
            score = a.scale * dot<H>(qkv + query * in.ld + col, qkv + j * in.ld + c + col, d);
        top = score;
        for (int m = group / 2; m; m >>= 1)
            top = fmaxf(top, shfl_xor(top, m));
        if (key)
            e = expf(score - top);
        sum = e;
        for (int m = group / 2; m; m >>= 1)
            sum += shfl_xor(sum, m);
        for (int i0 = 0; i0 < d; i0 += group) {
            int i = i0 + j;
            float v = 0;
            for (int k = 0; k < a.rows; k++) {
                float share = shfl(e, (lane & ~(group - 1)) + k);
                if (i < d)
                    v += share * H::load(qkv[k * in.ld + 2 * c + col + i]);
            }
            if (exists && i < d)
                to[query * out.ld_from + col + i] = (uint16_t)H::pack(v / sum, 0);
        }
    }
}

/* out = LN(y [+ x]) of one row, by one warp; a lane has eight neighbouring channels. */
DEVICE void normalise(const um_tokens_rows_args &a, const float *y, int row)
{
    int col = 8 * (threadIdx.x & 31), c = a.out.c;
    float v[8] = {0, 0, 0, 0, 0, 0, 0, 0}, gamma[8], beta[8], mean = 0, var = 0;
    if (col < c) {
        load_some(a.gamma, 0, col, a.gamma.c - col, gamma);
        load_some(a.beta, 0, col, a.beta.c - col, beta);
        get(y + col, v);
        if (a.residual)
            add_some(a.x, row, col, v);
    }
    UNROLL
    for (int k = 0; k < 8; k++)
        mean += col + k < c ? v[k] : 0;
    mean = warp_sum(mean) / (float)c;
    UNROLL
    for (int k = 0; k < 8; k++) {
        v[k] = col + k < c ? v[k] - mean : 0;
        var += v[k] * v[k];
    }
    float scale = 1 / sqrtf(warp_sum(var) / (float)c + a.eps);
    if (col >= c)
        return;
    UNROLL
    for (int k = 0; k < 8; k++)
        v[k] = v[k] * scale * gamma[k] + beta[k];
    store_some(a.out, row, col, v);
}

template <class H, int M> DEVICE void tokens(const um_tokens_rows_args &a)
{
    stream<H, UM_TOKENS_WARPS, M, UM_TOKENS_TILES, 4> s;
    const um_rows_layer &out = a.layer[a.layers - 1];
    start(s, a.layer);
    place<H, M>(a);
    sync();
    while (s.at.layer < a.layers) {
        bool last = s.at.layer == a.layers - 1;
        if (last && s.at.pass == 0 && s.at.k == 0) {
            sync();
            attend<H, UM_TOKENS_WARPS>(a);
            sync();
        }
        if (round(s, a.layer, a.layers))
            keep(s, a.layer[s.at.layer], last, false);
        turn(s, a.layer, a.layers);
    }
    sync();
    ROLL for (int r = threadIdx.x >> 5; r < a.rows; r += UM_TOKENS_WARPS)
        normalise(a, (const float *)(shared_memory() + out.to) + r * out.ld, r);
}

KERNEL(um_tokens16_f16, um_tokens_rows_args, a, 32 * UM_TOKENS_WARPS)
{
    tokens<F16, 1>(a);
}

KERNEL(um_tokens16_bf16, um_tokens_rows_args, a, 32 * UM_TOKENS_WARPS)
{
    tokens<BF16, 1>(a);
}

KERNEL(um_tokens32_f16, um_tokens_rows_args, a, 32 * UM_TOKENS_WARPS)
{
    tokens<F16, 2>(a);
}

KERNEL(um_tokens32_bf16, um_tokens_rows_args, a, 32 * UM_TOKENS_WARPS)
{
    tokens<BF16, 2>(a);
}
