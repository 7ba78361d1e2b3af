// Backward attention for Hopper with dq added up in any order: thread blocks own keys, and five products make the whole pass.
#include "attention.h"
#include "backward_keys_sm90.cuh"
#include "device.h"
#include "launch.h"
#include "tensor_map.h"

namespace trainer::cuda {

namespace {

struct Parameters {
    BackwardParameters backward;
    CUtensorMap dq_NTH;
};

template <class T, int Dim, bool InClusters>
__global__ void __launch_bounds__(KeySizes<Dim, true>::threads, 1) backward_any_order_sm90(const __grid_constant__ Parameters parameters) {
    using Size = KeySizes<Dim, true>;
    extern __shared__ unsigned char shared[];
    const uint32_t base = (shared_address(shared) + 1023) & ~1023u;
    const BackwardParameters& p = parameters.backward;
    if (threadIdx.x == 32) {
        prefetch(p);
        prefetch(parameters.dq_NTH);
    }
    const int block = blockIdx.x;
    const Place place = InClusters ? place_of(p.plan, block) : Place{block, 0, 1};
    if (InClusters && place.pair >= p.tiles.count * p.attention.kv_heads) return;
    const KeyWork w = key_work<Size::keys, Size::rows, true>(p.attention, p.tiles, p.plan, place, block);
    if (threadIdx.x == 0) {
        DsBarriers{base + Size::ds_barriers}.init(Size::consumers);
        KeyBarriers{base + Size::barriers}.init(Size::consumers);
    }
    __syncthreads();
    if (threadIdx.x < 128) {
        shrink_registers<Size::producer_registers>();
        feed_key_block<Size, Dim>(p, w, base);
    } else {
        grow_registers<Size::consumer_registers>();
        sum_keys<T, Dim, true, InClusters>(p, &parameters.dq_NTH, w, base);
    }
}

template <class T, int Dim>
void start(const tn_attention_backward_args& args, const RowFloats& delta, float* dq_NTH, const Sharing& sharing,
           cudaStream_t stream) {
    using Size = KeySizes<Dim, true>;
    const tn_attention_shape& s = args.shape;
    const int multiprocessors = current_device().multiprocessors;
    Parameters p{backward_parameters(args, delta, Size::rows, Size::keys), float_tensor_map(dq_NTH, s.q_tokens, s.q_heads, s.head_dim, 16)};
    for (Tiles& tiles : cut_into_tiles(s, Axis::keys, {Size::keys})) {
        Plan plan = key_plan<Size::keys, Size::rows, true>(s, tiles, 8 * s.head_dim, multiprocessors, sharing);
        if (Size::may_meet) plan.run = meeting_run(s, tiles, plan.order, 8 * s.head_dim * Size::rows);
        p.backward.plan = plan;
        p.backward.tiles = tiles;
        const auto kernel = plan.cluster > 1 ? backward_any_order_sm90<T, Dim, true> : backward_any_order_sm90<T, Dim, false>;
        // Without queries there is no kernel of ours ahead that made delta.
        launch(kernel, "attention backward in any order", plan.blocks(int64_t{tiles.count} * s.kv_heads), Size::threads,
               Size::aligned_bytes, stream, p, {plan.cluster, s.q_tokens > 0});
    }
}

template <class T>
void start(const tn_attention_backward_args& args, const RowFloats& delta, float* dq_NTH, const Sharing& sharing,
           cudaStream_t stream) {
    (args.shape.head_dim == 64 ? start<T, 64> : start<T, 128>)(args, delta, dq_NTH, sharing, stream);
}

}  // namespace

void hopper_attention_backward_any_order(const tn_attention_backward_args& args, const RowFloats& delta, float* dq_NTH,
                                         const Sharing& sharing, cudaStream_t stream) {
    (args.shape.dtype == TN_BFLOAT16 ? start<Bf16> : start<Fp16>)(args, delta, dq_NTH, sharing, stream);
}

}  // namespace trainer::cuda
