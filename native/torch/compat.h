// The differences between the supported versions of libtorch (1.13 to 2.11), and nothing else.
#pragma once

#include <torch/csrc/autograd/custom_function.h>
#include <torch/version.h>

#include <ATen/Context.h>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <type_traits>

// Debian ships gloo's headers apart (libgloo-dev), wheels don't ship them: without them there are no Gloo groups.
#if __has_include(<gloo/context.h>)
#define TT_HAS_GLOO 1
#define USE_C10D_GLOO
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#else
#define TT_HAS_GLOO 0
#endif

#define TT_TORCH_AT_LEAST(major, minor) \
    (TORCH_VERSION_MAJOR > (major) || (TORCH_VERSION_MAJOR == (major) && TORCH_VERSION_MINOR >= (minor)))

namespace tt {

#if TT_TORCH_AT_LEAST(2, 4)
template <class T>
using Optional = std::optional<T>;
#else
template <class T>
using Optional = c10::optional<T>;
#endif

// Without it, deterministic mode would also fill whatever is allocated and not yet written.
inline void leave_memory_unfilled() {
#if TT_TORCH_AT_LEAST(2, 2)
    at::globalContext().setDeterministicFillUninitializedMemory(false);
#endif
}

// c = alpha * left * right + beta * c, of 16-bit factors into float32: rounded on its way where libtorch knows no such product.
inline void add_wide_product(at::Tensor& c, const at::Tensor& left, const at::Tensor& right, double alpha, double beta) {
#if TT_TORCH_AT_LEAST(2, 8)
    if (c.is_cuda() && c.scalar_type() == at::kFloat) {
        at::addmm_out(c, c, left, right, at::kFloat, beta, alpha);
        return;
    }
#endif
    const at::Tensor product = left.mm(right).to(c.scalar_type()).mul_(alpha);
    if (beta == 0) {
        c.copy_(product);
    } else {
        c.mul_(beta).add_(product);
    }
}

using torch::autograd::Node;
using torch::autograd::variable_list;
using TensorSet = std::unordered_set<at::TensorImpl*>;

// _wrap_outputs has gained parameters three times: (.., saved in setup_context, how to view a tensor as itself, whether
// that view is pure). What it takes decides, since the releases between are many.
template <class Wrap, class... Common>
std::vector<Optional<at::Tensor>> call_wrap_outputs(Wrap wrap, const Common&... common) {
    const auto view_as_self = [](const at::Tensor& x) -> at::Tensor { return x.view_as(x); };
    using View = decltype(view_as_self);
    if constexpr (std::is_invocable_v<Wrap, const Common&..., TensorSet, View, bool>) {
        return wrap(common..., TensorSet(), view_as_self, false);
    } else if constexpr (std::is_invocable_v<Wrap, const Common&..., TensorSet, View>) {
        return wrap(common..., TensorSet(), view_as_self);
    } else if constexpr (std::is_invocable_v<Wrap, const Common&..., TensorSet>) {
        return wrap(common..., TensorSet());
    } else {
        return wrap(common...);
    }
}

// Gives the outputs their history. Undefined outputs are empty.
inline std::vector<Optional<at::Tensor>> wrap_outputs(const variable_list& inputs, const TensorSet& non_differentiable,
                                                      const TensorSet& dirty,
                                                      const std::vector<Optional<at::Tensor>>& outputs,
                                                      const std::shared_ptr<Node>& node) {
    // Forward-mode differentiation is not offered.
    const torch::autograd::_jvp_fn_t no_jvp = [](variable_list, variable_list) -> variable_list {
        throw std::runtime_error("a custom function has no forward-mode derivative");
    };
    return call_wrap_outputs(&torch::autograd::_wrap_outputs, inputs, non_differentiable, dirty, outputs, node, no_jvp);
}

} // namespace tt
