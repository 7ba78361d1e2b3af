// Backward attention for Hopper, deterministic without a float32 copy of dq: one kernel whose thread blocks own keys and
// sum dk and dv, one whose thread blocks own queries and sum dq. Both compute the scores; nothing leaves a warpgroup but
// results, so the two consumers of a block never wait for each other and one's products run under the other's softmax.
#include "attention.h"
#include "backward_sm90.cuh"
#include "device.h"
#include "launch.h"
#include "query_work.cuh"
#include "tensor_map.h"

#include <type_traits>

namespace trainer::cuda {

namespace {

using Parameters = BackwardParameters;
constexpr int stages = backward_stages, consumers = backward_consumers, threads = backward_threads;
constexpr int producer_registers = backward_producer_registers, consumer_registers = backward_consumer_registers;

// ---- dk and dv ----

template <int Dim>
struct KeySizes {
    static constexpr int keys = 64 * consumers, rows = Dim == 64 ? 96 : 64;
    static constexpr int k_bytes = tile_bytes(keys, Dim), q_bytes = tile_bytes(rows, Dim), row_bytes = rows * 4;
    static constexpr int k = 0, v = k_bytes, q = 2 * k_bytes, dout = q + stages * q_bytes, lse = dout + stages * q_bytes;
    static constexpr int delta = lse + stages * row_bytes, barriers = delta + stages * row_bytes;
    static constexpr int bytes = barriers + 128, aligned_bytes = bytes + 1024;
};

// One warpgroup: 64 keys. Scores are held transposed, keys by queries, so that they are operand A of both products.
template <class T, int Dim>
__device__ void sum_keys(const Parameters& p, const KeyWork& w, uint32_t base) {
    using Size = KeySizes<Dim>;
    constexpr int rows = Size::rows;
    const Attention& a = p.attention;
    const Sequence& s = w.sequence;
    const KeyBarriers barriers{base + Size::barriers};
    const int group = static_cast<int>(threadIdx.x) / 128 - 1, lane = threadIdx.x % 32;
    const int key_row = 64 * group + static_cast<int>(threadIdx.x) % 128 / 32 * 16;  // the warp's first one in the tile
    const uint64_t k_part = describe(base + Size::k + group * 64 * 128), v_part = describe(base + Size::v + group * 64 * 128);
    const int visits = w.visits();

    float dk[Dim / 8][4] = {}, dv[Dim / 8][4] = {};
    float scores[rows / 8][4], dp[rows / 8][4];
    Turn<stages> turn;
    // Waits for a stage's queries, clears what belongs to another sequence, and starts their scores.
    const auto open_visit = [&](int first_row) {
        wait(barriers.q_full(turn.stage), turn.parity);
        const int valid_rows = s.q_length - first_row;
        if (valid_rows < rows && s.q_begin + s.q_length < a.q_tokens) {
            wait(barriers.dout_full(turn.stage), turn.parity);
            clear_rows<rows, Dim>(base + Size::q + turn.stage * Size::q_bytes, valid_rows);
            clear_rows<rows, Dim>(base + Size::dout + turn.stage * Size::q_bytes, valid_rows);
            publish_shared();
            sync_threads(1, 128 * consumers);
        }
        start_product<T, Dim, Size::keys, rows>(scores, k_part, describe(base + Size::q + turn.stage * Size::q_bytes));
    };

    if (visits > 0) wait(barriers.keys_full(), 0);
    for (int visit = 0; visit < visits; ++visit) {
        const int stage = turn.stage, block = w.visit(visit).block, first_row = block * rows;
        const uint32_t q_tile = base + Size::q + stage * Size::q_bytes, dout_tile = base + Size::dout + stage * Size::q_bytes;
        open_visit(first_row);
        wait(barriers.dout_full(stage), turn.parity);
        start_product<T, Dim, Size::keys, rows>(dp, v_part, describe(dout_tile));
        wait(barriers.rows_full(stage), turn.parity);
        wait_products<1>();
        pin(scores);

        if (block < w.all_see_begin || block >= w.all_see_end) {
            const int key = w.first_key + key_row + lane / 4;
            mask_scores(scores, {seeing_queries(a, s, key, key), seeing_queries(a, s, key + 8, key + 8)}, first_row, lane);
        }
        const uint32_t row_values = base + stage * Size::row_bytes + lane % 4 * 8;
#pragma unroll
        for (int n = 0; n < rows / 8; ++n) {
            const float2 minus_lse = load_shared_float2(row_values + Size::lse + n * 32);
#pragma unroll
            for (int e = 0; e < 4; ++e) scores[n][e] = exp2_fast(fmaf(scores[n][e], a.scale_log2, e % 2 ? minus_lse.y : minus_lse.x));
        }
        uint32_t p_part[rows / 16][4], ds_part[rows / 16][4];
#pragma unroll
        for (int step = 0; step < rows / 16; ++step) pack_a<T>(p_part[step], scores, step);
        start_sum<T>(dv, p_part, describe(dout_tile, rows * 128));
        wait_products<1>();
        pin(dp);
#pragma unroll
        for (int n = 0; n < rows / 8; ++n) {
            const float2 delta = load_shared_float2(row_values + Size::delta + n * 32);
#pragma unroll
            for (int e = 0; e < 4; ++e) dp[n][e] = scores[n][e] * (dp[n][e] - (e % 2 ? delta.y : delta.x));
        }
#pragma unroll
        for (int step = 0; step < rows / 16; ++step) pack_a<T>(ds_part[step], dp, step);
        start_sum<T>(dk, ds_part, describe(q_tile, rows * 128));
        wait_products<0>();
        pin(dv);
        pin(dk);
        if (lane == 0) arrive(barriers.rows_empty(stage));
        if (threadIdx.x % 128 == 0) arrive(barriers.empty(stage));
        turn.advance();
    }

    // The warpgroup's own rows of the key and value tiles become its output.
    sync_threads(2 + group, 128);
    store_rows<T, Size::keys>(base + Size::k, dk, {a.scale, a.scale}, key_row, lane);
    store_rows<T, Size::keys>(base + Size::v, dv, {1.f, 1.f}, key_row, lane);
    __syncwarp();
    const int64_t token = s.k_begin + w.first_key;
    const int valid_rows = s.k_length - w.first_key;
    write_rows<Size::keys, Dim, 16>(base + Size::k, p.dk.at(token, w.kv_head), p.dk.token_stride, key_row, valid_rows, a.head_dim, lane);
    write_rows<Size::keys, Dim, 16>(base + Size::v, p.dv.at(token, w.kv_head), p.dv.token_stride, key_row, valid_rows, a.head_dim, lane);
}

template <class T, int Dim>
__global__ void __launch_bounds__(threads, 1) backward_keys_sm90(const __grid_constant__ Parameters p) {
    using Size = KeySizes<Dim>;
    extern __shared__ unsigned char shared[];
    const uint32_t base = (shared_address(shared) + 1023) & ~1023u;
    const KeyBarriers barriers{base + Size::barriers};
    if (threadIdx.x == 0) barriers.init();
    __syncthreads();
    const KeyWork w = KeyWork::at<Size::keys, Size::rows>(p, blockIdx.x);
    if (threadIdx.x < 128) {
        shrink_registers<producer_registers>();
        if (threadIdx.x == 0) feed_queries<Size, Dim>(p, w, base);
        if (threadIdx.x / 32 == 1) feed_rows<Size>(p, w, base);
    } else {
        grow_registers<consumer_registers>();
        sum_keys<T, Dim>(p, w, base);
    }
}

// ---- dq ----

template <int Dim>
struct QuerySizes {
    static constexpr int rows = 64 * consumers, keys = Dim == 64 ? 128 : 96;
    static constexpr int q_bytes = tile_bytes(rows, Dim), k_bytes = tile_bytes(keys, Dim);
    static constexpr int q = 0, dout = q_bytes, k = 2 * q_bytes, v = k + stages * k_bytes, barriers = v + stages * k_bytes;
    static constexpr int bytes = barriers + 128, aligned_bytes = bytes + 1024;
};

struct QueryBarriers {
    uint32_t first;

    __device__ uint32_t queries_full() const { return first; }
    __device__ uint32_t k_full(int stage) const { return first + 8 + 8 * stage; }
    __device__ uint32_t v_full(int stage) const { return first + 8 + 8 * (stages + stage); }
    __device__ uint32_t k_empty(int stage) const { return first + 8 + 8 * (2 * stages + stage); }
    __device__ uint32_t v_empty(int stage) const { return first + 8 + 8 * (3 * stages + stage); }
};

template <int Dim>
__device__ void feed_keys(const Parameters& p, const QueryWork& w, uint32_t base) {
    using Size = QuerySizes<Dim>;
    const QueryBarriers barriers{base + Size::barriers};
    if (w.begin_block == w.end_block) return;
    const int token = w.sequence.q_begin + w.first_row;
    arrive_expecting(barriers.queries_full(), 2 * Size::q_bytes);
    copy_pages<Dim>(base + Size::q, Size::rows, p.q, barriers.queries_full(), w.head, token);
    copy_pages<Dim>(base + Size::dout, Size::rows, p.dout, barriers.queries_full(), w.head, token);
    Turn<stages> turn;
    for (int block = w.end_block - 1; block >= w.begin_block; --block) {
        const int key = w.sequence.k_begin + block * Size::keys;
        wait(barriers.k_empty(turn.stage), turn.parity ^ 1);
        arrive_expecting(barriers.k_full(turn.stage), Size::k_bytes);
        copy_pages<Dim>(base + Size::k + turn.stage * Size::k_bytes, Size::keys, p.k, barriers.k_full(turn.stage), w.kv_head, key);
        wait(barriers.v_empty(turn.stage), turn.parity ^ 1);
        arrive_expecting(barriers.v_full(turn.stage), Size::k_bytes);
        copy_pages<Dim>(base + Size::v + turn.stage * Size::k_bytes, Size::keys, p.v, barriers.v_full(turn.stage), w.kv_head, key);
        turn.advance();
    }
}

// One warpgroup: 64 queries.
template <class T, int Dim>
__device__ void sum_queries(const Parameters& p, const QueryWork& w, uint32_t base) {
    using Size = QuerySizes<Dim>;
    constexpr int keys = Size::keys;
    const Attention& a = p.attention;
    const Sequence& s = w.sequence;
    const QueryBarriers barriers{base + Size::barriers};
    const int group = static_cast<int>(threadIdx.x) / 128 - 1, lane = threadIdx.x % 32;
    const int row = 64 * group + static_cast<int>(threadIdx.x) % 128 / 32 * 16;  // the warp's first one in the tile
    const bool speaker = threadIdx.x % 128 == 0;
    const uint64_t q_part = describe(base + Size::q + group * 64 * 128), dout_part = describe(base + Size::dout + group * 64 * 128);

    float minus_lse[2], delta[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int at = w.first_row + row + 8 * half + lane / 4;
        const int64_t index = w.head * a.q_tokens + s.q_begin + at;
        minus_lse[half] = at < s.q_length ? minus_lse_log2(p.lse[index]) : -INFINITY;
        delta[half] = at < s.q_length ? p.delta.at(s.q_begin + at, w.head) : 0;
    }

    float dq[Dim / 8][4] = {};
    float scores[keys / 8][4], dp[keys / 8][4];
    Turn<stages> turn;
    const auto visit = [&](int block, auto masked) {
        const int stage = turn.stage;
        const int valid_rows = s.k_length - block * keys;
        wait(barriers.k_full(stage), turn.parity);
        start_product<T, Dim, Size::rows, keys>(scores, q_part, describe(base + Size::k + stage * Size::k_bytes));
        wait(barriers.v_full(stage), turn.parity);
        start_product<T, Dim, Size::rows, keys>(dp, dout_part, describe(base + Size::v + stage * Size::k_bytes));
        wait_products<1>();
        pin(scores);
        if constexpr (decltype(masked)::value) {
            const int first_row = w.first_row + row + lane / 4;
            mask_scores(scores, {visible_keys(a, s, first_row), visible_keys(a, s, first_row + 8)}, block * keys, lane);
        }
#pragma unroll
        for (int n = 0; n < keys / 8; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) scores[n][e] = exp2_fast(fmaf(scores[n][e], a.scale_log2, minus_lse[e / 2]));
        wait_products<0>();
        pin(dp);
        if (speaker) arrive(barriers.v_empty(stage));
        uint32_t ds_part[keys / 16][4];
#pragma unroll
        for (int n = 0; n < keys / 8; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const float difference = dp[n][e] - delta[e / 2];
                // Beyond the sequence dp may be anything; there, and only there, must a probability of 0 silence it.
                dp[n][e] = decltype(masked)::value && scores[n][e] == 0 ? 0.f : scores[n][e] * difference;
            }
#pragma unroll
        for (int step = 0; step < keys / 16; ++step) pack_a<T>(ds_part[step], dp, step);
        if (decltype(masked)::value && valid_rows < keys && s.k_begin + s.k_length < a.k_tokens) {
            clear_rows<keys, Dim>(base + Size::k + stage * Size::k_bytes, valid_rows);
            publish_shared();
            sync_threads(1, 128 * consumers);
        }
        start_sum<T>(dq, ds_part, describe(base + Size::k + stage * Size::k_bytes, keys * 128));
        wait_products<0>();
        pin(dq);
        if (speaker) arrive(barriers.k_empty(stage));
        turn.advance();
    };

    if (w.begin_block < w.end_block) {
        wait(barriers.queries_full(), 0);
        int block = w.end_block - 1;
        for (; block >= w.begin_block && block >= w.all_see_end; --block) visit(block, std::true_type{});
        for (; block >= w.begin_block && block >= w.all_see_begin; --block) visit(block, std::false_type{});
        for (; block >= w.begin_block; --block) visit(block, std::true_type{});
    }

    // The warpgroup's own rows of the query tile become its output.
    sync_threads(2 + group, 128);
    store_rows<T, Size::rows>(base + Size::q, dq, {a.scale, a.scale}, row, lane);
    __syncwarp();
    write_rows<Size::rows, Dim, 16>(base + Size::q, p.dq.at(s.q_begin + w.first_row, w.head), p.dq.token_stride, row,
                                    s.q_length - w.first_row, a.head_dim, lane);
}

template <class T, int Dim>
__global__ void __launch_bounds__(threads, 1) backward_queries_sm90(const __grid_constant__ Parameters p) {
    using Size = QuerySizes<Dim>;
    extern __shared__ unsigned char shared[];
    const uint32_t base = (shared_address(shared) + 1023) & ~1023u;
    const QueryBarriers barriers{base + Size::barriers};
    if (threadIdx.x == 0) {
        init_barrier(barriers.queries_full(), 1);
        for (int stage = 0; stage < stages; ++stage) {
            init_barrier(barriers.k_full(stage), 1);
            init_barrier(barriers.v_full(stage), 1);
            init_barrier(barriers.k_empty(stage), consumers);
            init_barrier(barriers.v_empty(stage), consumers);
        }
        publish_barriers();
    }
    __syncthreads();
    const QueryWork w = query_work<Size::rows, Size::keys>(p.attention, p.tiles, p.order, blockIdx.x);
    if (threadIdx.x < 128) {
        shrink_registers<producer_registers>();
        if (threadIdx.x == 0) feed_keys<Dim>(p, w, base);
    } else {
        grow_registers<consumer_registers>();
        sum_queries<T, Dim>(p, w, base);
    }
}

template <class T, int Dim>
void start(const tn_attention_backward_args& args, const RowFloats& delta, cudaStream_t stream) {
    const tn_attention_shape& s = args.shape;
    const int multiprocessors = current_device().multiprocessors, group = s.q_heads / s.kv_heads;
    const auto maps = [&](int rows, int keys) {
        return Parameters{tensor_map(args.q_TNH, s.dtype, s.q_tokens, s.q_heads, s.head_dim, rows),
                          tensor_map(args.k_TMH, s.dtype, s.k_tokens, s.kv_heads, s.head_dim, keys),
                          tensor_map(args.v_TMH, s.dtype, s.k_tokens, s.kv_heads, s.head_dim, keys),
                          tensor_map(args.dout_TNH, s.dtype, s.q_tokens, s.q_heads, s.head_dim, rows),
                          attention(s), matrix(args.dq_TNH), matrix(args.dk_TMH), matrix(args.dv_TMH), args.lse_NT, delta, {}, {}};
    };
    using Key = KeySizes<Dim>;
    Parameters p = maps(Key::rows, Key::keys);
    p.order = l2_order(4 * s.q_tokens * s.head_dim * group, s.kv_heads, 1, multiprocessors);
    for (const Tiles& tiles : cut_into_tiles(s, Axis::keys, Key::keys)) {
        p.tiles = tiles;
        launch(backward_keys_sm90<T, Dim>, "attention backward of keys and values", int64_t{tiles.count} * s.kv_heads, threads,
               Key::aligned_bytes, stream, p);
    }
    using Query = QuerySizes<Dim>;
    p = maps(Query::rows, Query::keys);
    p.order = l2_order(4 * s.k_tokens * s.head_dim, s.q_heads, group, multiprocessors);
    for (const Tiles& tiles : cut_into_tiles(s, Axis::queries, Query::rows)) {
        p.tiles = tiles;
        launch(backward_queries_sm90<T, Dim>, "attention backward of queries", int64_t{tiles.count} * s.q_heads, threads,
               Query::aligned_bytes, stream, p);
    }
}

template <class T>
void start(const tn_attention_backward_args& args, const RowFloats& delta, cudaStream_t stream) {
    if (args.shape.head_dim == 64) start<T, 64>(args, delta, stream);
    else start<T, 128>(args, delta, stream);
}

}  // namespace

void hopper_attention_backward(const tn_attention_backward_args& args, const RowFloats& delta, cudaStream_t stream) {
    if (args.shape.dtype == TN_BFLOAT16) start<Bf16>(args, delta, stream);
    else start<Fp16>(args, delta, stream);
}

}  // namespace trainer::cuda
