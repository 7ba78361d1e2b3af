// Every operator goes through libtorch's dispatcher by name: one entry instead of one wrapper an operator, and default
// arguments come from the loaded libtorch's own schema.
#include "guard.h"

#include "compat.h"

#include <ATen/core/Generator.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

namespace tt {
namespace {

using c10::IValue;
using c10::TypeKind;

const c10::OperatorHandle& as_operator(tt_operator op) {
    return *reinterpret_cast<const c10::OperatorHandle*>(op);
}

c10::TypePtr without_optional(c10::TypePtr type) {
    return type->kind() == TypeKind::OptionalType ? type->expectRef<c10::OptionalType>().getElementType() : type;
}

IValue ints_value(const tt_value& value, const c10::TypePtr& type) {
    const auto element = type->kind() == TypeKind::ListType ? type->expectRef<c10::ListType>().getElementType()->kind()
                                                            : TypeKind::IntType;
    if (element == TypeKind::BoolType) {
        c10::List<bool> list;
        for (int32_t i = 0; i < value.count; ++i) {
            list.push_back(value.as.ints[i] != 0);
        }
        return list;
    }
    return c10::List<int64_t>(at::IntArrayRef(value.as.ints, value.count));
}

IValue tensors_value(const tt_value& value, const c10::TypePtr& type) {
    const bool optional = type->kind() == TypeKind::ListType &&
                          type->expectRef<c10::ListType>().getElementType()->kind() == TypeKind::OptionalType;
    if (optional) {
        c10::List<Optional<at::Tensor>> list;
        for (int32_t i = 0; i < value.count; ++i) {
            tt_tensor tensor = value.as.tensors[i];
            list.push_back(tensor ? Optional<at::Tensor>(tt::unwrap(tensor)) : Optional<at::Tensor>());
        }
        return list;
    }
    c10::List<at::Tensor> list;
    list.reserve(value.count);
    for (int32_t i = 0; i < value.count; ++i) {
        list.push_back(tt::unwrap(value.as.tensors[i]));
    }
    return list;
}

IValue to_ivalue(const tt_value& value, const c10::Argument& argument) {
    switch (value.kind) {
        case TT_VALUE_NONE: return {};
        case TT_VALUE_DEFAULT:
            TORCH_CHECK(argument.default_value(), "argument '", argument.name(), "' has no default");
            return *argument.default_value();
        case TT_VALUE_TENSOR: return value.as.tensor ? IValue(tt::unwrap(value.as.tensor)) : IValue();
        case TT_VALUE_INT:
            return without_optional(argument.type())->kind() == TypeKind::FloatType
                       ? IValue(static_cast<double>(value.as.i))
                       : IValue(value.as.i);
        case TT_VALUE_DOUBLE: return value.as.d;
        case TT_VALUE_BOOL: return value.as.i != 0;
        case TT_VALUE_INTS: return ints_value(value, without_optional(argument.type()));
        case TT_VALUE_TENSORS: return tensors_value(value, without_optional(argument.type()));
        case TT_VALUE_TEXT: return std::string(value.as.text, value.count);
        case TT_VALUE_DEVICE: return unpack_device(value.as.i);
        case TT_VALUE_GENERATOR: return *reinterpret_cast<at::Generator*>(value.as.generator);
        default: TORCH_CHECK(false, "argument '", argument.name(), "' has an unknown kind ", value.kind);
    }
}

tt_value from_ivalue(IValue&& value) {
    tt_value result{};
    if (value.isTensor()) {
        result.kind = TT_VALUE_TENSOR;
        result.as.tensor = wrap_optional(std::move(value).toTensor());
    } else if (value.isTensorList()) {
        const auto list = value.toTensorVector();
        result.kind = TT_VALUE_TENSORS;
        result.count = static_cast<int32_t>(list.size());
        result.as.tensors = new tt_tensor[list.size()];
        for (size_t i = 0; i < list.size(); ++i) {
            result.as.tensors[i] = wrap(list[i]);
        }
    } else if (value.isInt()) {
        result.kind = TT_VALUE_INT;
        result.as.i = value.toInt();
    } else if (value.isDouble()) {
        result.kind = TT_VALUE_DOUBLE;
        result.as.d = value.toDouble();
    } else if (value.isBool()) {
        result.kind = TT_VALUE_BOOL;
        result.as.i = value.toBool();
    } else {
        TORCH_CHECK(value.isNone(), "a result of type ", value.tagKind(), " is not supported");
    }
    return result;
}

std::vector<tt_tensor> tensors_among(const tt_value* arguments, int32_t count) {
    std::vector<tt_tensor> tensors;
    for (int32_t i = 0; i < count; ++i) {
        if (arguments[i].kind == TT_VALUE_TENSOR) {
            tensors.push_back(arguments[i].as.tensor);
        } else if (arguments[i].kind == TT_VALUE_TENSORS) {
            tensors.insert(tensors.end(), arguments[i].as.tensors, arguments[i].as.tensors + arguments[i].count);
        }
    }
    return tensors;
}

// "aten::matmul" reads as "matmul".
const char* short_name(const c10::OperatorHandle& op) {
    const std::string& name = op.schema().name();
    const size_t colons = name.rfind("::");
    return name.c_str() + (colons == std::string::npos ? 0 : colons + 2);
}

} // namespace
} // namespace tt

int32_t tt_operator_find(const char* name, const char* overload, tt_operator* out) {
    return tt::guard(name, {}, [&] {
        auto found = c10::Dispatcher::singleton().findSchema({name, overload});
        *out = found ? reinterpret_cast<tt_operator>(new c10::OperatorHandle(*found)) : nullptr;
    });
}

int32_t tt_call(tt_operator handle, const tt_value* arguments, int32_t argument_count, tt_value* outputs,
                int32_t output_count) {
    const c10::OperatorHandle& op = tt::as_operator(handle);
    try {
        const auto& expected = op.schema().arguments();
        TORCH_CHECK(static_cast<size_t>(argument_count) <= expected.size(), "takes ", expected.size(),
                    " arguments, not ", argument_count);
        torch::jit::Stack stack;
        stack.reserve(expected.size());
        for (size_t i = 0; i < expected.size(); ++i) {
            const tt_value absent{TT_VALUE_DEFAULT, 0, {}};
            stack.push_back(tt::to_ivalue(static_cast<int32_t>(i) < argument_count ? arguments[i] : absent, expected[i]));
        }
        op.callBoxed(stack);
        TORCH_CHECK(static_cast<size_t>(output_count) <= stack.size(), "returns ", stack.size(), " values, not ",
                    output_count);
        for (int32_t i = 0; i < output_count; ++i) {
            outputs[i] = tt::from_ivalue(std::move(stack[i]));
        }
        return TT_OK;
    } catch (...) {
        return tt::fail(tt::short_name(op), tt::tensors_among(arguments, argument_count));
    }
}

void tt_tensors_free(tt_tensor* tensors) {
    delete[] tensors;
}
