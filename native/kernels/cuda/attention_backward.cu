// Backward attention for every chip with mma.sync (sm_80 and later), deterministic: scores are computed twice, once by the
// owners of the keys for dk and dv, once by the owners of the queries for dq, so nothing is accumulated across thread blocks.
#include "attention.h"
#include "launch.h"
#include "shared_tile.cuh"
#include "softmax.cuh"

namespace trainer::cuda {

namespace {

struct Parameters {
    Attention attention;
    Matrix q, k, v, dout, dq, dk, dv;
    const float *lse, *delta;
    Tiles tiles;
};

constexpr int warps = 4, threads = 32 * warps, stages = 2;

// dk and dv: a thread block owns 64 keys of one key head, a warp 16 of them, and visits the queries of all its query heads.
// Scores are held transposed, keys by queries, so that they are operand A of both products without leaving the registers.
template <int Dim>
struct KeySizes {
    static constexpr int rows = 64, keys = 64, tile = tile_bytes(rows, Dim), row_floats = rows * 4;
    static constexpr int k = 0, v = tile, q = 2 * tile, dout = q + stages * tile, lse = dout + stages * tile;
    static constexpr int delta = lse + stages * row_floats, bytes = delta + stages * row_floats;
};

template <class T, int Dim>
__global__ void __launch_bounds__(threads, 2) backward_keys(const __grid_constant__ Parameters p) {
    using Size = KeySizes<Dim>;
    constexpr int rows = Size::rows, keys = Size::keys;
    extern __shared__ __align__(1024) unsigned char shared[];
    const uint32_t base = shared_address(shared), k_tile = base + Size::k, v_tile = base + Size::v;
    const Attention& a = p.attention;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warp_row = 16 * warp;
    const int kv_head = blockIdx.x % a.kv_heads, group = a.q_heads / a.kv_heads;
    const Tile tile = find_tile(p.tiles, Axis::keys, blockIdx.x / a.kv_heads);
    const Sequence& s = tile.sequence;
    const int first_key = (tile.levels - 1 - tile.level) * keys;  // under a causal mask the first keys have the most work
    const Visible seeing = seeing_queries(a, s, first_key, min(first_key + keys, s.k_length) - 1);
    const int begin_block = seeing.from / rows, blocks = seeing.from < seeing.end ? (seeing.end + rows - 1) / rows - begin_block : 0;
    const int visits = group * blocks;

    const auto copy_visit = [&](int visit) {
        const int head = kv_head * group + visit / blocks, row = (begin_block + visit % blocks) * rows, stage = visit % stages;
        const int64_t token = s.q_begin + row;
        copy_tile<rows, Dim, threads>(base + Size::q + stage * Size::tile, p.q.at(token, head), p.q.token_stride, s.q_length - row,
                a.head_dim, thread_index());
        copy_tile<rows, Dim, threads>(base + Size::dout + stage * Size::tile, p.dout.at(token, head), p.dout.token_stride, s.q_length - row,
                                      a.head_dim, thread_index());
        const int i = threadIdx.x % rows;
        const bool valid = row + i < s.q_length;
        const float* from = (threadIdx.x < rows ? p.lse : p.delta) + head * a.q_tokens + token;
        copy_4(base + (threadIdx.x < rows ? Size::lse : Size::delta) + stage * Size::row_floats + 4 * i, valid ? from + i : from, valid);
        close_copy_group();
    };
    copy_tile<keys, Dim, threads>(k_tile, p.k.at(s.k_begin + first_key, kv_head), p.k.token_stride, s.k_length - first_key,
            a.head_dim, thread_index());
    copy_tile<keys, Dim, threads>(v_tile, p.v.at(s.k_begin + first_key, kv_head), p.v.token_stride, s.k_length - first_key,
            a.head_dim, thread_index());
    close_copy_group();
    if (visits > 0) copy_visit(0);

    const uint32_t k_lane = a_lane(k_tile + warp_row * 128, lane);
    float dk[Dim / 8][4] = {}, dv[Dim / 8][4] = {};
    for (int visit = 0; visit < visits; ++visit) {
        wait_copy_groups<0>();
        __syncthreads();  // this visit is here, and every warp is done with the last one
        if (visit + 1 < visits) copy_visit(visit + 1);
        const int stage = visit % stages, first_row = (begin_block + visit % blocks) * rows;
        const uint32_t q_tile = base + Size::q + stage * Size::tile, q_lane = a_lane(q_tile, lane), q_b_lane = b_lane(q_tile, lane);

        float scores[rows / 8][4] = {}, dp[rows / 8][4] = {};
#pragma unroll
        for (int step = 0; step < Dim / 16; ++step) {
            uint32_t k_part[4], v_part[4];
            load_a<keys>(k_part, k_lane, 0, step);
            load_a<keys>(v_part, k_lane + Size::v, 0, step);
#pragma unroll
            for (int n = 0; n < rows / 16; ++n) {
                uint32_t part[4];
                load_b<rows>(part, q_b_lane, n, step);
                mma<T>(scores[2 * n], k_part, part[0], part[1]);
                mma<T>(scores[2 * n + 1], k_part, part[2], part[3]);
                load_b<rows>(part, q_b_lane + (Size::dout - Size::q), n, step);
                mma<T>(dp[2 * n], v_part, part[0], part[1]);
                mma<T>(dp[2 * n + 1], v_part, part[2], part[3]);
            }
        }

        const Visible first = visible_keys(a, s, first_row), last = visible_keys(a, s, first_row + rows - 1);
        if (first_key < last.from || first_key + keys > first.end) {
            const int key = first_key + warp_row + lane / 4;
            mask_scores(scores, {seeing_queries(a, s, key, key), seeing_queries(a, s, key + 8, key + 8)}, first_row, lane);
        }
#pragma unroll
        for (int n = 0; n < rows / 8; ++n) {
            const uint32_t column = stage * Size::row_floats + (8 * n + 2 * (lane % 4)) * 4;
            const float2 lse = load_shared_float2(base + Size::lse + column), delta = load_shared_float2(base + Size::delta + column);
            const float minus_lse[2] = {minus_lse_log2(lse.x), minus_lse_log2(lse.y)};
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                scores[n][e] = exp2_fast(fmaf(scores[n][e], a.scale_log2, minus_lse[e % 2]));
                dp[n][e] = scores[n][e] * (dp[n][e] - (e % 2 ? delta.y : delta.x));
            }
        }

#pragma unroll
        for (int step = 0; step < rows / 16; ++step) {
            uint32_t p_part[4], ds_part[4];
            pack_a<T>(p_part, scores, step);
            pack_a<T>(ds_part, dp, step);
#pragma unroll
            for (int n = 0; n < Dim / 16; ++n) {
                uint32_t part[4];
                load_b_transposed<rows>(part, q_lane + (Size::dout - Size::q), step, n);
                mma<T>(dv[2 * n], p_part, part[0], part[1]);
                mma<T>(dv[2 * n + 1], p_part, part[2], part[3]);
                load_b_transposed<rows>(part, q_lane, step, n);
                mma<T>(dk[2 * n], ds_part, part[0], part[1]);
                mma<T>(dk[2 * n + 1], ds_part, part[2], part[3]);
            }
        }
    }

    wait_copy_groups<0>();
    __syncthreads();  // also when nobody sees these keys: their copy must not land on the output below
    store_rows<T, keys>(k_tile, dk, {a.scale, a.scale}, warp_row, lane);
    store_rows<T, keys>(v_tile, dv, {1.f, 1.f}, warp_row, lane);
    __syncwarp();
    const int valid_rows = s.k_length - first_key;
    write_rows<keys, Dim, 16>(k_tile, p.dk.at(s.k_begin + first_key, kv_head), p.dk.token_stride, warp_row, valid_rows, a.head_dim, lane);
    write_rows<keys, Dim, 16>(v_tile, p.dv.at(s.k_begin + first_key, kv_head), p.dv.token_stride, warp_row, valid_rows, a.head_dim, lane);
}

// dq: a thread block owns 128 queries, a warp 32 of them, and visits the keys that they see.
template <int Dim>
struct QuerySizes {
    static constexpr int rows = 128, keys = 32, q_bytes = tile_bytes(rows, Dim), tile = tile_bytes(keys, Dim);
    static constexpr int q = 0, dout = q_bytes, k = 2 * q_bytes, v = k + stages * tile, bytes = v + stages * tile;
};

template <class T, int Dim>
__global__ void __launch_bounds__(threads, 2) backward_queries(const __grid_constant__ Parameters p) {
    using Size = QuerySizes<Dim>;
    constexpr int rows = Size::rows, keys = Size::keys, warp_rows = 32;
    extern __shared__ __align__(1024) unsigned char shared[];
    const uint32_t base = shared_address(shared), q_tile = base + Size::q, dout_tile = base + Size::dout;
    const Attention& a = p.attention;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warp_row = warp_rows * warp;
    const int head = blockIdx.x % a.q_heads, kv_head = head / (a.q_heads / a.kv_heads);
    const Tile tile = find_tile(p.tiles, Axis::queries, blockIdx.x / a.q_heads);
    const Sequence& s = tile.sequence;
    const int first_row = tile.level * rows, last_row = min(first_row + rows, s.q_length) - 1;
    const int first_key = visible_keys(a, s, first_row).from, end_key = visible_keys(a, s, last_row).end;
    const int begin_block = first_key / keys, end_block = first_key < end_key ? (end_key + keys - 1) / keys : begin_block;
    const int all_see_from = visible_keys(a, s, last_row).from, all_see_end = visible_keys(a, s, first_row).end;

    const auto copy_block = [&](int block) {
        const int stage = block % stages, key = block * keys;
        copy_tile<keys, Dim, threads>(base + Size::k + stage * Size::tile, p.k.at(s.k_begin + key, kv_head), p.k.token_stride,
                s.k_length - key, a.head_dim, thread_index());
        copy_tile<keys, Dim, threads>(base + Size::v + stage * Size::tile, p.v.at(s.k_begin + key, kv_head), p.v.token_stride,
                s.k_length - key, a.head_dim, thread_index());
        close_copy_group();
    };
    const int64_t token = s.q_begin + first_row;
    copy_tile<rows, Dim, threads>(q_tile, p.q.at(token, head), p.q.token_stride, s.q_length - first_row, a.head_dim, thread_index());
    copy_tile<rows, Dim, threads>(dout_tile, p.dout.at(token, head), p.dout.token_stride, s.q_length - first_row, a.head_dim,
            thread_index());
    close_copy_group();
    if (begin_block < end_block) copy_block(begin_block);

    const uint32_t q_lane = a_lane(q_tile + warp_row * 128, lane);
    float dq[2][Dim / 8][4] = {};
    float minus_lse[2][2], delta[2][2];
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int row = first_row + warp_row + 16 * i + 8 * half + lane / 4;
            const int64_t at = head * a.q_tokens + s.q_begin + row;
            const bool valid = row < s.q_length;
            minus_lse[i][half] = valid ? minus_lse_log2(p.lse[at]) : -INFINITY;
            delta[i][half] = valid ? p.delta[at] : 0;
        }

    for (int block = begin_block; block < end_block; ++block) {
        wait_copy_groups<0>();
        __syncthreads();  // this block is here, and every warp is done with the last one
        if (block + 1 < end_block) copy_block(block + 1);
        const int stage = block % stages;
        const uint32_t k_tile = base + Size::k + stage * Size::tile, k_lane = a_lane(k_tile, lane), k_b_lane = b_lane(k_tile, lane);

        float scores[2][keys / 8][4] = {}, dp[2][keys / 8][4] = {};
#pragma unroll
        for (int step = 0; step < Dim / 16; ++step) {
            uint32_t q_part[2][4], dout_part[2][4];
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                load_a<rows>(q_part[i], q_lane, i, step);
                load_a<rows>(dout_part[i], q_lane + Size::dout, i, step);
            }
#pragma unroll
            for (int n = 0; n < keys / 16; ++n) {
                uint32_t k_part[4], v_part[4];
                load_b<keys>(k_part, k_b_lane, n, step);
                load_b<keys>(v_part, k_b_lane + (Size::v - Size::k), n, step);
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    mma<T>(scores[i][2 * n], q_part[i], k_part[0], k_part[1]);
                    mma<T>(scores[i][2 * n + 1], q_part[i], k_part[2], k_part[3]);
                    mma<T>(dp[i][2 * n], dout_part[i], v_part[0], v_part[1]);
                    mma<T>(dp[i][2 * n + 1], dout_part[i], v_part[2], v_part[3]);
                }
            }
        }

        const bool masked = block * keys < all_see_from || (block + 1) * keys > all_see_end;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            if (masked) {
                const int row = first_row + warp_row + 16 * i + lane / 4;
                mask_scores(scores[i], {visible_keys(a, s, row), visible_keys(a, s, row + 8)}, block * keys, lane);
            }
#pragma unroll
            for (int n = 0; n < keys / 8; ++n)
#pragma unroll
                for (int e = 0; e < 4; ++e)
                    dp[i][n][e] = exp2_fast(fmaf(scores[i][n][e], a.scale_log2, minus_lse[i][e / 2])) * (dp[i][n][e] - delta[i][e / 2]);
        }

#pragma unroll
        for (int step = 0; step < keys / 16; ++step) {
            uint32_t ds_part[2][4];
            pack_a<T>(ds_part[0], dp[0], step);
            pack_a<T>(ds_part[1], dp[1], step);
#pragma unroll
            for (int n = 0; n < Dim / 16; ++n) {
                uint32_t k_part[4];
                load_b_transposed<keys>(k_part, k_lane, step, n);
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    mma<T>(dq[i][2 * n], ds_part[i], k_part[0], k_part[1]);
                    mma<T>(dq[i][2 * n + 1], ds_part[i], k_part[2], k_part[3]);
                }
            }
        }
    }

    wait_copy_groups<0>();
    __syncthreads();  // also when these queries see nothing: their copy must not land on the output below
#pragma unroll
    for (int i = 0; i < 2; ++i) store_rows<T, rows>(q_tile, dq[i], {a.scale, a.scale}, warp_row + 16 * i, lane);
    __syncwarp();
    write_rows<rows, Dim, warp_rows>(q_tile, p.dq.at(token, head), p.dq.token_stride, warp_row, s.q_length - first_row, a.head_dim, lane);
}

template <class T, int Dim>
void start(const tn_attention_backward_args& args, const float* delta, cudaStream_t stream) {
    const tn_attention_shape& shape = args.shape;
    Parameters p{attention(shape), matrix(args.q_TNH), matrix(args.k_TMH), matrix(args.v_TMH), matrix(args.dout_TNH), matrix(args.dq_TNH),
                 matrix(args.dk_TMH), matrix(args.dv_TMH), args.lse_NT, delta, {}};
    for (const Tiles& tiles : cut_into_tiles(shape, Axis::keys, {KeySizes<Dim>::keys})) {
        p.tiles = tiles;
        launch(backward_keys<T, Dim>, "attention backward of keys and values", int64_t{tiles.count} * shape.kv_heads, threads,
               KeySizes<Dim>::bytes, stream, p);
    }
    for (const Tiles& tiles : cut_into_tiles(shape, Axis::queries, {QuerySizes<Dim>::rows})) {
        p.tiles = tiles;
        launch(backward_queries<T, Dim>, "attention backward of queries", int64_t{tiles.count} * shape.q_heads, threads,
               QuerySizes<Dim>::bytes, stream, p);
    }
}

template <class T>
void start(const tn_attention_backward_args& args, const float* delta, cudaStream_t stream) {
    if (args.shape.head_dim <= 64) start<T, 64>(args, delta, stream);
    else if (args.shape.head_dim <= 96) start<T, 96>(args, delta, stream);
    else start<T, 128>(args, delta, stream);
}

}  // namespace

void portable_attention_backward(const tn_attention_backward_args& args, const float* delta, cudaStream_t stream) {
    if (args.shape.dtype == TN_BFLOAT16) start<Bf16>(args, delta, stream);
    else start<Fp16>(args, delta, stream);
}

}  // namespace trainer::cuda
