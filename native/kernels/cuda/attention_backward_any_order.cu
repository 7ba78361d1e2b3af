// Backward attention with five products instead of seven, for chips with mma.sync (sm_80 and later) and enough shared memory: a
// thread block owns keys, sums dk and dv in registers and adds every visit's share of dq to a float32 copy in global memory.
// The order of these additions is not fixed.
#include "attention.h"
#include "device.h"
#include "key_work.cuh"
#include "launch.h"
#include "shared_tile.cuh"
#include "softmax.cuh"

namespace trainer::cuda {

namespace {

struct Parameters {
    Attention attention;
    Matrix q, k, v, dout, dk, dv;
    const float* lse;
    RowFloats delta;
    float* dq_NTH;
    Plan plan;
    Tiles tiles;
};

constexpr int warps = 8, threads = 32 * warps, stages = 2;

// Two warps share 32 keys. Each computes the scores of half the queries, transposed, keys by queries, and hands p and ds to the
// other through shared memory; each then sums half the columns of dk and dv. dq is divided among all warps. With two tiles of ds
// it is computed one visit late, so that only pairs wait for each other within a visit, and half the warps do it before their
// scores, the others after all else: one half's products run under the other's softmax.
template <int Dim, int DsTiles>
struct Sizes {
    static constexpr int keys = 16 * warps, rows = Dim == 64 ? 128 : 64, half_rows = rows / 2, half_columns = Dim / 2;
    static constexpr int dq_rows = Dim == 96 ? 16 : 32, dq_groups = warps / (rows / dq_rows), dq_columns = Dim / dq_groups;  // of a warp
    static constexpr int k_bytes = tile_bytes(keys, Dim), q_bytes = tile_bytes(rows, Dim), p_bytes = tile_bytes(keys, rows);
    static constexpr int row_bytes = rows * 4;
    static constexpr int k = 0, v = k_bytes, q = 2 * k_bytes, dout = q + stages * q_bytes, p = dout + stages * q_bytes, ds = p + p_bytes;
    static constexpr int lse = ds + DsTiles * p_bytes, delta = lse + stages * row_bytes, work = delta + stages * row_bytes;
    static constexpr int bytes = work + sizeof(KeyWork);
    static_assert(dq_columns % 16 == 0 && half_columns % 16 == 0, "operands come in blocks of 16 columns");
};

// d = a * b over Dim columns of a tile of 32 rows of a and half the rows of b, by the lanes' addresses.
template <class T, int Dim, int RowsA, int RowsB, int Blocks>
__device__ void multiply(float (&d)[2][Blocks][4], uint32_t a_at, uint32_t b_at) {
#pragma unroll
    for (int step = 0; step < Dim / 16; ++step) {
        uint32_t a_part[2][4];
        load_a<RowsA>(a_part[0], a_at, 0, step);
        load_a<RowsA>(a_part[1], a_at, 1, step);
#pragma unroll
        for (int n = 0; n < Blocks / 2; ++n) {
            uint32_t b_part[4];
            load_b<RowsB>(b_part, b_at, n, step);
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                mma<T>(d[i][2 * n], a_part[i], b_part[0], b_part[1]);
                mma<T>(d[i][2 * n + 1], a_part[i], b_part[2], b_part[3]);
            }
        }
    }
}

// The warp's part of dq, of the ds tile of that visit.
template <class T, int Dim, int DsTiles>
__device__ void add_dq(const Parameters& p, const KeyWork& w, Visit visit, uint32_t ds_tile, uint32_t k_tile, int warp, int lane) {
    using Size = Sizes<Dim, DsTiles>;
    constexpr int row_steps = Size::dq_rows / 16;
    const int first_row = warp / Size::dq_groups * Size::dq_rows, first_column = warp % Size::dq_groups * Size::dq_columns;
    const uint32_t ds_lane = b_lane(ds_tile, lane), k_lane = a_lane(k_tile, lane);
    float dq[row_steps][Size::dq_columns / 8][4] = {};
#pragma unroll
    for (int step = 0; step < Size::keys / 16; ++step) {
        uint32_t ds_part[row_steps][4];
#pragma unroll
        for (int i = 0; i < row_steps; ++i) load_a_transposed<Size::keys>(ds_part[i], ds_lane, step, first_row / 16 + i);
#pragma unroll
        for (int n = 0; n < Size::dq_columns / 16; ++n) {
            uint32_t k_part[4];
            load_b_transposed<Size::keys>(k_part, k_lane, step, first_column / 16 + n);
#pragma unroll
            for (int i = 0; i < row_steps; ++i) {
                mma<T>(dq[i][2 * n], ds_part[i], k_part[0], k_part[1]);
                mma<T>(dq[i][2 * n + 1], ds_part[i], k_part[2], k_part[3]);
            }
        }
    }
    // What a lane holds of 16 columns, 2j, 2j + 1, 2j + 8 and 2j + 9, lies side by side, so that it is added at once and four lanes
    // fill 64 bytes. Where head_dim ends with half of 16 columns, these lie in order.
    const Attention& a = p.attention;
    const int row = visit.block * Size::rows + first_row + lane / 4, j = lane % 4;
    float* to = p.dq_NTH + (visit.head * a.q_tokens + w.sequence.q_begin + row) * a.head_dim + first_column;
#pragma unroll
    for (int i = 0; i < row_steps; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            if (row + 16 * i + 8 * half >= w.sequence.q_length) continue;
            float* to_row = to + (16 * i + 8 * half) * a.head_dim;
#pragma unroll
            for (int n = 0; n < Size::dq_columns / 8; n += 2) {
                const float(&left)[4] = dq[i][n], (&right)[4] = dq[i][n + 1];
                const int columns = a.head_dim - first_column - 8 * n;
                if (columns >= 16)
                    add_4(to_row + 8 * n + 4 * j, left[2 * half], left[2 * half + 1], right[2 * half], right[2 * half + 1]);
                else if (columns > 0)
                    add_2(to_row + 8 * n + 2 * j, left[2 * half], left[2 * half + 1]);
            }
        }
}

template <class T, int Dim, int DsTiles>
__global__ void __launch_bounds__(threads, 1) backward_any_order(const __grid_constant__ Parameters p) {
    using Size = Sizes<Dim, DsTiles>;
    constexpr int rows = Size::rows, keys = Size::keys, half_rows = Size::half_rows, half_columns = Size::half_columns;
    extern __shared__ __align__(1024) unsigned char shared[];
    const uint32_t base = shared_address(shared);
    const Attention& a = p.attention;
    // In registers, beside the accumulators, there is no room for it.
    KeyWork& w = *reinterpret_cast<KeyWork*>(shared + Size::work);
    if (threadIdx.x == 0) w = key_work<keys, rows, true>(a, p.tiles, p.plan, {static_cast<int>(blockIdx.x), 0, 1}, blockIdx.x);
    __syncthreads();
    const Sequence& s = w.sequence;
    const int visits = w.visits();
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, key_row = warp / 2 * 32, half = warp % 2;

    const auto copy_visit = [&](int visit) {
        const auto [head, block] = w.visit(visit);
        const int row = block * rows, stage = visit % stages, thread = thread_index();
        const int64_t token = s.q_begin + row;
        copy_tile<rows, Dim, threads>(base + Size::q + stage * Size::q_bytes, p.q.at(token, head), p.q.token_stride, s.q_length - row,
                                      a.head_dim, thread);
        copy_tile<rows, Dim, threads>(base + Size::dout + stage * Size::q_bytes, p.dout.at(token, head), p.dout.token_stride,
                                      s.q_length - row, a.head_dim, thread);
        if (const int i = thread % rows; thread < 2 * rows) {
            const bool valid = row + i < s.q_length;
            const int64_t from = valid ? token + i : s.q_begin;
            copy_4(base + (thread < rows ? Size::lse : Size::delta) + stage * Size::row_bytes + 4 * i,
                   thread < rows ? p.lse + head * a.q_tokens + from : &p.delta.at(from, head), valid);
        }
        close_copy_group();
    };
    copy_tile<keys, Dim, threads>(base + Size::k, p.k.at(s.k_begin + w.first_key, w.kv_head), p.k.token_stride, s.k_length - w.first_key,
                                  a.head_dim, thread_index());
    copy_tile<keys, Dim, threads>(base + Size::v, p.v.at(s.k_begin + w.first_key, w.kv_head), p.v.token_stride, s.k_length - w.first_key,
                                  a.head_dim, thread_index());
    close_copy_group();
    if (visits > 0) copy_visit(0);

    const auto ds_tile = [&](int visit) { return base + Size::ds + visit % DsTiles * Size::p_bytes; };
    float dk[2][half_columns / 8][4] = {}, dv[2][half_columns / 8][4] = {};
    for (int visit = 0; visit < visits; ++visit) {
        wait_copy_groups<0>();
        __syncthreads();  // this visit is here, and every warp is done with the last one
        if (visit + 1 < visits) copy_visit(visit + 1);
        if (DsTiles == 2 && visit > 0 && warp < warps / 2)
            add_dq<T, Dim, DsTiles>(p, w, w.visit(visit - 1), ds_tile(visit - 1), base + Size::k, warp, lane);
        const int stage = visit % stages, block = w.visit(visit).block, first_row = block * rows + half * half_rows;
        const uint32_t q_tile = base + Size::q + stage * Size::q_bytes;

        float scores[2][half_rows / 8][4] = {}, dp[2][half_rows / 8][4] = {};
        const uint32_t k_lane = a_lane(base + Size::k + key_row * 128, lane), q_b_lane = b_lane(q_tile + half * half_rows * 128, lane);
        multiply<T, Dim, keys, rows>(scores, k_lane, q_b_lane);
        multiply<T, Dim, keys, rows>(dp, k_lane + Size::v, q_b_lane + (Size::dout - Size::q));

        if (w.masked(block)) {
            const auto seeing = [&](int key) { return key < s.k_length ? seeing_queries(a, s, key, key) : Visible{0, 0}; };
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const int key = w.first_key + key_row + 16 * i + lane / 4;
                mask_scores(scores[i], {seeing(key), seeing(key + 8)}, first_row, lane);
            }
        }
        const uint32_t row_values = base + stage * Size::row_bytes + (half * half_rows + 2 * (lane % 4)) * 4;
#pragma unroll
        for (int n = 0; n < half_rows / 8; ++n) {
            const float2 lse = load_shared_float2(row_values + Size::lse + n * 32);
            const float2 delta = load_shared_float2(row_values + Size::delta + n * 32);
            const float minus_lse[2] = {minus_lse_log2(lse.x), minus_lse_log2(lse.y)};
#pragma unroll
            for (int i = 0; i < 2; ++i)
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    scores[i][n][e] = exp2_fast(fmaf(scores[i][n][e], a.scale_log2, minus_lse[e % 2]));
                    dp[i][n][e] = scores[i][n][e] * (dp[i][n][e] - (e % 2 ? delta.y : delta.x));
                }
        }
        const uint32_t p_tile = base + Size::p + key_row * 128, p_to_ds = ds_tile(visit) - base - Size::p;
        const uint32_t p_to = step_address<keys>(accumulator_lane(p_tile, lane), 0, half * (half_rows / 16));
#pragma unroll
        for (int step = 0; step < half_rows / 16; ++step)
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                uint32_t part[4];
                pack_a<T>(part, scores[i], step);
                store_a<keys>(p_to, part, i, step);
                pack_a<T>(part, dp[i], step);
                store_a<keys>(p_to + p_to_ds, part, i, step);
            }
        if (DsTiles == 2) sync_threads(1 + warp / 2, 64);  // the pair's p and ds are whole
        else __syncthreads();                              // everybody's

        const uint32_t p_lane = a_lane(p_tile, lane), q_lane = a_lane(q_tile, lane);
#pragma unroll
        for (int step = 0; step < rows / 16; ++step) {
            uint32_t p_part[2][4], ds_part[2][4];
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                load_a<keys>(p_part[i], p_lane, i, step);
                load_a<keys>(ds_part[i], p_lane + p_to_ds, i, step);
            }
#pragma unroll
            for (int n = 0; n < half_columns / 16; ++n) {
                uint32_t q_part[4], dout_part[4];
                load_b_transposed<rows>(dout_part, q_lane + (Size::dout - Size::q), step, half * (half_columns / 16) + n);
                load_b_transposed<rows>(q_part, q_lane, step, half * (half_columns / 16) + n);
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    mma<T>(dv[i][2 * n], p_part[i], dout_part[0], dout_part[1]);
                    mma<T>(dv[i][2 * n + 1], p_part[i], dout_part[2], dout_part[3]);
                    mma<T>(dk[i][2 * n], ds_part[i], q_part[0], q_part[1]);
                    mma<T>(dk[i][2 * n + 1], ds_part[i], q_part[2], q_part[3]);
                }
            }
        }
        if (DsTiles == 1)
            add_dq<T, Dim, DsTiles>(p, w, w.visit(visit), ds_tile(visit), base + Size::k, warp, lane);
        else if (visit > 0 && warp >= warps / 2)
            add_dq<T, Dim, DsTiles>(p, w, w.visit(visit - 1), ds_tile(visit - 1), base + Size::k, warp, lane);
    }

    wait_copy_groups<0>();
    __syncthreads();  // also when nobody sees these keys: their copy must not land on the output below
    if (DsTiles == 2) {
        if (visits > 0) add_dq<T, Dim, DsTiles>(p, w, w.visit(visits - 1), ds_tile(visits - 1), base + Size::k, warp, lane);
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        store_rows<T, keys>(base + Size::k, dk[i], {a.scale, a.scale}, key_row + 16 * i, lane, half * (half_columns / 8));
        store_rows<T, keys>(base + Size::v, dv[i], {1.f, 1.f}, key_row + 16 * i, lane, half * (half_columns / 8));
    }
    __syncthreads();
    const int64_t token = s.k_begin + w.first_key;
    const int valid_rows = s.k_length - w.first_key;
    write_rows<keys, Dim, 16>(base + Size::k, p.dk.at(token, w.kv_head), p.dk.token_stride, 16 * warp, valid_rows, a.head_dim, lane);
    write_rows<keys, Dim, 16>(base + Size::v, p.dv.at(token, w.kv_head), p.dv.token_stride, 16 * warp, valid_rows, a.head_dim, lane);
}

template <class T, int Dim, int DsTiles>
void start(const tn_attention_backward_args& args, const RowFloats& delta, float* dq_NTH, cudaStream_t stream) {
    using Size = Sizes<Dim, DsTiles>;
    const tn_attention_shape& s = args.shape;
    Parameters p{attention(s), matrix(args.q_TNH), matrix(args.k_TMH), matrix(args.v_TMH), matrix(args.dout_TNH), matrix(args.dk_TMH),
                 matrix(args.dv_TMH), args.lse_NT, delta, dq_NTH, {}, {}};
    const int multiprocessors = current_device().multiprocessors;
    for (Tiles& tiles : cut_into_tiles(s, Axis::keys, {Size::keys})) {
        p.plan = key_plan<Size::keys, Size::rows, true>(s, tiles, 8 * s.head_dim, multiprocessors, {1});
        p.tiles = tiles;
        launch(backward_any_order<T, Dim, DsTiles>, "attention backward in any order", int64_t{tiles.count} * s.kv_heads, threads,
               Size::bytes, stream, p);
    }
}

template <int Dim>
void start(const tn_attention_backward_args& args, const RowFloats& delta, float* dq_NTH, int32_t shared_bytes, cudaStream_t stream) {
    const bool late = shared_bytes >= Sizes<Dim, 2>::bytes;
    if (args.shape.dtype == TN_BFLOAT16) (late ? start<Bf16, Dim, 2> : start<Bf16, Dim, 1>)(args, delta, dq_NTH, stream);
    else (late ? start<Fp16, Dim, 2> : start<Fp16, Dim, 1>)(args, delta, dq_NTH, stream);
}

}  // namespace

bool portable_attention_backward_any_order_fits(int32_t head_dim, int32_t shared_bytes) {
    return shared_bytes >= (head_dim <= 64 ? Sizes<64, 1>::bytes : Sizes<128, 1>::bytes);
}

void portable_attention_backward_any_order(const tn_attention_backward_args& args, const RowFloats& delta, float* dq_NTH,
                                           int32_t shared_bytes, cudaStream_t stream) {
    if (args.shape.head_dim <= 64) start<64>(args, delta, dq_NTH, shared_bytes, stream);
    else if (args.shape.head_dim <= 96) start<96>(args, delta, dq_NTH, shared_bytes, stream);
    else start<128>(args, delta, dq_NTH, shared_bytes, stream);
}

}  // namespace trainer::cuda
