// What one tile of keys has to visit, for the kernels whose thread blocks own keys.
#pragma once
#include "tiles.h"

#include <algorithm>

namespace trainer::cuda {

// A visit of a block of keys to a block of queries of one head.
struct Visit {
    int head, block;
};

// A block of keys, and the visits that it needs: every block of queries that sees it, of every query head of the group.
struct KeyWork {
    Sequence sequence;
    int kv_head, number, first_key, group, begin_block, end_block;  // number: of the block of keys in its sequence
    int all_see_begin, all_see_end;  // blocks [all_see_begin, all_see_end) of queries need no mask, given zeros beyond the sequence
    int run;                         // see meeting_visit; 0: heads in turn
    bool descends;
    int rank, cluster;               // of `cluster` thread blocks that share the visits, this one takes every cluster-th from `rank` on

    __host__ __device__ int visits() const {
        const int all = group * (end_block - begin_block);
        return cluster == 1 ? all : (all + cluster - 1 - rank) / cluster;
    }

    // Heads in turn, queries upwards.
    __host__ __device__ Visit visit(int index) const {
        const int blocks = end_block - begin_block;
        return {kv_head * group + index / blocks, begin_block + index % blocks};
    }

    // All heads of a run of query blocks, run after run, so that whoever works on these heads does so at the same queries: they and
    // their dq come from DRAM once, and what DRAM takes of the chip's power its clock would pay for. Under a causal mask the first
    // thread blocks start together and end one after another, the next start as those end and end together, and so on in turn:
    // the former come down from the last queries, the latter go up. Sequence by sequence, all come down. Within a run each begins
    // elsewhere, since additions to one place of dq wait for each other.
    __host__ __device__ Visit meeting_visit(int index) const {
        constexpr int apart = 11;
        const int blocks = end_block - begin_block, runs = (blocks + run - 1) / run, lowest = blocks - (runs - 1) * run;
        int below = 0, within = index;  // whole runs under this one, the lowest not counted, and visits since this one began
        if (descends) {
            below = runs - 1 - index / (group * run);
            within = index % (group * run);
        } else if (index >= group * lowest) {
            below = 1 + (index - group * lowest) / (group * run);
            within = (index - group * lowest) % (group * run);
        }
        const int width = below == 0 ? lowest : run, first = begin_block + (below == 0 ? 0 : lowest + (below - 1) * run);
        const int place = (within + number * apart) % (group * width);
        return {kv_head * group + place / width, first + place % width};
    }
    __device__ bool masked(int block) const { return block < all_see_begin || block >= all_see_end; }
};

template <int Keys, int TileRows>
__host__ __device__ inline KeyWork key_work(const Attention& a, const Tile& tile, int kv_head, int rank = 0, int cluster = 1) {
    const Sequence& s = tile.sequence;
    KeyWork w;
    w.sequence = s;
    w.kv_head = kv_head;
    w.group = a.q_heads / a.kv_heads;
    w.number = tile.levels - 1 - tile.level;  // under a causal mask the first keys have the most work
    w.first_key = w.number * Keys;
    const int last_key = min(w.first_key + Keys, s.k_length) - 1;
    const Visible seeing = seeing_queries(a, s, w.first_key, last_key);
    w.begin_block = seeing.from / TileRows;
    w.end_block = seeing.from < seeing.end ? (seeing.end + TileRows - 1) / TileRows : w.begin_block;
    const bool whole = w.first_key + Keys <= s.k_length;
    w.all_see_begin = whole ? (seeing_queries(a, s, last_key, last_key).from + TileRows - 1) / TileRows : w.end_block;
    const int first_key_end = seeing_queries(a, s, w.first_key, w.first_key).end;
    w.all_see_end = first_key_end < s.q_length ? first_key_end / TileRows : w.end_block;
    w.run = 0;
    w.descends = false;
    w.rank = rank;
    w.cluster = cluster;
    return w;
}

// block: of those that own keys.
template <int Keys, int TileRows, bool MayGoBySequence>
__host__ __device__ inline KeyWork key_work(const Attention& a, const Tiles& tiles, const Plan& plan, const Place& place, int block) {
    const HeadTile at = find_head_tile(tiles, plan.order, a.kv_heads, place.pair);
    const Tile tile = MayGoBySequence && plan.order.by_sequence ? find_tile_of_sequence(tiles, Axis::keys, at.tile)
                                                                : find_tile(tiles, Axis::keys, at.tile);
    KeyWork w = key_work<Keys, TileRows>(a, tile, at.head, place.rank, place.cluster);
    w.run = plan.run;
    w.descends = (MayGoBySequence && plan.order.by_sequence) || block / plan.order.at_once % 2 == 0;
    return w;
}

// For tables cut by Keys, whose numbers may change. row_bytes: what a visit reads and writes of a row of one head, beyond what the
// thread block keeps. last: as for balanced_plan.
template <int Keys, int TileRows, bool MayGoBySequence>
Plan key_plan(const tn_attention_shape& shape, Tiles& tiles, int32_t row_bytes, int32_t multiprocessors, const Sharing& sharing,
              const std::vector<int32_t>& last = {}) {
    const Order order = l2_order(int64_t{row_bytes} * shape.q_tokens * (shape.q_heads / shape.kv_heads), shape.kv_heads, multiprocessors);
    const int64_t pairs = int64_t{tiles.count} * shape.kv_heads;
    if (sharing.must > 0) return {in_clusters(order, sharing.must), sharing.must, static_cast<int32_t>(pairs / sharing.one_in)};
    // Of a sequence all heads are in work: too much of it and the sections of l2_order are better.
    const int64_t sequence_bytes = int64_t{row_bytes} * (tiles.sequences > 0 ? tiles.sequence[0].q_length : 0) * shape.q_heads;
    if (MayGoBySequence && tiles.sequences > 1 && pairs > int64_t{even_out} * multiprocessors && sequence_bytes <= 4 * cache_share) {
        number_by_sequence(tiles, Axis::keys);
        Plan plan{all_heads(shape.kv_heads, multiprocessors)};
        plan.order.by_sequence = true;
        return plan;
    }
    const Attention a = attention(shape);
    return balanced_plan(order, sharing.most, tiles, shape.kv_heads, [&](int32_t tile) {
        return key_work<Keys, TileRows>(a, find_tile(tiles, Axis::keys, tile), 0).visits();
    }, last);
}

// Blocks of queries in a run of KeyWork::meeting_visit, so that all that is in work stays in the L2 cache. block_bytes: what a visit
// reads and writes of a block of queries.
inline int32_t meeting_run(const tn_attention_shape& shape, const Tiles& tiles, const Order& order, int32_t block_bytes) {
    constexpr int32_t most = 8;
    if (!shape.causal || shape.q_heads == shape.kv_heads) return 0;
    // In work: the heads of a section, of the sequences that the first wave of thread blocks reaches.
    const int32_t wave = std::clamp(order.at_once / order.section_heads, 1, tiles.count);
    const int64_t sequences = find_sequence(tiles, wave - 1) + 1, heads = int64_t{order.section_heads} * (shape.q_heads / shape.kv_heads);
    return static_cast<int32_t>(std::clamp<int64_t>(cache_share / (sequences * heads * block_bytes), 1, most));
}

}  // namespace trainer::cuda
