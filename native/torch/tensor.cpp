#include "compat.h"
#include "guard.h"

#include <ATen/TensorIndexing.h>
#include <ATen/ops/from_blob.h>

#include <limits>

using tt::guard;
using tt::unwrap;
using tt::unwrap_optional;
using tt::wrap;
using tt::wrap_optional;

namespace {

// INT64_MIN marks a bound that was left out.
tt::Optional<int64_t> bound(int64_t value) {
    return value == std::numeric_limits<int64_t>::min() ? tt::Optional<int64_t>() : tt::Optional<int64_t>(value);
}

std::vector<at::indexing::TensorIndex> to_indices(const tt_index* indices, int32_t count) {
    std::vector<at::indexing::TensorIndex> result;
    result.reserve(count);
    for (int32_t i = 0; i < count; ++i) {
        const tt_index& index = indices[i];
        switch (index.kind) {
            case TT_INDEX_NONE: result.emplace_back(at::indexing::None); break;
            case TT_INDEX_ELLIPSIS: result.emplace_back(at::indexing::Ellipsis); break;
            case TT_INDEX_SINGLE: result.emplace_back(index.start); break;
            case TT_INDEX_BOOL: result.emplace_back(index.start != 0); break;
            case TT_INDEX_SLICE:
                result.emplace_back(at::indexing::Slice(bound(index.start), bound(index.stop), bound(index.step)));
                break;
            case TT_INDEX_TENSOR: result.emplace_back(unwrap(index.tensor)); break;
            default: TORCH_CHECK(false, "unknown kind of index ", index.kind);
        }
    }
    return result;
}

} // namespace

void tt_tensor_free(tt_tensor tensor) {
    delete reinterpret_cast<at::Tensor*>(tensor);
}

tt_tensor tt_tensor_alias(tt_tensor tensor) {
    return wrap(unwrap(tensor));
}

int32_t tt_tensor_from_blob(void* data, const int64_t* sizes, int32_t dim, int32_t dtype, void (*release)(void*),
                            void* state, tt_tensor* out) {
    // Until from_blob owns the deleter, a failure must still release.
    bool owned = false;
    const int32_t status = guard("from_blob", {}, [&] {
        const auto options = at::TensorOptions().dtype(static_cast<at::ScalarType>(dtype));
        const auto deleter = [release, state](void*) {
            if (release) {
                release(state);
            }
        };
        for (int32_t i = 0; i < dim; ++i) {
            TORCH_CHECK(sizes[i] >= 0, "size ", i, " is negative: ", sizes[i]);
        }
        owned = true;
        *out = wrap(at::from_blob(data, at::IntArrayRef(sizes, dim), deleter, options));
    });
    if (!owned && release) {
        release(state);
    }
    return status;
}

int32_t tt_empty(const int64_t* sizes, int32_t dim, int32_t dtype, int64_t device, tt_tensor* out) {
    return guard("empty", {}, [&] {
        const auto options = at::TensorOptions().device(tt::unpack_device(device));
        *out = wrap(at::empty(at::IntArrayRef(sizes, dim), dtype < 0 ? options : options.dtype(static_cast<at::ScalarType>(dtype))));
    });
}

int32_t tt_product(const tt_columns* c, const tt_columns* a, const tt_columns* b, double alpha, int32_t accumulate) {
    return guard("product", {c->tensor, a->tensor, b->tensor}, [&] {
        const at::AutoDispatchBelowADInplaceOrView no_history;
        const auto chosen = [](const tt_columns& columns) {
            const at::Tensor& whole = unwrap(columns.tensor);
            TORCH_CHECK(whole.dim() == 2, "matrices are wanted");
            const bool all = columns.first == 0 && columns.count == whole.size(1);
            const at::Tensor part = all ? whole : whole.narrow(1, columns.first, columns.count);
            return columns.transposed ? part.t() : part;
        };
        at::Tensor into = chosen(*c);
        const at::Tensor left = chosen(*a), right = chosen(*b);
        const double beta = accumulate ? 1 : 0;
        if (into.scalar_type() == left.scalar_type()) {
            at::addmm_out(into, into, left, right, beta, alpha);
        } else {
            tt::add_wide_product(into, left, right, alpha, beta);
        }
    });
}

int64_t tt_tensor_dim(tt_tensor tensor) {
    return unwrap(tensor).dim();
}

int64_t tt_tensor_numel(tt_tensor tensor) {
    return unwrap(tensor).numel();
}

int64_t tt_tensor_element_size(tt_tensor tensor) {
    return static_cast<int64_t>(unwrap(tensor).element_size());
}

int32_t tt_tensor_dtype(tt_tensor tensor) {
    return static_cast<int32_t>(unwrap(tensor).scalar_type());
}

int64_t tt_tensor_device(tt_tensor tensor) {
    return tt::pack_device(unwrap(tensor).device());
}

void tt_tensor_sizes(tt_tensor tensor, int64_t* out) {
    const auto sizes = unwrap(tensor).sizes();
    std::copy(sizes.begin(), sizes.end(), out);
}

void tt_tensor_strides(tt_tensor tensor, int64_t* out) {
    const auto strides = unwrap(tensor).strides();
    std::copy(strides.begin(), strides.end(), out);
}

int64_t tt_tensor_storage_offset(tt_tensor tensor) {
    return unwrap(tensor).storage_offset();
}

int32_t tt_tensor_is_contiguous(tt_tensor tensor) {
    return unwrap(tensor).is_contiguous();
}

int32_t tt_tensor_requires_grad(tt_tensor tensor) {
    return unwrap(tensor).requires_grad();
}

int32_t tt_tensor_is_leaf(tt_tensor tensor) {
    return unwrap(tensor).is_leaf();
}

int64_t tt_tensor_version(tt_tensor tensor) {
    return unwrap(tensor).is_inference() ? 0 : static_cast<int64_t>(unwrap(tensor)._version());
}

void tt_tensor_bump_version(tt_tensor tensor) {
    unwrap(tensor).unsafeGetTensorImpl()->bump_version();
}

int32_t tt_tensor_data_ptr(tt_tensor tensor, void** out) {
    return guard("data_ptr", {tensor}, [&] { *out = unwrap(tensor).data_ptr(); });
}

int32_t tt_tensor_set_requires_grad(tt_tensor tensor, int32_t requires_grad) {
    return guard("requires_grad_", {tensor}, [&] { unwrap(tensor).set_requires_grad(requires_grad != 0); });
}

int32_t tt_tensor_grad(tt_tensor tensor, tt_tensor* out) {
    return guard("grad", {tensor}, [&] { *out = wrap_optional(unwrap(tensor).grad()); });
}

int32_t tt_tensor_set_grad(tt_tensor tensor, tt_tensor grad) {
    return guard("grad", {tensor, grad}, [&] { unwrap(tensor).mutable_grad() = unwrap_optional(grad); });
}

int32_t tt_tensor_retain_grad(tt_tensor tensor) {
    return guard("retain_grad", {tensor}, [&] { unwrap(tensor).retain_grad(); });
}

int32_t tt_tensor_set_data(tt_tensor tensor, tt_tensor source) {
    return guard("set_data", {tensor, source}, [&] { unwrap(tensor).set_data(unwrap(source)); });
}

int32_t tt_tensor_index(tt_tensor tensor, const tt_index* indices, int32_t count, tt_tensor* out) {
    return guard("index", {tensor}, [&] { *out = wrap(unwrap(tensor).index(to_indices(indices, count))); });
}

int32_t tt_tensor_index_put(tt_tensor tensor, const tt_index* indices, int32_t count, tt_tensor value) {
    return guard("index_put_", {tensor, value},
                 [&] { unwrap(tensor).index_put_(to_indices(indices, count), unwrap(value)); });
}
