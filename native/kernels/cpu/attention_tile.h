// What both passes of attention share: the tiling, which keys a query sees, and how tiles are brought to float32.
//
// Scores are kept transposed, [keys, queries]: softmax then runs along vector lanes, one query a lane, without a single
// horizontal reduction, and queries that do not fill a tile are dead lanes.
#pragma once
#include "matmul.h"
#include "simd.h"
#include "trainer_native.h"

#include <algorithm>
#include <limits>
#include <vector>

namespace trainer::TN_ISA {

constexpr int64_t tile_queries = 64;
constexpr int64_t tile_keys = 64;
constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

constexpr int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

// Width of a row-major tile row: H rounded up to what matmul takes as columns.
inline int64_t padded_dim(const tn_attention_shape& s) { return round_up(s.head_dim, matmul_columns); }

// Some consecutive queries of one sequence.
struct QueryTile {
    int64_t q_begin;   // first token
    int64_t rows;      // 1..tile_queries
    int64_t columns;   // rows rounded up to whole register blocks
    int64_t k_begin;   // first key token of the sequence
    int64_t k_count;   // keys of the sequence
    int64_t position;  // key position of the first query
};

inline QueryTile query_tile(const tn_attention_shape& s, int32_t sequence, int64_t first) {
    const int64_t q_begin = s.cu_seqlens_q[sequence], q_count = s.cu_seqlens_q[sequence + 1] - q_begin;
    const int64_t k_begin = s.cu_seqlens_k[sequence], k_count = s.cu_seqlens_k[sequence + 1] - k_begin;
    const int64_t rows = std::min(tile_queries, q_count - first);
    return {q_begin + first, rows, round_up(rows, matmul_columns), k_begin, k_count, first + k_count - q_count};
}

// Keys [begin, end) that at least one query of the tile sees.
struct KeyRange {
    int64_t begin, end;
};

inline KeyRange visible_keys(const tn_attention_shape& s, const QueryTile& t) {
    const int64_t last = t.position + t.rows - 1;
    const int64_t end = s.causal ? std::clamp<int64_t>(last + 1, 0, t.k_count) : t.k_count;
    const int64_t begin = s.window < 0 ? 0 : std::clamp<int64_t>(t.position - s.window, 0, end);
    return {begin, end};
}

// Sets scores_KQ[j][i] of pairs that must not see each other to -infinity; key j of the tile is key `first + j`.
TN_INLINE void mask_scores(const tn_attention_shape& s, const QueryTile& t, int64_t first, int64_t keys, float* scores_KQ) {
    const bool right = s.causal && first + keys - 1 > t.position;
    const bool left = s.window >= 0 && first < t.position + t.rows - 1 - s.window;
    if (!right && !left) return;
    for (int64_t j = 0; j < keys; ++j)
        for (int64_t i = 0; i < t.columns; ++i) {
            const int64_t distance = t.position + i - (first + j);
            if ((right && distance < 0) || (left && distance > s.window)) scores_KQ[j * t.columns + i] = minus_infinity;
        }
}

// rows x dim elements to float32, row-major with row length `padded`, the rest of each row zero.
template <class T>
TN_INLINE void copy_rows(const T* from, int64_t stride, int64_t rows, int64_t dim, int64_t padded, float* to) {
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t h = 0; h < padded; h += lanes) {
            const int64_t left = dim - h;
            store(to + r * padded + h,
                  left >= lanes ? load(from + r * stride + h) : left > 0 ? load_part(from + r * stride + h, left) : splat(0));
        }
}

// to[h][r] = factor * from[r][h], columns beyond `rows` zero.
template <class T>
TN_INLINE void copy_transposed(const T* from, int64_t stride, int64_t rows, int64_t columns, int64_t dim, float factor, float* to) {
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t h = 0; h < dim; ++h) to[h * columns + r] = factor * to_float(from[r * stride + h]);
    for (int64_t h = 0; h < dim; ++h)
        for (int64_t r = rows; r < columns; ++r) to[h * columns + r] = 0;
}

template <class T>
TN_INLINE T* head_at(const tn_tensor& t, int64_t token, int64_t head) {
    return static_cast<T*>(t.data) + token * t.token_stride + head * t.head_stride;
}

}  // namespace trainer::TN_ISA
