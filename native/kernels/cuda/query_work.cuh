// What one tile of query rows has to visit, for the kernels whose thread blocks own queries.
#pragma once
#include "tiles.h"

namespace trainer::cuda {

struct QueryWork {
    Sequence sequence;
    int head, kv_head, first_row;
    int begin_block, end_block;      // of keys
    int all_see_begin, all_see_end;  // blocks [all_see_begin, all_see_end) need no mask
};

// index counts tiles times query heads in the order of `order`.
template <int TileRows, int Keys>
__device__ inline QueryWork query_work(const Attention& a, const Tiles& tiles, const Order& order, int index) {
    const HeadTile at = find_head_tile(tiles, order, a.q_heads, index);
    const Tile tile = find_tile(tiles, Axis::queries, at.tile);
    QueryWork w;
    w.sequence = tile.sequence;
    w.head = at.head;
    w.kv_head = w.head / (a.q_heads / a.kv_heads);
    w.first_row = tile.level * TileRows;
    const int last_row = min(w.first_row + TileRows, tile.sequence.q_length) - 1;
    const Visible first = visible_keys(a, tile.sequence, w.first_row), last = visible_keys(a, tile.sequence, last_row);
    w.begin_block = first.from / Keys;
    w.end_block = first.from < last.end ? (last.end + Keys - 1) / Keys : w.begin_block;
    w.all_see_begin = (last.from + Keys - 1) / Keys;
    w.all_see_end = max(first.end, 0) / Keys;
    return w;
}

}  // namespace trainer::cuda
