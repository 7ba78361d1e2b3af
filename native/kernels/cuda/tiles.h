// Which part of the packed batch one thread block works on, and what all attention kernels are told.
#pragma once
#include "trainer_native.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

namespace trainer::cuda {

// One sequence of the batch, and where the zone begins in which it is the last one that still has tiles; after number_by_sequence,
// where its own tiles begin.
struct Sequence {
    int32_t q_begin, q_length, k_begin, k_length;
    int32_t first_tile;
};

// How a sequence is cut: into blocks of rows, each with every one of `heads` heads; `parts` pairs of block and head, all heads of a
// block before the next block, make a tile. Under a causal mask heads of the same rows see the same keys, which rows below do not.
struct Cut {
    int32_t rows, heads = 1, parts = 1;

    __host__ __device__ int32_t tiles(int32_t length) const { return ((length + rows - 1) / rows * heads + parts - 1) / parts; }
};

// Sequences in order of falling tile count, passed by value as a kernel parameter: no copy, no scratch, capture-safe.
// Tiles are numbered level by level, the highest level of the whole batch first. Where a tile's work grows with its level,
// as under a causal mask, thread blocks thus start in order of falling work.
struct Tiles {
    static constexpr int32_t capacity = 128;
    int32_t sequences;
    int32_t count;
    Cut cut;
    Sequence sequence[capacity];
};

enum class Axis { queries, keys };

// The batch cut into tables of at most Tiles::capacity sequences, over the query or the key axis. Sequences without tokens
// on that axis have no tiles.
std::vector<Tiles> cut_into_tiles(const tn_attention_shape& shape, Axis axis, const Cut& cut);

// Numbers tiles sequence by sequence instead, the longest first, for find_tile_of_sequence: whoever works at the same time works on the
// same sequences.
void number_by_sequence(Tiles& tiles, Axis axis);

struct Tile {
    Sequence sequence;
    int32_t level, levels;
};

// The last sequence whose first_tile is index or less.
inline __host__ __device__ int32_t find_sequence(const Tiles& tiles, int32_t index) {
    int32_t low = 0, high = tiles.sequences - 1;
    while (low < high) {
        const int32_t middle = (low + high + 1) / 2;
        if (tiles.sequence[middle].first_tile <= index) low = middle;
        else high = middle - 1;
    }
    return low;
}

inline __host__ __device__ Tile find_tile_of_sequence(const Tiles& tiles, Axis axis, int32_t index) {
    const Sequence& s = tiles.sequence[find_sequence(tiles, index)];
    const int32_t levels = tiles.cut.tiles(axis == Axis::queries ? s.q_length : s.k_length);
    return {s, levels - 1 - (index - s.first_tile), levels};
}

// cut: the table's, given by a caller who knows it when it is compiled: no divisions then.
inline __host__ __device__ Tile find_tile(const Tiles& tiles, const Cut& cut, Axis axis, int32_t index) {
    const int32_t low = find_sequence(tiles, index);
    const auto levels = [&](const Sequence& s) { return cut.tiles(axis == Axis::queries ? s.q_length : s.k_length); };
    const int32_t zone_width = low + 1, within = index - tiles.sequence[low].first_tile;
    const int32_t level = levels(tiles.sequence[low]) - 1 - within / zone_width;
    const Sequence& sequence = tiles.sequence[within % zone_width];
    return {sequence, level, levels(sequence)};
}

inline __host__ __device__ Tile find_tile(const Tiles& tiles, Axis axis, int32_t index) { return find_tile(tiles, tiles.cut, axis, index); }

// In which order thread blocks take (tile, head) pairs: level by level, but only section_heads heads at a time for a run of
// section_tiles tiles, so that what these heads stream stays in the L2 cache. Or sequence by sequence: see number_by_sequence.
struct Order {
    int32_t section_heads, section_tiles;
    int32_t at_once;  // thread blocks that run at the same time: one a multiprocessor, and whole clusters
    bool by_sequence = false;
};

constexpr int64_t cache_share = 32 << 20;  // of the L2 cache, in bytes, that what is streamed may fill

Order all_heads(int32_t heads, int32_t multiprocessors);

// Each of the heads that own the tiles streams head_bytes. A section runs for about one wave of thread blocks.
Order l2_order(int64_t head_bytes, int32_t heads, int32_t multiprocessors);

// Thread blocks come in clusters. The first `shared` pairs of tile and head have a whole cluster each, whose thread blocks share the
// work; of the others each thread block has its own.
struct Plan {
    Order order;
    int32_t cluster = 1, shared = 0;
    int32_t run = 0;  // see KeyWork::meeting_visit; 0: heads in turn

    int64_t blocks(int64_t pairs) const { return shared * int64_t{cluster} + (pairs - shared + cluster - 1) / cluster * cluster; }
};

// How many thread blocks may share the work of a pair: 1, or 2 or 4 where that is faster. Tests say 2 or 4 that must, and that one in so many
// pairs is shared.
struct Sharing {
    int32_t most = 4, must = 0, one_in = 1;
};

// What thread block `block` has: a pair, beyond the last one if the last cluster is not full, and which part of its work.
struct Place {
    int32_t pair, rank, cluster;
};

inline __host__ __device__ Place place_of(const Plan& plan, int32_t block) {
    if (block < plan.shared * plan.cluster) return {block / plan.cluster, block % plan.cluster, plan.cluster};
    return {block - plan.shared * (plan.cluster - 1), 0, 1};
}

// The order for clusters of so many. Thread blocks of one cluster must agree in whatever at_once decides.
inline Order in_clusters(Order order, int32_t cluster) {
    order.at_once = std::max(cluster, order.at_once / cluster * cluster);
    return order;
}

constexpr int32_t even_out = 8;  // thread blocks a multiprocessor end at about the same time, whatever their plan

// A plan of this order, unless multiprocessors would then be idle for so long, while the last thread blocks end, that something else
// is worth its cost: all heads at once, clusters of two, of `most`. work_of: a tile, in visits. last: the work, with any one of the heads, of
// tiles whose thread blocks come after those of the plan.
Plan balanced_plan(const Order& order, int32_t most, const Tiles& tiles, int32_t heads, const std::function<int32_t(int32_t)>& work_of,
                   const std::vector<int32_t>& last = {});

// Which thread block takes which (tile, head) pairs, where each takes several: number `block` + i takes the i-th of `count` pairs from
// number `first` on.
struct Share {
    int32_t first;
    uint16_t block, count;
};

struct Shares {
    static constexpr int32_t capacity = 96;
    int32_t count;  // 0: there would be too many, or no gain; see shares_of
    Share share[capacity];
};

// Each pair goes to the thread block that has least to do when its turn comes. None where that is no better than giving the pairs out
// in turn, and back in every other round. order: of all heads at once. work_of: a tile, in visits.
Shares shares_of(const Order& order, const Tiles& tiles, int32_t heads, const std::function<int32_t(int32_t)>& work_of);

struct HeadTile {
    int32_t tile, head;
};

inline __host__ __device__ HeadTile find_head_tile(const Tiles& tiles, const Order& order, int32_t heads, int32_t index) {
    if (order.section_heads == heads) return {index / heads, index % heads};
    const int32_t run = index / (order.section_tiles * heads), first_tile = run * order.section_tiles;
    const int32_t left = tiles.count - first_tile, run_tiles = order.section_tiles < left ? order.section_tiles : left;
    const int32_t within = index - first_tile * heads, section = within / (run_tiles * order.section_heads);
    const int32_t rest = within - section * run_tiles * order.section_heads;
    return {first_tile + rest / order.section_heads, section * order.section_heads + rest % order.section_heads};
}

// [tokens, heads, head_dim] of 16-bit elements, the last axis contiguous.
struct Matrix {
    uint16_t* data;
    int64_t token_stride, head_stride;

    __host__ __device__ uint16_t* at(int64_t token, int64_t head) const { return data + token * token_stride + head * head_stride; }
};

inline Matrix matrix(const tn_tensor& t) { return {static_cast<uint16_t*>(t.data), t.token_stride, t.head_stride}; }

// A float of every query token and head. Those of `together` tokens, a power of 2, lie side by side, where the first one is.
struct RowFloats {
    float* data;
    int64_t token_stride, head_stride;
    int32_t together;

    __host__ __device__ float& at(int64_t token, int64_t head) const {
        const int32_t beside = static_cast<int32_t>(token) & (together - 1);
        return data[(token - beside) * token_stride + beside + head * head_stride];
    }
};

// What does not change from launch to launch of one call.
struct Attention {
    int64_t q_tokens, k_tokens;
    int32_t q_heads, kv_heads, head_dim;
    int32_t causal, window;
    float scale, scale_log2;  // scale_log2 = scale * log2(e)
};

Attention attention(const tn_attention_shape& shape);

// Key columns that a query row sees: from <= column < end, both relative to the sequence.
struct Visible {
    int32_t from, end;
};

inline __host__ __device__ Visible visible_keys(const Attention& a, const Sequence& s, int32_t row) {
    const int32_t position = row + s.k_length - s.q_length;
    const int32_t end = a.causal && position + 1 < s.k_length ? position + 1 : s.k_length;
    const int32_t from = a.window >= 0 && position > a.window ? position - a.window : 0;
    return {from, end};
}

// Query rows that see at least one key of [first_key, last_key].
inline __host__ __device__ Visible seeing_queries(const Attention& a, const Sequence& s, int32_t first_key, int32_t last_key) {
    const int32_t offset = s.k_length - s.q_length;
    const int32_t from = a.causal && first_key - offset > 0 ? first_key - offset : 0;
    int32_t end = s.q_length;
    if (a.window >= 0 && int64_t{last_key} - offset + a.window + 1 < end) end = last_key - offset + a.window + 1;
    return {from, end};
}

}  // namespace trainer::cuda
