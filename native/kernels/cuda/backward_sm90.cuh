// What the Hopper backward kernels share: parameters, and for those whose thread blocks own keys, the order of their visits
// to queries and the two warps that feed them.
#pragma once
#include "attention.h"
#include "hopper.cuh"
#include "softmax.cuh"

namespace trainer::cuda {

struct BackwardParameters {
    CUtensorMap q, k, v, dout;
    Attention attention;
    Matrix dq, dk, dv;
    const float* lse;
    RowFloats delta;
    Order order;
    Tiles tiles;
};

constexpr int backward_stages = 2, backward_consumers = 2, backward_threads = 128 * (backward_consumers + 1);
// Together what the block was launched with: 168 registers a thread.
constexpr int backward_producer_registers = 40, backward_consumer_registers = 232;

// All pages of `rows` rows of a tile whose pages are `tile_rows` rows apart.
template <int Dim>
__device__ inline void copy_pages(uint32_t to, int tile_rows, const CUtensorMap& map, uint32_t barrier, int head, int token) {
    for (int page = 0; page < pages(Dim); ++page) copy_box(to + page * tile_rows * 128, map, barrier, 64 * page, head, token);
}

// Zeros in rows [valid_rows, Rows) of a tile: what the copy engine brought from the next sequence must not meet a zero
// probability as a NaN. All consumers do it together; publish_shared and a barrier follow.
template <int Rows, int Dim>
__device__ inline void clear_rows(uint32_t tile, int valid_rows) {
    for (int page = 0; page < pages(Dim); ++page)
        for (int i = valid_rows * 32 + static_cast<int>(threadIdx.x) - 128; i < Rows * 32; i += 128 * backward_consumers)
            store_shared(tile + page * Rows * 128 + i * 4, 0);
}

struct KeyBarriers {
    uint32_t first;

    __device__ uint32_t keys_full() const { return first; }
    __device__ uint32_t q_full(int stage) const { return first + 8 + 8 * stage; }
    __device__ uint32_t dout_full(int stage) const { return first + 8 + 8 * (backward_stages + stage); }
    __device__ uint32_t rows_full(int stage) const { return first + 8 + 8 * (2 * backward_stages + stage); }
    __device__ uint32_t empty(int stage) const { return first + 8 + 8 * (3 * backward_stages + stage); }
    __device__ uint32_t rows_empty(int stage) const { return first + 8 + 8 * (4 * backward_stages + stage); }

    __device__ void init() const {
        init_barrier(keys_full(), 1);
        for (int stage = 0; stage < backward_stages; ++stage) {
            init_barrier(q_full(stage), 1);
            init_barrier(dout_full(stage), 1);
            init_barrier(rows_full(stage), 32);
            init_barrier(empty(stage), backward_consumers);
            init_barrier(rows_empty(stage), 4 * backward_consumers);
        }
        publish_barriers();
    }
};

// A visit of a block of keys to a block of queries of one head.
struct Visit {
    int head, block;
};

// A block of keys, and the visits that it needs: every block of queries that sees it, of every query head of the group.
struct KeyWork {
    Sequence sequence;
    int kv_head, first_key, group, begin_block, end_block;
    int all_see_begin, all_see_end;  // blocks [all_see_begin, all_see_end) of queries need no mask

    template <int Keys, int TileRows>
    static __device__ KeyWork at(const BackwardParameters& p, int index) {
        const Attention& a = p.attention;
        const HeadTile place = find_head_tile(p.tiles, p.order, a.kv_heads, index);
        const Tile tile = find_tile(p.tiles, Axis::keys, place.tile);
        const Sequence& s = tile.sequence;
        KeyWork w;
        w.sequence = s;
        w.kv_head = place.head;
        w.group = a.q_heads / a.kv_heads;
        w.first_key = (tile.levels - 1 - tile.level) * Keys;  // under a causal mask the first keys have the most work
        const int last_key = min(w.first_key + Keys, s.k_length) - 1;
        const Visible seeing = seeing_queries(a, s, w.first_key, last_key);
        w.begin_block = seeing.from / TileRows;
        w.end_block = seeing.from < seeing.end ? (seeing.end + TileRows - 1) / TileRows : w.begin_block;
        const bool whole = w.first_key + Keys <= s.k_length;
        w.all_see_begin = whole ? (seeing_queries(a, s, last_key, last_key).from + TileRows - 1) / TileRows : w.end_block;
        w.all_see_end = min(seeing_queries(a, s, w.first_key, w.first_key).end, s.q_length) / TileRows;
        return w;
    }

    __device__ int visits() const { return group * (end_block - begin_block); }
    __device__ Visit visit(int index) const {
        const int blocks = end_block - begin_block;
        return {kv_head * group + index / blocks, begin_block + index % blocks};
    }
};

// One thread brings the keys and values, then queries and dout of every visit. Size says where in shared memory.
template <class Size, int Dim>
__device__ void feed_queries(const BackwardParameters& p, const KeyWork& w, uint32_t base) {
    const KeyBarriers barriers{base + Size::barriers};
    Turn<backward_stages> turn;
    const int visits = w.visits();
    if (visits == 0) return;
    arrive_expecting(barriers.keys_full(), 2 * Size::k_bytes);
    copy_pages<Dim>(base + Size::k, Size::keys, p.k, barriers.keys_full(), w.kv_head, w.sequence.k_begin + w.first_key);
    copy_pages<Dim>(base + Size::v, Size::keys, p.v, barriers.keys_full(), w.kv_head, w.sequence.k_begin + w.first_key);
    for (int visit = 0; visit < visits; ++visit) {
        const auto [head, block] = w.visit(visit);
        const int token = w.sequence.q_begin + block * Size::rows;
        wait(barriers.empty(turn.stage), turn.parity ^ 1);
        arrive_expecting(barriers.q_full(turn.stage), Size::q_bytes);
        copy_pages<Dim>(base + Size::q + turn.stage * Size::q_bytes, Size::rows, p.q, barriers.q_full(turn.stage), head, token);
        arrive_expecting(barriers.dout_full(turn.stage), Size::q_bytes);
        copy_pages<Dim>(base + Size::dout + turn.stage * Size::q_bytes, Size::rows, p.dout, barriers.dout_full(turn.stage), head, token);
        turn.advance();
    }
}

// One warp brings -lse * log2(e) and delta of the rows: -infinity and 0 beyond the sequence, so that probabilities are 0 there.
template <class Size>
__device__ void feed_rows(const BackwardParameters& p, const KeyWork& w, uint32_t base) {
    const KeyBarriers barriers{base + Size::barriers};
    Turn<backward_stages> turn;
    const int lane = threadIdx.x % 32, visits = w.visits();
    for (int visit = 0; visit < visits; ++visit) {
        const auto [head, block] = w.visit(visit);
        const int first_row = block * Size::rows;
        const int64_t first_token = w.sequence.q_begin + first_row;
        float lse[Size::rows / 32], delta[Size::rows / 32];
#pragma unroll
        for (int i = 0; i < Size::rows / 32; ++i) {
            const int row = 32 * i + lane;
            const bool valid = first_row + row < w.sequence.q_length;
            lse[i] = valid ? minus_lse_log2(p.lse[head * p.attention.q_tokens + first_token + row]) : -INFINITY;
            delta[i] = valid ? p.delta.at(first_token + row, head) : 0;
        }
        wait(barriers.rows_empty(turn.stage), turn.parity ^ 1);
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

}  // namespace trainer::cuda
