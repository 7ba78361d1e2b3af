// Words of sm_90a: barriers in shared memory, bulk tensor copies, warpgroup registers and products.
#pragma once
#include "shared_tile.cuh"
#include "wgmma.cuh"

#include <cuda.h>

namespace trainer::cuda {

__device__ inline void init_barrier(uint32_t barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// Makes initialised barriers visible to the copy engine; a __syncthreads must follow.
__device__ inline void publish_barriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

__device__ inline void arrive(uint32_t barrier) { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory"); }

__device__ inline void arrive_expecting(uint32_t barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

// Until the barrier's phase of this parity is over. A fresh barrier is in phase 0; the phase before counts as over.
__device__ inline void wait(uint32_t barrier, uint32_t parity) {
    asm volatile("{.reg .pred p;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
                 "@!p bra again;}" ::"r"(barrier), "r"(parity)
                 : "memory");
}

// A position in a ring of stages; parity is that of the phase which fills the stage.
template <int Stages>
struct Turn {
    int stage = 0;
    uint32_t parity = 0;

    __device__ void advance() {
        if (++stage == Stages) {
            stage = 0;
            parity ^= 1;
        }
    }
};

// Columns [column, column+64) of tokens [token, ...) of one head, as many as the map's box says, to one page of a tile.
__device__ inline void copy_box(uint32_t to, const CUtensorMap& map, uint32_t barrier, int column, int head, int token) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];" ::"r"(to),
                 "l"(&map), "r"(barrier), "r"(column), "r"(head), "r"(token)
                 : "memory");
}

// Writes what lies in shared memory as copy_box would have brought it to global memory, in the background, or adds it to what is there.
__device__ inline void store_box(const CUtensorMap& map, uint32_t from, int column, int head, int token) {
    asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(&map), "r"(from),
                 "r"(column), "r"(head), "r"(token)
                 : "memory");
}

__device__ inline void add_box(const CUtensorMap& map, uint32_t from, int column, int head, int token) {
    asm volatile("cp.reduce.async.bulk.tensor.3d.global.shared::cta.add.tile.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(&map), "r"(from),
                 "r"(column), "r"(head), "r"(token)
                 : "memory");
}

__device__ inline void close_bulk_group() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }

// Until the bulk groups of this thread have read shared memory; global memory has them when the kernel has ended.
__device__ inline void wait_bulk_reads() { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }

// Four 8x8 matrices, laid out as load_matrices reads them; lane l gives the address of row l%8 of matrix l/8.
__device__ inline void store_matrices(uint32_t address, const uint32_t (&r)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(address), "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
                 : "memory");
}

__device__ inline void prefetch(const CUtensorMap& map) { asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory"); }

// Ordinary writes of this thread to shared memory become visible to wgmma and the copy engine; a barrier must follow.
__device__ inline void publish_shared() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Until all threads of the cluster's thread blocks have come here or have ended; what they wrote to shared memory is then seen.
__device__ inline void sync_cluster() {
    asm volatile("barrier.cluster.arrive.release.aligned;\n"
                 "barrier.cluster.wait.acquire.aligned;" ::
                     : "memory");
}

__device__ inline void store_shared_float4(uint32_t address, const float (&x)[4]) {
    asm volatile("st.shared.v4.f32 [%0], {%1,%2,%3,%4};" ::"r"(address), "f"(x[0]), "f"(x[1]), "f"(x[2]), "f"(x[3]) : "memory");
}

// From the shared memory of the cluster's thread block `rank`, where this one has `address`.
__device__ inline float4 load_shared_float4(uint32_t address, int rank) {
    float4 v;
    asm volatile("{.reg .b32 there;\n"
                 "mapa.shared::cluster.u32 there, %4, %5;\n"
                 "ld.shared::cluster.v4.f32 {%0,%1,%2,%3}, [there];}"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "r"(address), "r"(rank)
                 : "memory");
    return v;
}

template <int Registers>
__device__ inline void shrink_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Registers));
}

template <int Registers>
__device__ inline void grow_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Registers));
}

// Before the first product of a group, and after any other use of the registers that it reads or adds to.
__device__ inline void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void close_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

template <int Open>
__device__ inline void wait_products() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Open) : "memory");
}

// Keeps the compiler from moving uses of an accumulator across a wait.
template <int Blocks>
__device__ inline void pin(float (&d)[Blocks][4]) {
#pragma unroll
    for (int n = 0; n < Blocks; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) asm volatile("" : "+f"(d[n][e])::"memory");
}

// A tile, or part of one, as wgmma reads it. Rows that run along k (columns are m or n) need page_bytes, the distance
// between pages of 64 columns; for rows along m or n it is not used.
__device__ inline uint64_t describe(uint32_t address, int page_bytes = 16) {
    constexpr uint64_t eight_rows = 8 * 128, swizzle_128 = 1;
    return uint64_t{(address & 0x3ffff) >> 4} | uint64_t(page_bytes >> 4) << 16 | (eight_rows >> 4) << 32 | swizzle_128 << 62;
}

// d = a * b over Columns columns of both tiles, of RowsA and RowsB rows; in flight until wait_products.
template <class T, int Columns, int RowsA, int RowsB, int Blocks>
__device__ inline void start_product(float (&d)[Blocks][4], uint64_t a, uint64_t b) {
    begin_products();
    wgmma_first(T{}, d, a, b);
#pragma unroll
    for (int step = 1; step < Columns / 16; ++step) {  // 32 bytes along a row, or on to the next page
        const uint64_t along = step % 4 * 32, page = step / 4 * 128;
        wgmma(T{}, d, a + ((page * RowsA + along) >> 4), b + ((page * RowsB + along) >> 4));
    }
    close_products();
}

// The same with a in registers, over columns of one page.
template <class T, int Steps, int Blocks>
__device__ inline void start_product(float (&d)[Blocks][4], const uint32_t (&a)[Steps][4], uint64_t b) {
    static_assert(Steps <= 4);
    begin_products();
    wgmma_from_registers_first(T{}, d, a[0], b);
#pragma unroll
    for (int step = 1; step < Steps; ++step) wgmma_from_registers(T{}, d, a[step], b + ((step * 32) >> 4));
    close_products();
}

// d = a * b over Rows rows of both tiles, columns of a being m; in flight until wait_products.
template <class T, int Rows, int Blocks>
__device__ inline void start_product_over_rows(float (&d)[Blocks][4], uint64_t a, uint64_t b) {
    begin_products();
    wgmma_over_rows_first(T{}, d, a, b);
#pragma unroll
    for (int step = 1; step < Rows / 16; ++step) wgmma_over_rows(T{}, d, a + ((step * 16 * 128) >> 4), b + ((step * 16 * 128) >> 4));
    close_products();
}

// d += a * b over the rows of b, with a in registers; in flight, a included, until wait_products.
template <class T, int Steps, int Blocks>
__device__ inline void start_sum(float (&d)[Blocks][4], const uint32_t (&a)[Steps][4], uint64_t b) {
    begin_products();
#pragma unroll
    for (int step = 0; step < Steps; ++step) wgmma(T{}, d, a[step], b + ((step * 16 * 128) >> 4));
    close_products();
}

}  // namespace trainer::cuda
