// What one tile of keys has to visit, for the kernels whose thread blocks own keys.
#pragma once
#include "tiles.h"

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
    bool meets, descends;            // see meeting_visit
    int rank, cluster;               // of `cluster` thread blocks that share the visits, this one takes every cluster-th from `rank` on

    __host__ __device__ int visits() const {
        const int all = group * (end_block - begin_block);
        return cluster == 1 ? all : (all + cluster - 1 - rank) / cluster;
    }

    // Heads in turn, queries upwards.
    __device__ Visit visit(int index) const {
        const int blocks = end_block - begin_block;
        return {kv_head * group + index / blocks, begin_block + index % blocks};
    }

    // All heads of a run of query blocks, run after run, so that whoever works on these heads does so at the same queries: they and
    // their dq come from DRAM once, and what DRAM takes of the chip's power its clock would pay for. Under a causal mask the first
    // thread blocks start together and end one after another, the next start as those end and end together, and so on in turn:
    // the former come down from the last queries, the latter go up. Within a run each begins elsewhere, since additions to one
    // place of dq wait for each other.
    __device__ Visit meeting_visit(int index) const {
        constexpr int run = 8, apart = 11;
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
    w.meets = w.descends = false;
    w.rank = rank;
    w.cluster = cluster;
    return w;
}

// index counts tiles times key heads in the order of `order`.
template <int Keys, int TileRows>
__device__ inline KeyWork key_work(const Attention& a, const Tiles& tiles, const Order& order, int index, int rank = 0, int cluster = 1) {
    const HeadTile at = find_head_tile(tiles, order, a.kv_heads, index);
    KeyWork w = key_work<Keys, TileRows>(a, find_tile(tiles, Axis::keys, at.tile), at.head, rank, cluster);
    w.meets = a.causal && w.group > 1;
    w.descends = index / order.at_once % 2 == 0;
    return w;
}

// For tables cut by Keys: l2_order in clusters of `least`, balanced by as much as clusters of `most`.
template <int Keys, int TileRows>
Plan key_plan(const tn_attention_shape& shape, const Tiles& tiles, int32_t multiprocessors, int32_t least, int32_t most) {
    const int64_t group_bytes = 8 * shape.q_tokens * shape.head_dim * (shape.q_heads / shape.kv_heads);
    const Plan plan{l2_order(group_bytes, shape.kv_heads, multiprocessors / least), least};
    const Attention a = attention(shape);
    return balanced_plan(plan, most, tiles, shape.kv_heads, [&](int32_t tile) {
        return key_work<Keys, TileRows>(a, find_tile(tiles, Axis::keys, tile), 0).visits();
    });
}

}  // namespace trainer::cuda
