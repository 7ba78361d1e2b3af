// The differences between the supported versions of libtorch (1.13 to 2.11), and nothing else.
#pragma once

#include <torch/csrc/autograd/custom_function.h>
#include <torch/version.h>

#include <ATen/Context.h>

#define TT_TORCH_AT_LEAST(major, minor) \
    (TORCH_VERSION_MAJOR > (major) || (TORCH_VERSION_MAJOR == (major) && TORCH_VERSION_MINOR >= (minor)))

#if TT_TORCH_AT_LEAST(2, 0)
#include <optional>
#endif

namespace tt {

#if TT_TORCH_AT_LEAST(2, 4)
template <class T>
using Optional = std::optional<T>;
#else
template <class T>
using Optional = c10::optional<T>;
#endif

using torch::autograd::Node;
using torch::autograd::variable_list;

inline std::vector<Optional<at::Tensor>> wrap_outputs(const variable_list& inputs,
                                                      const std::unordered_set<at::TensorImpl*>& non_differentiable,
                                                      const std::unordered_set<at::TensorImpl*>& dirty,
                                                      const std::vector<Optional<at::Tensor>>& outputs,
                                                      const std::shared_ptr<Node>& node) {
    // Forward-mode differentiation is not offered.
    auto no_jvp = [](variable_list, variable_list) -> variable_list {
        throw std::runtime_error("a custom function has no forward-mode derivative");
    };
#if TT_TORCH_AT_LEAST(2, 1)
    auto view_as_self = [](const at::Tensor& x) { return x.view_as(x); };
#endif
#if TT_TORCH_AT_LEAST(2, 4)
    return torch::autograd::_wrap_outputs(inputs, non_differentiable, dirty, outputs, node, no_jvp, {}, view_as_self,
                                          /*pure_view=*/false);
#elif TT_TORCH_AT_LEAST(2, 1)
    return torch::autograd::_wrap_outputs(inputs, non_differentiable, dirty, outputs, node, no_jvp, {}, view_as_self);
#elif TT_TORCH_AT_LEAST(2, 0)
    return torch::autograd::_wrap_outputs(inputs, non_differentiable, dirty, outputs, node, no_jvp, {});
#else
    return torch::autograd::_wrap_outputs(inputs, non_differentiable, dirty, outputs, node, no_jvp);
#endif
}

inline void allow_tf32(bool enabled) {
#if TT_TORCH_AT_LEAST(1, 12)
    at::globalContext().setFloat32MatmulPrecision(enabled ? "high" : "highest");
#endif
    at::globalContext().setAllowTF32CuDNN(enabled);
}

} // namespace tt
