#include "guard.h"

#include <ATen/core/grad_mode.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/autograd/autograd.h>

using tt::guard;
using tt::unwrap_all;

int32_t tt_grad_mode(void) {
    return c10::GradMode::is_enabled();
}

void tt_set_grad_mode(int32_t enabled) {
    c10::GradMode::set_enabled(enabled != 0);
}

int32_t tt_inference_mode(void) {
    return c10::InferenceMode::is_enabled();
}

void* tt_inference_guard_new(int32_t enabled) {
    return new c10::InferenceMode(enabled != 0);
}

void tt_inference_guard_free(void* guard) {
    delete static_cast<c10::InferenceMode*>(guard);
}

int32_t tt_backward(const tt_tensor* tensors, int32_t tensor_count, const tt_tensor* gradients, int32_t gradient_count,
                    int32_t retain_graph, int32_t create_graph, const tt_tensor* inputs, int32_t input_count) {
    return guard("backward", tensors, tensor_count, [&] {
        torch::autograd::backward(unwrap_all(tensors, tensor_count), unwrap_all(gradients, gradient_count),
                                  retain_graph < 0 ? create_graph != 0 : retain_graph != 0, create_graph != 0,
                                  unwrap_all(inputs, input_count));
    });
}

int32_t tt_grad(const tt_tensor* outputs, int32_t output_count, const tt_tensor* inputs, int32_t input_count,
                const tt_tensor* gradients, int32_t gradient_count, int32_t retain_graph, int32_t create_graph,
                int32_t allow_unused, tt_tensor* out) {
    return guard("grad", outputs, output_count, [&] {
        const auto result = torch::autograd::grad(
            unwrap_all(outputs, output_count), unwrap_all(inputs, input_count), unwrap_all(gradients, gradient_count),
            retain_graph < 0 ? create_graph != 0 : retain_graph != 0, create_graph != 0, allow_unused != 0);
        for (int32_t i = 0; i < input_count; ++i) {
            out[i] = tt::wrap_optional(result[i]);
        }
    });
}
