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
    int kv_head, first_key, group, begin_block, end_block;
    int all_see_begin, all_see_end;  // blocks [all_see_begin, all_see_end) of queries need no mask, given zeros beyond the sequence

    __device__ int visits() const { return group * (end_block - begin_block); }
    __device__ Visit visit(int index) const {
        const int blocks = end_block - begin_block;
        return {kv_head * group + index / blocks, begin_block + index % blocks};
    }
    __device__ bool masked(int block) const { return block < all_see_begin || block >= all_see_end; }
};

// index counts tiles times key heads in the order of `order`.
template <int Keys, int TileRows>
__device__ inline KeyWork key_work(const Attention& a, const Tiles& tiles, const Order& order, int index) {
    const HeadTile at = find_head_tile(tiles, order, a.kv_heads, index);
    const Tile tile = find_tile(tiles, Axis::keys, at.tile);
    const Sequence& s = tile.sequence;
    KeyWork w;
    w.sequence = s;
    w.kv_head = at.head;
    w.group = a.q_heads / a.kv_heads;
    w.first_key = (tile.levels - 1 - tile.level) * Keys;  // under a causal mask the first keys have the most work
    const int last_key = min(w.first_key + Keys, s.k_length) - 1;
    const Visible seeing = seeing_queries(a, s, w.first_key, last_key);
    w.begin_block = seeing.from / TileRows;
    w.end_block = seeing.from < seeing.end ? (seeing.end + TileRows - 1) / TileRows : w.begin_block;
    const bool whole = w.first_key + Keys <= s.k_length;
    w.all_see_begin = whole ? (seeing_queries(a, s, last_key, last_key).from + TileRows - 1) / TileRows : w.end_block;
    const int first_key_end = seeing_queries(a, s, w.first_key, w.first_key).end;
    w.all_see_end = first_key_end < s.q_length ? first_key_end / TileRows : w.end_block;
    return w;
}

}  // namespace trainer::cuda
