// Backward attention for Hopper, deterministic without a float32 copy of dq: one kernel whose thread blocks own keys and
// sum dk and dv, one whose thread blocks own queries and sum dq. Both compute the scores; nothing leaves a warpgroup but
// results, so the two consumers of a block never wait for each other and one's products run under the other's softmax.
#include "attention.h"
#include "device.h"
#include "hopper.cuh"
#include "launch.h"
#include "query_work.cuh"
#include "softmax.cuh"
#include "tensor_map.h"

#include <type_traits>

namespace trainer::cuda {

namespace {

struct Parameters {
    CUtensorMap q, k, v, dout;
    Attention attention;
    Matrix dq, dk, dv;
    const float *lse, *delta;
    Order order;
    Tiles tiles;
};

constexpr int stages = 2, consumers = 2, threads = 128 * (consumers + 1);
// Together what the block was launched with: 168 registers a thread.
constexpr int producer_registers = 40, consumer_registers = 232;

// All pages of `rows` rows of a tile whose pages are `tile_rows` rows apart.
template <int Dim>
__device__ void copy_pages(uint32_t to, int tile_rows, const CUtensorMap& map, uint32_t barrier, int head, int token) {
    for (int page = 0; page < pages(Dim); ++page) copy_box(to + page * tile_rows * 128, map, barrier, 64 * page, head, token);
}

// Zeros in rows [valid_rows, Rows) of a tile: what the copy engine brought from the next sequence must not meet a zero
// probability as a NaN. All consumers do it together; publish_shared and a barrier follow.
template <int Rows, int Dim>
__device__ void clear_rows(uint32_t tile, int valid_rows) {
    for (int page = 0; page < pages(Dim); ++page)
        for (int i = valid_rows * 32 + static_cast<int>(threadIdx.x) - 128; i < Rows * 32; i += 128 * consumers)
            store_shared(tile + page * Rows * 128 + i * 4, 0);
}

// ---- dk and dv ----

template <int Dim>
struct KeySizes {
    static constexpr int keys = 64 * consumers, rows = Dim == 64 ? 96 : 64;
    static constexpr int k_bytes = tile_bytes(keys, Dim), q_bytes = tile_bytes(rows, Dim), row_bytes = rows * 4;
    static constexpr int k = 0, v = k_bytes, q = 2 * k_bytes, dout = q + stages * q_bytes, lse = dout + stages * q_bytes;
    static constexpr int delta = lse + stages * row_bytes, barriers = delta + stages * row_bytes;
    static constexpr int bytes = barriers + 128, aligned_bytes = bytes + 1024;
};

struct KeyBarriers {
    uint32_t first;

    __device__ uint32_t keys_full() const { return first; }
    __device__ uint32_t q_full(int stage) const { return first + 8 + 8 * stage; }
    __device__ uint32_t dout_full(int stage) const { return first + 8 + 8 * (stages + stage); }
    __device__ uint32_t rows_full(int stage) const { return first + 8 + 8 * (2 * stages + stage); }
    __device__ uint32_t empty(int stage) const { return first + 8 + 8 * (3 * stages + stage); }
};

// A block of keys, and the visits that it needs: every block of queries that sees it, of every query head of the group.
struct KeyWork {
    Sequence sequence;
    int kv_head, first_key, group, begin_block, blocks;

    template <int Keys, int TileRows>
    static __device__ KeyWork at(const Parameters& p, int index) {
        const Attention& a = p.attention;
        const HeadTile place = find_head_tile(p.tiles, p.order, a.kv_heads, index);
        const Tile tile = find_tile(p.tiles, Axis::keys, place.tile);
        KeyWork w;
        w.sequence = tile.sequence;
        w.kv_head = place.head;
        w.group = a.q_heads / a.kv_heads;
        w.first_key = (tile.levels - 1 - tile.level) * Keys;  // under a causal mask the first keys have the most work
        const Visible seeing = seeing_queries(a, tile.sequence, w.first_key, min(w.first_key + Keys, tile.sequence.k_length) - 1);
        w.begin_block = seeing.from / TileRows;
        w.blocks = seeing.from < seeing.end ? (seeing.end + TileRows - 1) / TileRows - w.begin_block : 0;
        return w;
    }

    __device__ int visits() const { return group * blocks; }
    __device__ int head(int visit) const { return kv_head * group + visit / blocks; }
    __device__ int block(int visit) const { return begin_block + visit % blocks; }
};

template <int Dim>
__device__ void feed_queries(const Parameters& p, const KeyWork& w, uint32_t base) {
    using Size = KeySizes<Dim>;
    const KeyBarriers barriers{base + Size::barriers};
    Turn<stages> turn;
    const int visits = w.visits();
    if (visits == 0) return;
    arrive_expecting(barriers.keys_full(), 2 * Size::k_bytes);
    copy_pages<Dim>(base + Size::k, Size::keys, p.k, barriers.keys_full(), w.kv_head, w.sequence.k_begin + w.first_key);
    copy_pages<Dim>(base + Size::v, Size::keys, p.v, barriers.keys_full(), w.kv_head, w.sequence.k_begin + w.first_key);
    for (int visit = 0; visit < visits; ++visit) {
        const int head = w.head(visit), token = w.sequence.q_begin + w.block(visit) * Size::rows;
        wait(barriers.empty(turn.stage), turn.parity ^ 1);
        arrive_expecting(barriers.q_full(turn.stage), Size::q_bytes);
        copy_pages<Dim>(base + Size::q + turn.stage * Size::q_bytes, Size::rows, p.q, barriers.q_full(turn.stage), head, token);
        arrive_expecting(barriers.dout_full(turn.stage), Size::q_bytes);
        copy_pages<Dim>(base + Size::dout + turn.stage * Size::q_bytes, Size::rows, p.dout, barriers.dout_full(turn.stage), head, token);
        turn.advance();
    }
}

// One warp brings -lse * log2(e) and delta of the rows: -infinity and 0 beyond the sequence, so that probabilities are 0 there.
template <int Dim>
__device__ void feed_rows(const Parameters& p, const KeyWork& w, uint32_t base) {
    using Size = KeySizes<Dim>;
    const KeyBarriers barriers{base + Size::barriers};
    Turn<stages> turn;
    const int lane = threadIdx.x % 32, visits = w.visits();
    for (int visit = 0; visit < visits; ++visit) {
        const int first_row = w.block(visit) * Size::rows;
        const int64_t at = w.head(visit) * p.attention.q_tokens + w.sequence.q_begin + first_row;
        float lse[Size::rows / 32], delta[Size::rows / 32];
#pragma unroll
        for (int i = 0; i < Size::rows / 32; ++i) {
            const int row = 32 * i + lane;
            const bool valid = first_row + row < w.sequence.q_length;
            lse[i] = valid ? minus_lse_log2(p.lse[at + row]) : -INFINITY;
            delta[i] = valid ? p.delta[at + row] : 0;
        }
        wait(barriers.empty(turn.stage), turn.parity ^ 1);
#pragma unroll
        for (int i = 0; i < Size::rows / 32; ++i) {
            const uint32_t offset = turn.stage * Size::row_bytes + (32 * i + lane) * 4;
            store_shared(base + Size::lse + offset, __float_as_uint(lse[i]));
            store_shared(base + Size::delta + offset, __float_as_uint(delta[i]));
        }
        arrive(barriers.rows_full(turn.stage));
        turn.advance();
    }
}

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
    const auto open_visit = [&](int visit) {
        wait(barriers.q_full(turn.stage), turn.parity);
        const int valid_rows = s.q_length - w.block(visit) * rows;
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
        const int stage = turn.stage, first_row = w.block(visit) * rows;
        const uint32_t q_tile = base + Size::q + stage * Size::q_bytes, dout_tile = base + Size::dout + stage * Size::q_bytes;
        open_visit(visit);
        wait(barriers.dout_full(stage), turn.parity);
        start_product<T, Dim, Size::keys, rows>(dp, v_part, describe(dout_tile));
        wait(barriers.rows_full(stage), turn.parity);
        wait_products<1>();
        pin(scores);

        const Visible first = visible_keys(a, s, first_row), last = visible_keys(a, s, first_row + rows - 1);
        if (w.first_key < last.from || w.first_key + Size::keys > first.end) {
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
    if (threadIdx.x == 0) {
        init_barrier(barriers.keys_full(), 1);
        for (int stage = 0; stage < stages; ++stage) {
            init_barrier(barriers.q_full(stage), 1);
            init_barrier(barriers.dout_full(stage), 1);
            init_barrier(barriers.rows_full(stage), 32);
            init_barrier(barriers.empty(stage), consumers);
        }
        publish_barriers();
    }
    __syncthreads();
    const KeyWork w = KeyWork::at<Size::keys, Size::rows>(p, blockIdx.x);
    if (threadIdx.x < 128) {
        shrink_registers<producer_registers>();
        if (threadIdx.x == 0) feed_queries<Dim>(p, w, base);
        if (threadIdx.x / 32 == 1) feed_rows<Dim>(p, w, base);
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
        delta[half] = at < s.q_length ? p.delta[index] : 0;
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
void start(const tn_attention_backward_args& args, const float* delta, cudaStream_t stream) {
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
void start(const tn_attention_backward_args& args, const float* delta, cudaStream_t stream) {
    if (args.shape.head_dim == 64) start<T, 64>(args, delta, stream);
    else start<T, 128>(args, delta, stream);
}

}  // namespace

void hopper_attention_backward(const tn_attention_backward_args& args, const float* delta, cudaStream_t stream) {
    if (args.shape.dtype == TN_BFLOAT16) start<Bf16>(args, delta, stream);
    else start<Fp16>(args, delta, stream);
}

}  // namespace trainer::cuda
