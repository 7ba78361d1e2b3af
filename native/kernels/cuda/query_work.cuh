// What one tile of query rows has to visit, for the kernels whose thread blocks own queries.
#pragma once
#include "tiles.h"

namespace trainer::cuda {

// Rows of one head: what a warpgroup owns.
struct QueryPart {
    int head, first_row;
};

template <int Parts>
struct QueryWork {
    Sequence sequence;
    QueryPart part[Parts];           // the last tile of a sequence may have some whose rows all lie beyond it
    int kv_head;
    int begin_block, end_block;      // of keys, that any part sees
    int all_see_begin, all_see_end;  // blocks [all_see_begin, all_see_end) need no mask
};

// How these kernels' tables are cut. group: query heads a key head.
template <int Parts>
__host__ __device__ inline Cut query_cut(int32_t group) {
    return {64, group, Parts};
}

template <int Parts, int Keys>
__host__ __device__ inline QueryWork<Parts> query_work(const Attention& a, const Cut& cut, const Tile& tile, int kv_head) {
    QueryWork<Parts> w;
    w.sequence = tile.sequence;
    w.kv_head = kv_head;
    int head = tile.level * Parts % cut.heads, block = tile.level * Parts / cut.heads;
    for (int i = 0; i < Parts; ++i) {
        w.part[i] = {w.kv_head * cut.heads + head, block * cut.rows};
        if (++head < cut.heads) continue;
        head = 0;
        ++block;
    }
    const int first_row = w.part[0].first_row, last_row = min(w.part[Parts - 1].first_row + cut.rows, tile.sequence.q_length) - 1;
    const Visible first = visible_keys(a, tile.sequence, first_row), last = visible_keys(a, tile.sequence, last_row);
    w.begin_block = first.from / Keys;
    w.end_block = first.from < last.end ? (last.end + Keys - 1) / Keys : w.begin_block;
    w.all_see_begin = (last.from + Keys - 1) / Keys;
    w.all_see_end = max(first.end, 0) / Keys;
    return w;
}

// index counts tiles times key heads in the order of `order`.
template <int Parts, int Keys>
__device__ inline QueryWork<Parts> query_work(const Attention& a, const Tiles& tiles, const Order& order, int index) {
    const HeadTile at = find_head_tile(tiles, order, a.kv_heads, index);
    const Cut cut = query_cut<Parts>(tiles.cut.heads);
    return query_work<Parts, Keys>(a, cut, find_tile(tiles, cut, Axis::queries, at.tile), at.head);
}

}  // namespace trainer::cuda
