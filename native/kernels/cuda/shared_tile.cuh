// Tiles in shared memory. A tile of Rows rows lies in pages of 64 columns; a page's row is 128 bytes, its eight 16-byte
// chunks exchanged by the row number: free of bank conflicts for rows, columns and copies, and what wgmma calls 128B swizzle.
#pragma once
#include "ptx.cuh"

namespace trainer::cuda {

__host__ __device__ constexpr int pages(int columns) { return (columns + 63) / 64; }
__host__ __device__ constexpr int tile_bytes(int rows, int columns) { return rows * pages(columns) * 128; }

// Address of 16-byte chunk `chunk` (8 columns) of a row.
template <int Rows>
__device__ inline uint32_t chunk_address(uint32_t tile, int row, int chunk) {
    return tile + (chunk / 8) * (Rows * 128) + row * 128 + ((chunk ^ row) & 7) * 16;
}

// Starts copying rows [0, valid_rows) of width head_dim into the tile; the rest of it becomes zeros.
template <int Rows, int Columns, int Threads>
__device__ inline void copy_tile(uint32_t tile, const uint16_t* from, int64_t row_stride, int valid_rows, int head_dim, int thread) {
    constexpr int width = pages(Columns) * 8, step = Threads / width;  // chunks of a row, rows of a pass
    static_assert(step % 8 == 0, "a thread meets the same exchange of chunks in every pass");
    const int row = thread / width, chunk = thread % width;
    if (chunk * 8 >= Columns) return;
    const uint32_t to = chunk_address<Rows>(tile, row, chunk);
    const int valid = chunk * 8 < head_dim ? valid_rows - row : 0;
    from += row * row_stride + chunk * 8;
#pragma unroll
    for (int pass = 0; pass < Rows / step; ++pass) {
        copy_16(to + pass * step * 128, from, pass * step < valid);
        from += step * row_stride;
    }
}

// Operands of mma, by the address that this lane gives ldmatrix for the first 16 rows and columns of a tile. A step of 16
// columns exchanges bits 5 and 6 of it, since the tile is aligned to 1024 bytes; 16 rows are 2048 bytes.
__device__ inline uint32_t a_lane(uint32_t tile, int lane) { return chunk_address<1>(tile, lane % 16, lane / 16); }
__device__ inline uint32_t b_lane(uint32_t tile, int lane) { return chunk_address<1>(tile, lane / 16 * 8 + lane % 8, lane / 8 % 2); }

template <int Rows>
__device__ inline uint32_t step_address(uint32_t lane_address, int row_step, int column_step) {
    return (lane_address ^ (column_step % 4 * 32)) + row_step * 2048 + column_step / 4 * (Rows * 128);
}

// Operand A: 16 rows and columns. at = a_lane(...).
template <int Rows>
__device__ inline void load_a(uint32_t (&a)[4], uint32_t at, int row_step, int column_step) {
    load_matrices(a, step_address<Rows>(at, row_step, column_step));
}

// Operand B where the tile's rows are mma's n: two n8 blocks, as {b0, b1} of the first, then of the second. at = b_lane(...).
template <int Rows>
__device__ inline void load_b(uint32_t (&b)[4], uint32_t at, int row_step, int column_step) {
    load_matrices(b, step_address<Rows>(at, row_step, column_step));
}

// Operand B where the tile's rows are mma's k: two n8 blocks of columns, in the same order. at = a_lane(...).
template <int Rows>
__device__ inline void load_b_transposed(uint32_t (&b)[4], uint32_t at, int row_step, int column_step) {
    load_matrices_transposed(b, step_address<Rows>(at, row_step, column_step));
}

// Operand A where the tile's rows are mma's k. at = b_lane(...).
template <int Rows>
__device__ inline void load_a_transposed(uint32_t (&a)[4], uint32_t at, int row_step, int column_step) {
    load_matrices_transposed(a, step_address<Rows>(at, row_step, column_step));
}

// Operand A, as load_a would read it, back into a tile. at = accumulator_lane(...).
__device__ inline uint32_t accumulator_lane(uint32_t tile, int lane) { return chunk_address<1>(tile, lane / 4, 0) + lane % 4 * 4; }

template <int Rows>
__device__ inline void store_a(uint32_t at, const uint32_t (&a)[4], int row_step, int column_step) {
    const uint32_t to = step_address<Rows>(at, row_step, column_step);
#pragma unroll
    for (int e = 0; e < 4; ++e) store_shared((to ^ (e / 2 * 16)) + e % 2 * 8 * 128, a[e]);
}

// Accumulators of 16 rows, times factor[row/8], into rows [row, row+16) of a tile, from the chunk first_chunk on.
template <class T, int Rows, int Blocks>
__device__ inline void store_rows(uint32_t tile, const float (&d)[Blocks][4], const float (&factor)[2], int row, int lane,
                                  int first_chunk = 0) {
#pragma unroll
    for (int n = 0; n < Blocks; ++n)
#pragma unroll
        for (int half = 0; half < 2; ++half)
            store_shared(chunk_address<Rows>(tile, row + lane / 4 + 8 * half, first_chunk + n) + lane % 4 * 4,
                         pack<T>(d[n][2 * half] * factor[half], d[n][2 * half + 1] * factor[half]));
}

// One warp writes rows [row, row + Count) of a tile to global memory, as far as they are valid.
template <int Rows, int Columns, int Count>
__device__ inline void write_rows(uint32_t tile, uint16_t* to, int64_t row_stride, int row, int valid_rows, int head_dim, int lane) {
    constexpr int chunks = Columns / 8;
#pragma unroll 4
    for (int i = lane; i < Count * chunks; i += 32) {
        const int r = row + i / chunks, chunk = i % chunks;
        if (r < valid_rows && chunk * 8 < head_dim)
            *reinterpret_cast<uint4*>(to + r * row_stride + chunk * 8) = load_shared_16(chunk_address<Rows>(tile, r, chunk));
    }
}

}  // namespace trainer::cuda
