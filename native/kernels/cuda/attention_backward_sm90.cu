// Deterministic backward attention for Hopper. Some thread blocks own keys and sum dk and dv, the others own queries and sum dq,
// each with scores of its own: seven products instead of five, but nothing is added up in global memory.
//
// One launch has both kinds, those of keys first: a block of keys serves all query heads of its group, which makes it long, and
// the many short blocks of queries fill the multiprocessors around it.
#include "attention.h"
#include "backward_keys_sm90.cuh"
#include "device.h"
#include "launch.h"
#include "query_work.cuh"

#include <algorithm>
#include <type_traits>

namespace trainer::cuda {

namespace {

// Two tables of tiles are more than the 4 KiB of parameters that toolkits before 12.1 take.
struct Parameters {
    BackwardParameters keys, queries;
    int32_t key_blocks;
};

template <int Dim>
struct QuerySizes {
    // Three consumers have room for their queries in registers, which spares shared memory half of what the scores read from it.
    static constexpr bool three = Dim == 64;
    static constexpr int consumers = three ? 3 : 2;
    static constexpr int rows = 64 * consumers, keys = three ? 64 : 96, stages = three ? 4 : 2;
    static constexpr int q_bytes = tile_bytes(rows, Dim), k_bytes = tile_bytes(keys, Dim);
    static constexpr int q = 0, dout = q_bytes, k = 2 * q_bytes, v = k + stages * k_bytes, barriers = v + stages * k_bytes;
    static constexpr int bytes = barriers + 8 + 32 * stages;
};

template <int Stages>
struct QueryBarriers {
    uint32_t first;

    __device__ uint32_t queries_full() const { return first; }
    __device__ uint32_t k_full(int stage) const { return first + 8 + 8 * stage; }
    __device__ uint32_t v_full(int stage) const { return first + 8 + 8 * (Stages + stage); }
    __device__ uint32_t k_empty(int stage) const { return first + 8 + 8 * (2 * Stages + stage); }
    __device__ uint32_t v_empty(int stage) const { return first + 8 + 8 * (3 * Stages + stage); }

    __device__ void init(int consumers) const {
        init_barrier(queries_full(), 1);
        for (int stage = 0; stage < Stages; ++stage) {
            init_barrier(k_full(stage), 1);
            init_barrier(v_full(stage), 1);
            init_barrier(k_empty(stage), consumers);
            init_barrier(v_empty(stage), consumers);
        }
        publish_barriers();
    }
};

template <int Dim>
using Work = QueryWork<QuerySizes<Dim>::consumers>;

template <int Dim>
__device__ void feed_keys(const BackwardParameters& p, const Work<Dim>& w, uint32_t base) {
    using Size = QuerySizes<Dim>;
    const QueryBarriers<Size::stages> barriers{base + Size::barriers};
    if (w.begin_block == w.end_block) return;
    arrive_expecting(barriers.queries_full(), 2 * Size::q_bytes);
#pragma unroll
    for (int i = 0; i < Size::consumers; ++i) {
        const QueryPart part = w.part[i];
        const int token = w.sequence.q_begin + part.first_row, at = i * 64 * 128;
        copy_pages<Dim>(base + Size::q + at, Size::rows, p.q, barriers.queries_full(), part.head, token);
        copy_pages<Dim>(base + Size::dout + at, Size::rows, p.dout, barriers.queries_full(), part.head, token);
    }
    Turn<Size::stages> turn;
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
__device__ void sum_queries(const BackwardParameters& p, const Work<Dim>& w, uint32_t base) {
    using Size = QuerySizes<Dim>;
    constexpr int keys = Size::keys;
    const Attention& a = p.attention;
    const Sequence& s = w.sequence;
    const QueryBarriers<Size::stages> barriers{base + Size::barriers};
    const int group = static_cast<int>(threadIdx.x) / 128 - 1, lane = threadIdx.x % 32;
    const int row = static_cast<int>(threadIdx.x) % 128 / 32 * 16;  // the warp's first one of the warpgroup's
    const bool speaker = threadIdx.x % 128 == 0;
    const QueryPart part = group == 0 ? w.part[0] : group == 1 ? w.part[1] : w.part[Size::consumers - 1];
    const uint32_t q_rows = base + Size::q + group * 64 * 128, dout_rows = base + Size::dout + group * 64 * 128;
    [[maybe_unused]] const uint64_t q_part = describe(q_rows), dout_part = describe(dout_rows);

    wait_for_last_kernel();  // which made delta, or waited for the one that did
    float minus_lse[2], delta[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        // Rows beyond the sequence get its last row's, so that all is on its way at once, without a branch.
        const int64_t token = s.q_begin + min(part.first_row + row + 8 * half + lane / 4, s.q_length - 1);
        minus_lse[half] = p.lse[part.head * a.q_tokens + token];
        delta[half] = p.delta.at(token, part.head);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const bool valid = part.first_row + row + 8 * half + lane / 4 < s.q_length;
        minus_lse[half] = valid ? minus_lse_log2(minus_lse[half]) : -INFINITY;
        if (!valid) delta[half] = 0;
    }

    [[maybe_unused]] uint32_t q_registers[Dim / 16][4], dout_registers[Dim / 16][4];
    float dq[Dim / 8][4] = {};
    float scores[keys / 8][4], dp[keys / 8][4];
    Turn<Size::stages> turn;
    if (group == Size::consumers - 1) arrive_threads(8, 256);  // the first group goes first
    const auto visit = [&](int block, auto masked) {
        const int stage = turn.stage;
        const int valid_rows = s.k_length - block * keys;
        wait(barriers.k_full(stage), turn.parity);
        sync_threads(8 + group, 256);  // the groups start their products in turn: one's run under the others' softmax
        if constexpr (Size::three) start_product<T>(scores, q_registers, describe(base + Size::k + stage * Size::k_bytes));
        else start_product<T, Dim, Size::rows, keys>(scores, q_part, describe(base + Size::k + stage * Size::k_bytes));
        wait(barriers.v_full(stage), turn.parity);
        if constexpr (Size::three) start_product<T>(dp, dout_registers, describe(base + Size::v + stage * Size::k_bytes));
        else start_product<T, Dim, Size::rows, keys>(dp, dout_part, describe(base + Size::v + stage * Size::k_bytes));
        arrive_threads(8 + (group + 1) % Size::consumers, 256);
        wait_products<1>();
        pin(scores);
        if constexpr (decltype(masked)::value) {
            const int first_row = part.first_row + row + lane / 4;
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
            clear_rows<keys, Dim, Size::consumers>(base + Size::k + stage * Size::k_bytes, valid_rows);
            publish_shared();
            sync_threads(1, 128 * Size::consumers);
        }
        start_sum<T>(dq, ds_part, describe(base + Size::k + stage * Size::k_bytes, keys * 128));
        wait_products<0>();
        pin(dq);
        if (speaker) arrive(barriers.k_empty(stage));
        turn.advance();
    };

    if (w.begin_block < w.end_block) {
        wait(barriers.queries_full(), 0);
        if constexpr (Size::three)
#pragma unroll
            for (int step = 0; step < Dim / 16; ++step) {
                load_a<Size::rows>(q_registers[step], a_lane(q_rows + row * 128, lane), 0, step);
                load_a<Size::rows>(dout_registers[step], a_lane(dout_rows + row * 128, lane), 0, step);
            }
        int block = w.end_block - 1;
        for (; block >= w.begin_block && block >= w.all_see_end; --block) visit(block, std::true_type{});
        for (; block >= w.begin_block && block >= w.all_see_begin; --block) visit(block, std::false_type{});
        for (; block >= w.begin_block; --block) visit(block, std::true_type{});
    }

    // The warpgroup's own rows of the query tile become its output.
    sync_threads(2 + group, 128);
    store_rows<T, Size::rows>(q_rows, dq, {a.scale, a.scale}, row, lane);
    __syncwarp();
    write_rows<Size::rows, Dim, 16>(q_rows, p.dq.at(s.q_begin + part.first_row, part.head), p.dq.token_stride, row,
                                    s.q_length - part.first_row, a.head_dim, lane);
}

template <class T, int Dim, bool InClusters>
__global__ void __launch_bounds__(KeySizes<Dim, false>::threads, 1) backward_sm90(const __grid_constant__ Parameters p) {
    using Keys = KeySizes<Dim, false>;
    using Queries = QuerySizes<Dim>;
    static_assert(Keys::consumers == Queries::consumers, "a block is launched alike for either work");
    extern __shared__ __align__(1024) unsigned char shared[];
    const uint32_t base = shared_address(shared);
    const int block = blockIdx.x, query_index = block - p.key_blocks;
    const bool owns_keys = query_index < 0;
    if (threadIdx.x == 32) prefetch(owns_keys ? p.keys : p.queries);
    const Place place = InClusters ? place_of(p.keys.plan, block) : Place{block, 0, 1};
    if (InClusters && (owns_keys ? place.pair >= p.keys.tiles.count * p.keys.attention.kv_heads
                                 : query_index >= p.queries.tiles.count * p.queries.attention.kv_heads))
        return;
    if (threadIdx.x == 0) {
        if (owns_keys) KeyBarriers{base + Keys::barriers}.init(Keys::consumers);
        else QueryBarriers<Queries::stages>{base + Queries::barriers}.init(Queries::consumers);
    }
    __syncthreads();
    const auto keys = [&] { return key_work<Keys::keys, Keys::rows, false>(p.keys.attention, p.keys.tiles, p.keys.plan, place, block); };
    const auto queries = [&] {
        return query_work<Queries::consumers, Queries::keys>(p.queries.attention, p.queries.tiles, p.queries.plan.order, query_index);
    };
    if (threadIdx.x < 128) {
        shrink_registers<Keys::producer_registers>();
        if (owns_keys) feed_key_block<Keys, Dim>(p.keys, keys(), base);
        else if (threadIdx.x == 0) feed_keys<Dim>(p.queries, queries(), base);
    } else {
        grow_registers<Keys::consumer_registers>();
        if (owns_keys) sum_keys<T, Dim, false, InClusters>(p.keys, nullptr, keys(), base);
        else sum_queries<T, Dim>(p.queries, queries(), base);
    }
}

template <int Dim>
constexpr int shared_bytes = std::max({KeySizes<Dim, false>::bytes, QuerySizes<Dim>::bytes, KeySizes<Dim, false>::sum_bytes});

// Of every tile.
template <int Dim>
std::vector<int32_t> query_work_in_key_visits(const BackwardParameters& p) {
    using Queries = QuerySizes<Dim>;
    constexpr int percent = Dim == 64 ? 75 : 110;  // of a visit to a block of keys, by the products and their sizes
    std::vector<int32_t> work(p.tiles.count);
    for (int32_t tile = 0; tile < p.tiles.count; ++tile) {
        const Work<Dim> w = query_work<Queries::consumers, Queries::keys>(p.attention, p.tiles.cut, find_tile(p.tiles, Axis::queries, tile), 0);
        work[tile] = (w.end_block - w.begin_block) * percent / 100;
    }
    return work;
}

template <class T, int Dim>
void start(const tn_attention_backward_args& args, const RowFloats& delta, const Sharing& sharing, cudaStream_t stream) {
    using Keys = KeySizes<Dim, false>;
    using Queries = QuerySizes<Dim>;
    const tn_attention_shape& s = args.shape;
    const int group = s.q_heads / s.kv_heads, multiprocessors = current_device().multiprocessors;
    const std::vector<Tiles> keys = cut_into_tiles(s, Axis::keys, {Keys::keys});
    const std::vector<Tiles> queries = cut_into_tiles(s, Axis::queries, query_cut<Queries::consumers>(group));
    Parameters p{backward_parameters(args, delta, Keys::rows, Keys::keys), backward_parameters(args, delta, 64, Queries::keys), 0};
    p.queries.plan = {l2_order(4 * s.k_tokens * s.head_dim, s.kv_heads, multiprocessors)};
    for (size_t i = 0; i < std::max(keys.size(), queries.size()); ++i) {
        p.keys.tiles = i < keys.size() ? keys[i] : Tiles{};
        p.queries.tiles = i < queries.size() ? queries[i] : Tiles{};
        const Plan plan = p.keys.plan = key_plan<Keys::keys, Keys::rows, false>(s, p.keys.tiles, 4 * s.head_dim, multiprocessors, sharing,
                                                                         query_work_in_key_visits<Dim>(p.queries));
        const int64_t query_blocks = int64_t{p.queries.tiles.count} * s.kv_heads;
        p.key_blocks = static_cast<int32_t>(plan.blocks(int64_t{p.keys.tiles.count} * s.kv_heads));
        const auto kernel = plan.cluster > 1 ? backward_sm90<T, Dim, true> : backward_sm90<T, Dim, false>;
        // Without queries there is no kernel of ours ahead that made delta.
        launch(kernel, "attention backward", p.key_blocks + (query_blocks + plan.cluster - 1) / plan.cluster * plan.cluster,
               Keys::threads, shared_bytes<Dim>, stream, p, {plan.cluster, s.q_tokens > 0});
    }
}

template <class T>
void start(const tn_attention_backward_args& args, const RowFloats& delta, const Sharing& sharing, cudaStream_t stream) {
    (args.shape.head_dim == 64 ? start<T, 64> : start<T, 128>)(args, delta, sharing, stream);
}

}  // namespace

void hopper_attention_backward(const tn_attention_backward_args& args, const RowFloats& delta, const Sharing& sharing,
                               cudaStream_t stream) {
    (args.shape.dtype == TN_BFLOAT16 ? start<Bf16> : start<Fp16>)(args, delta, sharing, stream);
}

}  // namespace trainer::cuda
