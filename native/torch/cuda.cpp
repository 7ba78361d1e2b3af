// What CUDA needs beyond operators: streams, the allocator's figures, graphs, which kernels attention may take.
#include "compat.h"
#include "guard.h"

#if TT_HAS_CUDA
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

using tt::guard;

#if TT_HAS_CUDA

namespace {

namespace allocator = c10::cuda::CUDACachingAllocator;

// A graph and the stream on which it is captured and replayed; before is the stream that was current.
struct Graph {
    at::cuda::CUDAGraph graph;
    c10::cuda::CUDAStream stream = c10::cuda::getStreamFromPool();
    c10::cuda::CUDAStream before = c10::cuda::getCurrentCUDAStream();
};

Graph& unwrap(tt_graph graph) {
    return *reinterpret_cast<Graph*>(graph);
}

c10::DeviceIndex index_of(int64_t device) {
    const c10::DeviceIndex index = tt::unpack_device(device).index();
    return index < 0 ? c10::cuda::current_device() : index;
}

} // namespace

int32_t tt_has_cuda(void) {
    return 1;
}

int32_t tt_cuda_current_stream(int64_t device, void** out) {
    return guard("cuda.current_stream", {}, [&] { *out = c10::cuda::getCurrentCUDAStream(index_of(device)).stream(); });
}

int32_t tt_cuda_synchronize(void) {
    return guard("cuda.synchronize", {}, [&] { c10::cuda::device_synchronize(); });
}

int32_t tt_cuda_memory(int64_t device, int64_t* allocated, int64_t* peak, int64_t* reserved) {
    return guard("cuda.memory", {}, [&] {
        const auto stats = allocator::getDeviceStats(index_of(device));
        // The first of each figure is over all pools.
        *allocated = stats.allocated_bytes[0].current;
        *peak = stats.allocated_bytes[0].peak;
        *reserved = stats.reserved_bytes[0].current;
    });
}

int32_t tt_cuda_reset_peak(int64_t device) {
    return guard("cuda.reset_peak_memory_stats", {}, [&] { allocator::resetPeakStats(index_of(device)); });
}

int32_t tt_cuda_empty_cache(void) {
    return guard("cuda.empty_cache", {}, [&] { allocator::emptyCache(); });
}

int32_t tt_graph_begin(tt_graph* out) {
    return guard("cuda.graph", {}, [&] {
        c10::cuda::device_synchronize();
        auto graph = std::make_unique<Graph>();
        c10::cuda::setCurrentCUDAStream(graph->stream);
        try {
            // Backward passes run on libtorch's own threads: what they do unrecorded is theirs.
            graph->graph.capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
        } catch (...) {
            c10::cuda::setCurrentCUDAStream(graph->before);
            throw;
        }
        *out = reinterpret_cast<tt_graph>(graph.release());
    });
}

int32_t tt_graph_end(tt_graph graph) {
    return guard("cuda.graph", {}, [&] {
        c10::cuda::setCurrentCUDAStream(unwrap(graph).before);
        c10::cuda::CUDAStreamGuard capturing(unwrap(graph).stream);
        unwrap(graph).graph.capture_end();
    });
}

int32_t tt_graph_replay(tt_graph graph) {
    return guard("cuda.graph.replay", {}, [&] { unwrap(graph).graph.replay(); });
}

void tt_graph_free(tt_graph graph) {
    delete &unwrap(graph);
}

int32_t tt_set_attention_backends(int32_t flash, int32_t memory_efficient, int32_t cudnn, int32_t math) {
    return guard("attention_backends", {}, [&] {
        at::globalContext().setSDPUseFlash(flash != 0);
        at::globalContext().setSDPUseMemEfficient(memory_efficient != 0);
        at::globalContext().setSDPUseCuDNN(cudnn != 0);
        at::globalContext().setSDPUseMath(math != 0);
    });
}

#else

namespace {

int32_t refuse(const char* what) {
    return guard(what, {}, [] {
        TORCH_CHECK(false, "this library was built without CUDA; build native/ with the preset cuda and a libtorch that has it");
    });
}

} // namespace

int32_t tt_has_cuda(void) {
    return 0;
}

int32_t tt_cuda_current_stream(int64_t, void**) {
    return refuse("cuda.current_stream");
}

int32_t tt_cuda_synchronize(void) {
    return refuse("cuda.synchronize");
}

int32_t tt_cuda_memory(int64_t, int64_t*, int64_t*, int64_t*) {
    return refuse("cuda.memory");
}

int32_t tt_cuda_reset_peak(int64_t) {
    return refuse("cuda.reset_peak_memory_stats");
}

int32_t tt_cuda_empty_cache(void) {
    return refuse("cuda.empty_cache");
}

int32_t tt_graph_begin(tt_graph*) {
    return refuse("cuda.graph");
}

int32_t tt_graph_end(tt_graph) {
    return refuse("cuda.graph");
}

int32_t tt_graph_replay(tt_graph) {
    return refuse("cuda.graph.replay");
}

void tt_graph_free(tt_graph) {}

int32_t tt_set_attention_backends(int32_t, int32_t, int32_t, int32_t) {
    return refuse("attention_backends");
}

#endif
