// RMSNorm and its gradient: a thread holds eight columns of a row, whose other columns its neighbours hold.
#include "device.h"
#include "elements.cuh"
#include "engine.h"

#include <algorithm>
#include <limits>

namespace trainer::cuda {

namespace {

constexpr int piece = 8, most_width = 1024 * piece, warp = 32;

// A thread block has as many rows at a time as fit into 256 threads, or one.
template <int Lanes>
constexpr int threads = Lanes < 256 ? 256 : Lanes;
template <int Lanes>
constexpr int groups = threads<Lanes> / Lanes;

// Thread blocks of a backward pass, each of which sums dweight over its rows. The same on every chip, so that the bits are, too.
constexpr int64_t most_blocks = 528;

// An absent tensor has no data.
struct Rows {
    const void* data;
    int64_t token_stride, head_stride;

    __device__ int64_t at(int64_t row, uint32_t heads) const {
        const uint32_t index = static_cast<uint32_t>(row), token = index / heads;  // 64-bit divisions take long
        return token * token_stride + (index - token * heads) * head_stride;
    }
};

struct Forward {
    Rows x, residual;
    void *sum, *y;
    int64_t sum_token_stride, sum_head_stride, y_token_stride, y_head_stride;
    const void* weight;
    float* rstd;
    int64_t rows;
    uint32_t heads;
    int32_t width;
    float epsilon;
    bool float_weight;
};

struct Backward {
    Rows sum, dy, dsum, dx;
    const void* weight;
    const float* rstd;
    float* partial_BD;  // of each thread block, null where dweight is not wanted
    int64_t rows;
    uint32_t heads;
    int32_t width;
    bool float_weight;
};

struct Total {
    const float* partial_BD;
    void* dweight;
    int32_t blocks, width;
    bool float_weight;
};

__device__ inline float rounded(Fp32, float x) { return x; }
__device__ inline float rounded(Bf16, float x) { return unpack<Bf16>(pack<Bf16>(x, 0)).x; }

__device__ inline void load_weight(bool is_float, const void* from, int64_t at, float (&x)[piece]) {
    if (is_float) load(Fp32{}, from, at, x);
    else load(Bf16{}, from, at, x);
}

// Over the lanes of a row, the same for each of them. Neighbouring calls take turns with the shared memory, so that one barrier is enough.
template <int Lanes>
__device__ inline float sum_of_row(float x, [[maybe_unused]] int turn) {
    constexpr int within = Lanes < warp ? Lanes : warp;
#pragma unroll
    for (int lanes = within / 2; lanes > 0; lanes /= 2) x += __shfl_xor_sync(0xffffffffu, x, lanes);
    if constexpr (Lanes > warp) {
        constexpr int warps = Lanes / warp;
        __shared__ float of_warp[2][threads<Lanes> / warp];
        const int lane = threadIdx.x % warp;
        if (lane == 0) of_warp[turn][threadIdx.x / warp] = x;
        __syncthreads();
        x = lane < warps ? of_warp[turn][threadIdx.x / Lanes * warps + lane] : 0.f;
#pragma unroll
        for (int lanes = warp / 2; lanes > 0; lanes /= 2) x += __shfl_xor_sync(0xffffffffu, x, lanes);
    }
    return x;
}

template <class T, int Lanes>
__global__ void __launch_bounds__(threads<Lanes>) forward(const __grid_constant__ Forward p) {
    const int64_t row = int64_t{blockIdx.x} * groups<Lanes> + threadIdx.x / Lanes;
    const int column = threadIdx.x % Lanes * piece;
    const bool valid = row < p.rows && column < p.width;
    float x[piece] = {};
    if (valid) {
        load(T{}, p.x.data, p.x.at(row, p.heads) + column, x);
        if (p.residual.data) {
            float residual[piece];
            load(T{}, p.residual.data, p.residual.at(row, p.heads) + column, residual);
#pragma unroll
            for (int i = 0; i < piece; ++i) x[i] = rounded(T{}, x[i] + residual[i]);
            store(T{}, p.sum, Rows{p.sum, p.sum_token_stride, p.sum_head_stride}.at(row, p.heads) + column, x);
        }
    }
    float squares = 0;
#pragma unroll
    for (int i = 0; i < piece; ++i) squares = fmaf(x[i], x[i], squares);
    const float rstd = 1.f / sqrtf(sum_of_row<Lanes>(squares, 0) / p.width + p.epsilon);
    if (!valid) return;
    if (column == 0) p.rstd[row] = rstd;
    float weight[piece];
    load_weight(p.float_weight, p.weight, column, weight);
#pragma unroll
    for (int i = 0; i < piece; ++i) x[i] *= rstd * weight[i];
    store(T{}, p.y, Rows{p.y, p.y_token_stride, p.y_head_stride}.at(row, p.heads) + column, x);
}

// With n = x * rstd and g = dy * weight: dx = rstd * (g - n * mean(g * n)), dweight = sum of dy * n over the rows.
template <class T, int Lanes>
__global__ void __launch_bounds__(threads<Lanes>) backward(const __grid_constant__ Backward p) {
    const int group = threadIdx.x / Lanes, column = threadIdx.x % Lanes * piece;
    const bool has_column = column < p.width;
    float weight[piece] = {}, dweight[piece] = {};
    if (has_column) load_weight(p.float_weight, p.weight, column, weight);
    int turn = 0;
    for (int64_t first = int64_t{blockIdx.x} * groups<Lanes>; first < p.rows; first += int64_t{gridDim.x} * groups<Lanes>) {
        const int64_t row = first + group;
        const bool valid = row < p.rows && has_column;
        float x[piece] = {}, dy[piece] = {}, dsum[piece] = {};
        float rstd = 0;
        if (valid) {
            rstd = p.rstd[row];
            load(T{}, p.sum.data, p.sum.at(row, p.heads) + column, x);
            load(T{}, p.dy.data, p.dy.at(row, p.heads) + column, dy);
            if (p.dsum.data) load(T{}, p.dsum.data, p.dsum.at(row, p.heads) + column, dsum);
        }
        float products = 0;
#pragma unroll
        for (int i = 0; i < piece; ++i) {
            x[i] *= rstd;
            dweight[i] = fmaf(dy[i], x[i], dweight[i]);
            dy[i] *= weight[i];
            products = fmaf(dy[i], x[i], products);
        }
        const float mean = sum_of_row<Lanes>(products, turn) / p.width;
        turn ^= 1;
#pragma unroll
        for (int i = 0; i < piece; ++i) x[i] = fmaf(rstd, dy[i] - x[i] * mean, dsum[i]);
        if (valid) store(T{}, const_cast<void*>(p.dx.data), p.dx.at(row, p.heads) + column, x);
    }
    if (!p.partial_BD) return;
    if constexpr (groups<Lanes> > 1) {
        __shared__ float of_group[groups<Lanes>][Lanes * piece];
#pragma unroll
        for (int i = 0; i < piece; ++i) of_group[group][column + i] = dweight[i];
        __syncthreads();
        if (group > 0) return;
#pragma unroll
        for (int other = 1; other < groups<Lanes>; ++other)
#pragma unroll
            for (int i = 0; i < piece; ++i) dweight[i] += of_group[other][column + i];
    }
    if (has_column) store(Fp32{}, p.partial_BD, int64_t{blockIdx.x} * p.width + column, dweight);
}

constexpr int total_columns = 32, total_slices = 32;

// dweight from the sums of all thread blocks, in float64 at the end.
__global__ void __launch_bounds__(total_columns* total_slices) total(const __grid_constant__ Total p) {
    const int at = threadIdx.x % total_columns, slice = threadIdx.x / total_columns, column = blockIdx.x * total_columns + at;
    float sum = 0;
    if (column < p.width)
        for (int block = slice; block < p.blocks; block += total_slices) sum += p.partial_BD[int64_t{block} * p.width + column];
    __shared__ float of_slice[total_slices][total_columns];
    of_slice[slice][at] = sum;
    __syncthreads();
    if (slice > 0 || column >= p.width) return;
    double all = 0;
#pragma unroll
    for (int i = 0; i < total_slices; ++i) all += of_slice[i][at];
    const float result[1] = {static_cast<float>(all)};
    if (p.float_weight) store(Fp32{}, p.dweight, column, result);
    else store(Bf16{}, p.dweight, column, result);
}

// start(element type, lanes of a row)
template <class Start>
void for_rows(tn_dtype dtype, int64_t width, const Start& start) {
    const auto of_type = [&](auto type) {
        if (width <= 16 * piece) start(type, std::integral_constant<int, 16>{});
        else if (width <= 32 * piece) start(type, std::integral_constant<int, 32>{});
        else if (width <= 128 * piece) start(type, std::integral_constant<int, 128>{});
        else if (width <= 256 * piece) start(type, std::integral_constant<int, 256>{});
        else if (width <= 512 * piece) start(type, std::integral_constant<int, 512>{});
        else start(type, std::integral_constant<int, 1024>{});
    };
    if (dtype == TN_FLOAT32) of_type(Fp32{});
    else of_type(Bf16{});
}

int64_t backward_blocks(int64_t rows, int64_t width) {
    int64_t blocks = 0;
    for_rows(TN_FLOAT32, width, [&](auto, auto lanes) {
        constexpr int at_a_time = groups<decltype(lanes)::value>;
        blocks = std::min(most_blocks, (rows + at_a_time - 1) / at_a_time);
    });
    return blocks;
}

void require_size(int64_t rows, int64_t width) {
    if (rows > std::numeric_limits<int32_t>::max()) refuse("tokens", "is more than one launch can number");
    if (width % piece != 0 || width > most_width)
        throw Refusal(TN_UNSUPPORTED, "width: must be a multiple of 8 up to 8192 on CUDA, got " + std::to_string(width));
}

Rows rows_of(const tn_tensor& t, const Device& device, int64_t tokens, int64_t heads, const char* argument) {
    if (t.data == nullptr) return {};
    require_on_device(t.data, device, argument);
    require(takes_eight(t.data), argument, "must be aligned to 16 bytes on CUDA");
    require(tokens == 1 || takes_eight(t.token_stride), argument, "token_stride must be a multiple of 8 on CUDA");
    require(heads == 1 || takes_eight(t.head_stride), argument, "head_stride must be a multiple of 8 on CUDA");
    return {t.data, t.token_stride, t.head_stride};
}

const void* weight_of(const void* weight, const Device& device) {
    require_on_device(weight, device, "weight_D");
    require(takes_eight(weight), "weight_D", "must be aligned to 16 bytes on CUDA");
    return weight;
}

}  // namespace

int64_t rms_norm_backward_scratch_bytes(int64_t tokens, int64_t heads, int64_t width) {
    require_size(tokens * heads, width);
    return backward_blocks(tokens * heads, width) * width * static_cast<int64_t>(sizeof(float));
}

void rms_norm_forward(const tn_rms_norm_forward_args& args, void* stream) {
    require_size(args.tokens * args.heads, args.width);
    if (args.tokens == 0) return;
    const Device device = current_device();
    const Rows sum = rows_of(args.sum_TND, device, args.tokens, args.heads, "sum_TND"), y = rows_of(args.y_TND, device, args.tokens, args.heads, "y_TND");
    require_on_device(args.rstd_TN, device, "rstd_TN");
    const Forward p{rows_of(args.x_TND, device, args.tokens, args.heads, "x_TND"), rows_of(args.residual_TND, device, args.tokens, args.heads, "residual_TND"),
                    args.sum_TND.data, args.y_TND.data, sum.token_stride, sum.head_stride, y.token_stride, y.head_stride,
                    weight_of(args.weight_D, device), args.rstd_TN, args.tokens * args.heads, static_cast<uint32_t>(args.heads),
                    static_cast<int32_t>(args.width), args.epsilon, args.weight_dtype == TN_FLOAT32};
    for_rows(args.dtype, args.width, [&]([[maybe_unused]] auto type, auto lanes) {
        constexpr int count = decltype(lanes)::value;
        launch(forward<decltype(type), count>, "RMSNorm", launch_blocks(p.rows, groups<count>, "tokens"), threads<count>, 0,
               static_cast<cudaStream_t>(stream), p);
    });
}

void rms_norm_backward(const tn_rms_norm_backward_args& args, void* stream) {
    require_size(args.tokens * args.heads, args.width);
    const Device device = current_device();
    const int64_t rows = args.tokens * args.heads, blocks = backward_blocks(rows, args.width);
    const bool float_weight = args.weight_dtype == TN_FLOAT32;
    if (args.dweight_D != nullptr) {
        require_on_device(args.dweight_D, device, "dweight_D");
        if (rows > 0) {
            require_on_device(args.scratch, device, "scratch");
            require(takes_eight(args.scratch), "scratch", "must be aligned to 16 bytes on CUDA");
        }
    }
    if (rows > 0) {
        require_on_device(args.rstd_TN, device, "rstd_TN");
        const Backward p{rows_of(args.sum_TND, device, args.tokens, args.heads, "sum_TND"), rows_of(args.dy_TND, device, args.tokens, args.heads, "dy_TND"),
                         rows_of(args.dsum_TND, device, args.tokens, args.heads, "dsum_TND"), rows_of(args.dx_TND, device, args.tokens, args.heads, "dx_TND"),
                         weight_of(args.weight_D, device), args.rstd_TN,
                         args.dweight_D != nullptr ? static_cast<float*>(args.scratch) : nullptr, rows, static_cast<uint32_t>(args.heads),
                         static_cast<int32_t>(args.width), float_weight};
        for_rows(args.dtype, args.width, [&]([[maybe_unused]] auto type, auto lanes) {
            constexpr int count = decltype(lanes)::value;
            launch(backward<decltype(type), count>, "RMSNorm backward", blocks, threads<count>, 0, static_cast<cudaStream_t>(stream), p);
        });
    }
    if (args.dweight_D == nullptr) return;
    const Total p{static_cast<const float*>(args.scratch), args.dweight_D, static_cast<int32_t>(blocks), static_cast<int32_t>(args.width),
                  float_weight};
    launch(total, "RMSNorm's weight", (args.width + total_columns - 1) / total_columns, total_columns * total_slices, 0,
           static_cast<cudaStream_t>(stream), p);
}

}  // namespace trainer::cuda
