#include "ops.h"
#include "simd.h"

#include <algorithm>
#include <memory>
#include <new>
#include <omp.h>

namespace trainer::TN_ISA {

namespace {

// Blocks of C live in registers for one run of K; runs are added, in order, in a second accumulator. Neither the run nor
// the order depends on where an element lies or on how C is cut into tiles: that is what makes its bits its own.
constexpr int block_rows = 6, block_columns = 2 * lanes;
constexpr int64_t tile_rows = 144, tile_columns = 128, tile_depth = 256;  // panels and sums of a tile fit a second-level cache
constexpr int64_t worth_threads = 1 << 17;                                // multiplications

template <class Sum>
constexpr int64_t run_length = sizeof(Sum) == sizeof(float) ? 64 : 16;
static_assert(tile_depth % run_length<float> == 0 && tile_depth % run_length<double> == 0, "a run must not be cut");

using f32x4 = float __attribute__((vector_size(16)));
using f64x4 = double __attribute__((vector_size(32)));

TN_INLINE void add_to(float* sum, f32x8 v) { store(sum, load(sum) + v); }
TN_INLINE void add_to(double* sum, f32x8 v) {
    f32x4 halves[2];
    std::memcpy(halves, &v, sizeof v);
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
        f64x4 s;
        std::memcpy(&s, sum + 4 * i, sizeof s);
        s += __builtin_convertvector(halves[i], f64x4);
        std::memcpy(sum + 4 * i, &s, sizeof s);
    }
}

// sums[rows, 16] += A[rows, depth] * B[depth, 16].
template <int rows, class Sum>
TN_INLINE void add_block(int64_t depth, const float* a, int64_t row_stride, int64_t column_stride, const float* b, Sum* sums) {
    for (int64_t begin = 0; begin < depth; begin += run_length<Sum>) {
        const int64_t end = std::min(depth, begin + run_length<Sum>);
        f32x8 left[rows], right[rows];
#pragma GCC unroll 6
        for (int i = 0; i < rows; ++i) left[i] = right[i] = splat(0);
        for (int64_t p = begin; p < end; ++p) {
            const f32x8 b_left = load(b), b_right = load(b + lanes);
#pragma GCC unroll 6
            for (int i = 0; i < rows; ++i) {
                const f32x8 x = splat(a[i * row_stride]);
                left[i] += x * b_left;
                right[i] += x * b_right;
            }
            a += column_stride;
            b += block_columns;
        }
#pragma GCC unroll 6
        for (int i = 0; i < rows; ++i) {
            add_to(sums + i * block_columns, left[i]);
            add_to(sums + i * block_columns + lanes, right[i]);
        }
    }
}

template <class Sum>
void add_rows(int64_t rows, int64_t depth, const float* a, int64_t row_stride, int64_t column_stride, const float* b, Sum* sums) {
    switch (rows) {
        case 1: add_block<1>(depth, a, row_stride, column_stride, b, sums); break;
        case 2: add_block<2>(depth, a, row_stride, column_stride, b, sums); break;
        case 3: add_block<3>(depth, a, row_stride, column_stride, b, sums); break;
        case 4: add_block<4>(depth, a, row_stride, column_stride, b, sums); break;
        case 5: add_block<5>(depth, a, row_stride, column_stride, b, sums); break;
        default: add_block<6>(depth, a, row_stride, column_stride, b, sums); break;
    }
}

// to[rows, columns], row-major, as float32.
template <class T>
TN_INLINE void copy_rows(int64_t rows, int64_t columns, const T* from, int64_t stride, float* to, int64_t to_stride) {
    for (int64_t i = 0; i < rows; ++i)
        for_lanes(columns, [&](int64_t j, auto get, auto put) __attribute__((always_inline)) {
            put(to + i * to_stride + j, get(from + i * stride + j));
        });
}

// to[p*16 + i] = from[i*stride + p] for 8 x 8 elements.
template <class T>
TN_INLINE void transpose_block(const T* from, int64_t stride, float* to) {
    const i32x8 low = {0, 8, 1, 9, 4, 12, 5, 13}, high = {2, 10, 3, 11, 6, 14, 7, 15};
    const i32x8 low_pairs = {0, 1, 8, 9, 4, 5, 12, 13}, high_pairs = {2, 3, 10, 11, 6, 7, 14, 15};
    const i32x8 low_halves = {0, 1, 2, 3, 8, 9, 10, 11}, high_halves = {4, 5, 6, 7, 12, 13, 14, 15};
    f32x8 row[8], ones[8], pairs[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) row[i] = load(from + i * stride);
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        ones[i] = __builtin_shuffle(row[i], row[i + 1], low);
        ones[i + 1] = __builtin_shuffle(row[i], row[i + 1], high);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4)
#pragma GCC unroll 2
        for (int k = 0; k < 2; ++k) {
            pairs[i + 2 * k] = __builtin_shuffle(ones[i + k], ones[i + k + 2], low_pairs);
            pairs[i + 2 * k + 1] = __builtin_shuffle(ones[i + k], ones[i + k + 2], high_pairs);
        }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        store(to + i * block_columns, __builtin_shuffle(pairs[i], pairs[i + 4], low_halves));
        store(to + (i + 4) * block_columns, __builtin_shuffle(pairs[i], pairs[i + 4], high_halves));
    }
}

// Columns of B as panels [depth, 16], the last one filled up with zeros.
template <class T>
TN_INLINE void pack_columns(int64_t columns, int64_t depth, const T* from, int64_t stride, float* to) {
    for (int64_t j = 0; j < columns; j += block_columns, to += depth * block_columns) {
        const int64_t count = std::min<int64_t>(block_columns, columns - j);
        if (count < block_columns) std::fill_n(to, depth * block_columns, 0.0f);
        copy_rows(depth, count, from + j, stride, to, block_columns);
    }
}

// The same from B^T, [columns, depth].
template <class T>
TN_INLINE void pack_transposed_columns(int64_t columns, int64_t depth, const T* from, int64_t stride, float* to) {
    for (int64_t j = 0; j < columns; j += block_columns, to += depth * block_columns) {
        const int64_t count = std::min<int64_t>(block_columns, columns - j);
        if (count < block_columns) std::fill_n(to, depth * block_columns, 0.0f);
        const int64_t whole_columns = count / lanes * lanes, whole_depth = depth / lanes * lanes;
        for (int64_t i = 0; i < whole_columns; i += lanes)
            for (int64_t p = 0; p < whole_depth; p += lanes)
                transpose_block(from + (j + i) * stride + p, stride, to + p * block_columns + i);
        for (int64_t i = 0; i < count; ++i)
            for (int64_t p = i < whole_columns ? whole_depth : 0; p < depth; ++p)
                to[p * block_columns + i] = to_float(from[(j + i) * stride + p]);
    }
}

template <class Out, class Sum>
TN_INLINE void write_row(int64_t columns, const Sum* sums, int64_t panel_stride, Out* c, bool accumulate) {
    for (int64_t j = 0; j < columns; ++j) {
        const Sum sum = sums[j / block_columns * panel_stride + j % block_columns];
        from_float(static_cast<float>(accumulate ? sum + static_cast<Sum>(to_float(c[j])) : sum), c[j]);
    }
}

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Tiles of C, all about as large; at least one for each thread where there are enough blocks.
struct Tiling {
    int64_t rows, columns, across, count;  // across: tiles side by side in a row of them

    Tiling(int64_t m, int64_t n, int64_t threads) : rows(even(m, block_rows, tile_rows)), columns(even(n, block_columns, tile_columns)) {
        while (tiles(m, rows) * tiles(n, columns) < threads && (rows > block_rows || columns > block_columns)) {
            if (rows > columns || columns == block_columns)
                rows = round_up((rows + 1) / 2, block_rows);
            else
                columns = round_up((columns + 1) / 2, block_columns);
        }
        across = tiles(n, columns);
        count = tiles(m, rows) * across;
    }

private:
    static int64_t tiles(int64_t extent, int64_t size) { return (extent + size - 1) / size; }
    static int64_t even(int64_t extent, int64_t unit, int64_t limit) {
        const int64_t parts = tiles(extent, limit);
        return round_up((extent + parts - 1) / parts, unit);
    }
};

// Panels of A and B and the sums of one tile.
struct TileMemory {
    float *a, *b;
    void* sums;

    static int64_t bytes(const Tiling& tiling, int64_t depth, int64_t sum_size) {
        return round_up(4 * (tiling.rows + tiling.columns) * depth + tiling.rows * tiling.columns * sum_size, 64) + 128;
    }
    TileMemory(std::byte* memory, const Tiling& tiling, int64_t depth)
        : a(reinterpret_cast<float*>(memory)), b(a + round_up(tiling.rows * depth, 16)),
          sums(b + round_up(tiling.columns * depth, 16)) {}
};

template <class T, class Sum>
void multiply_tile(const tn_matmul_args& args, const Tiling& tiling, int64_t tile, const TileMemory& memory) {
    const int64_t i0 = tile / tiling.across * tiling.rows, j0 = tile % tiling.across * tiling.columns;
    const int64_t m = std::min(tiling.rows, args.rows - i0), n = std::min(tiling.columns, args.columns - j0);
    const int64_t panel_sums = round_up(m, block_rows) * block_columns;
    const T *a = static_cast<const T*>(args.a), *b = static_cast<const T*>(args.b);
    Sum* sums = static_cast<Sum*>(memory.sums);
    std::fill_n(sums, round_up(n, block_columns) / block_columns * panel_sums, Sum{0});

    for (int64_t p0 = 0; p0 < args.depth; p0 += tile_depth) {
        const int64_t depth = std::min(tile_depth, args.depth - p0);
        if (args.a_transposed)
            copy_rows(depth, m, a + p0 * args.a_stride + i0, args.a_stride, memory.a, tiling.rows);
        else
            copy_rows(m, depth, a + i0 * args.a_stride + p0, args.a_stride, memory.a, depth);
        if (args.b_transposed)
            pack_transposed_columns(n, depth, b + j0 * args.b_stride + p0, args.b_stride, memory.b);
        else
            pack_columns(n, depth, b + p0 * args.b_stride + j0, args.b_stride, memory.b);
        const int64_t row_stride = args.a_transposed ? 1 : depth, column_stride = args.a_transposed ? tiling.rows : 1;
        for (int64_t j = 0; j < n; j += block_columns)
            for (int64_t i = 0; i < m; i += block_rows)
                add_rows(std::min<int64_t>(block_rows, m - i), depth, memory.a + i * row_stride, row_stride, column_stride,
                         memory.b + j * depth, sums + j / block_columns * panel_sums + i * block_columns);
    }

    for (int64_t i = 0; i < m; ++i) {
        const int64_t first = (i0 + i) * args.c_stride + j0;
        if (args.result_dtype == TN_FLOAT32)
            write_row(n, sums + i * block_columns, panel_sums, static_cast<float*>(args.c_MN) + first, args.accumulate);
        else
            write_row(n, sums + i * block_columns, panel_sums, static_cast<bfloat16*>(args.c_MN) + first, args.accumulate);
    }
}

struct Free {
    void operator()(std::byte* memory) const { ::operator delete(memory, std::align_val_t{64}); }
};

template <class T, class Sum>
void multiply(const tn_matmul_args& args) {
    const bool threaded = args.rows * args.columns >= worth_threads / std::max<int64_t>(1, args.depth);
    const int64_t threads = threaded ? omp_get_max_threads() : 1;
    const Tiling tiling(args.rows, args.columns, threads);
    const int64_t depth = std::min(tile_depth, args.depth), bytes = TileMemory::bytes(tiling, depth, sizeof(Sum));
    const std::unique_ptr<std::byte, Free> memory(
        static_cast<std::byte*>(::operator new(static_cast<size_t>(bytes * threads), std::align_val_t{64})));
#pragma omp parallel for schedule(dynamic) num_threads(static_cast<int>(threads))
    for (int64_t tile = 0; tile < tiling.count; ++tile)
        multiply_tile<T, Sum>(args, tiling, tile, TileMemory(memory.get() + bytes * omp_get_thread_num(), tiling, depth));
}

}  // namespace

void matmul(const tn_matmul_args& args) {
    if (args.dtype == TN_FLOAT32)
        args.a_transposed ? multiply<float, double>(args) : multiply<float, float>(args);
    else
        args.a_transposed ? multiply<bfloat16, double>(args) : multiply<bfloat16, float>(args);
}

}  // namespace trainer::TN_ISA
