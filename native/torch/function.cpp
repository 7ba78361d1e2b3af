// Custom autograd functions: the managed side runs forward itself; the node here calls it back for backward.
#include "compat.h"
#include "guard.h"

#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/saved_variable.h>

namespace tt {
namespace {

std::atomic<int64_t> live_nodes{0};

// Frees what a callback left in its arrays.
struct HandleArray {
    explicit HandleArray(size_t count) : handles(count, nullptr) {}
    ~HandleArray() {
        for (tt_tensor handle : handles) {
            tt_tensor_free(handle);
        }
    }
    HandleArray(const HandleArray&) = delete;
    HandleArray& operator=(const HandleArray&) = delete;
    std::vector<tt_tensor> handles;
};

class ManagedNode final : public Node {
public:
    ManagedNode(const tt_function_call& call)
        : name_(call.name), state_(call.state), callbacks_(call.callbacks), input_count_(call.input_count),
          materialize_(call.materialize_gradients != 0) {
        ++live_nodes;
    }

    ~ManagedNode() override {
        callbacks_->release(state_);
        --live_nodes;
    }

    std::string name() const override { return name_; }

    // An output saved for its own backward is unpacked through the node, so it does not own the node: no cycle.
    void save(const tt_function_call& call) {
        saved_.reserve(call.saved_count);
        for (int32_t i = 0; i < call.saved_count; ++i) {
            const at::Tensor tensor = unwrap_optional(call.saved[i]);
            const bool is_output = tensor.defined() && tensor.grad_fn().get() == this;
            saved_.emplace_back(tensor, is_output);
        }
    }

    void remember_shapes(const std::vector<Optional<at::Tensor>>& outputs) {
        for (const auto& output : outputs) {
            outputs_.push_back(output && output->defined() ? torch::autograd::VariableInfo(*output)
                                                           : torch::autograd::VariableInfo());
        }
    }

    variable_list saved() {
        TORCH_CHECK(!released_, torch::autograd::ERR_BACKWARD_TWICE);
        variable_list result;
        result.reserve(saved_.size());
        for (const auto& variable : saved_) {
            result.push_back(variable.unpack(shared_from_this()));
        }
        return result;
    }

    size_t saved_count() const { return saved_.size(); }

    void release_variables() override {
        std::lock_guard<std::mutex> lock(mutex_);
        saved_.clear();
        released_ = true;
    }

protected:
    variable_list apply(variable_list&& gradients) override {
        // libtorch allows two threads to run one graph at a time; managed state is not made for that.
        std::lock_guard<std::mutex> lock(mutex_);
        std::vector<tt_tensor> given(gradients.size(), nullptr);
        c10::OptionalDeviceGuard device;
        for (size_t i = 0; i < gradients.size(); ++i) {
            const bool fill = materialize_ && !gradients[i].defined();
            given[i] = wrap_optional(fill ? outputs_[i].zeros(device) : gradients[i]);
        }
        HandleArray results(input_count_);
        const int64_t error =
            callbacks_->backward(state_, reinterpret_cast<tt_node>(this), given.data(),
                                 static_cast<int32_t>(given.size()), results.handles.data(), input_count_);
        if (error != 0) {
            throw ManagedError(name_, error, callbacks_->release_error);
        }
        return unwrap_all(results.handles.data(), input_count_);
    }

private:
    std::string name_;
    void* state_;
    const tt_function_callbacks* callbacks_;
    int32_t input_count_;
    bool materialize_;
    bool released_ = false;
    std::vector<torch::autograd::SavedVariable> saved_;
    std::vector<torch::autograd::VariableInfo> outputs_;
};

std::unordered_set<at::TensorImpl*> identities(const tt_tensor* tensors, int32_t count) {
    std::unordered_set<at::TensorImpl*> result;
    for (int32_t i = 0; i < count; ++i) {
        result.insert(unwrap(tensors[i]).unsafeGetTensorImpl());
    }
    return result;
}

void apply(const tt_function_call& call, const std::shared_ptr<ManagedNode>& node, tt_tensor* results) {
    const variable_list inputs = unwrap_all(call.inputs, call.input_count);
    const bool differentiable = c10::GradMode::is_enabled() && torch::autograd::any_variable_requires_grad(inputs);
    if (differentiable) {
        node->set_next_edges(torch::autograd::collect_next_edges(inputs));
    }
    const auto dirty = identities(call.dirty, call.dirty_count);
    for (at::TensorImpl* tensor : dirty) {
        tensor->bump_version();
    }
    std::vector<Optional<at::Tensor>> outputs;
    for (int32_t i = 0; i < call.output_count; ++i) {
        outputs.push_back(call.outputs[i] ? Optional<at::Tensor>(unwrap(call.outputs[i])) : Optional<at::Tensor>());
    }
    const auto wrapped =
        wrap_outputs(inputs, identities(call.non_differentiable, call.non_differentiable_count), dirty, outputs,
                     differentiable ? std::static_pointer_cast<Node>(node) : nullptr);
    if (differentiable) {
        node->remember_shapes(wrapped);
        node->save(call);
    }
    for (int32_t i = 0; i < call.output_count; ++i) {
        results[i] = wrapped[i] ? wrap_optional(*wrapped[i]) : nullptr;
    }
}

ManagedNode& as_node(tt_node node) {
    return *reinterpret_cast<ManagedNode*>(node);
}

} // namespace
} // namespace tt

int32_t tt_function_apply(const tt_function_call* call, tt_tensor* results) {
    return tt::guard(call->name, call->inputs, call->input_count, [&] {
        // deleteNode takes a long chain of nodes apart in a loop, not by recursion.
        const std::shared_ptr<tt::ManagedNode> node(new tt::ManagedNode(*call), torch::autograd::deleteNode);
        tt::apply(*call, node, results);
    });
}

int32_t tt_node_saved_count(tt_node node) {
    return static_cast<int32_t>(tt::as_node(node).saved_count());
}

int32_t tt_node_saved(tt_node node, tt_tensor* out) {
    return tt::guard("get_saved_variables", {}, [&] {
        const auto saved = tt::as_node(node).saved();
        for (size_t i = 0; i < saved.size(); ++i) {
            out[i] = tt::wrap_optional(saved[i]);
        }
    });
}

int32_t tt_node_needs_input_grad(tt_node node, int32_t input) {
    return tt::as_node(node).task_should_compute_output(input);
}

int64_t tt_live_nodes(void) {
    return tt::live_nodes;
}
