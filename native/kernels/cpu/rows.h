// Addressing of [T, heads, width] tensors by rows.
#pragma once
#include "simd.h"
#include "trainer_native.h"

namespace trainer::TN_ISA {

// Row r = token * heads + head; null for an absent tensor.
template <class T>
TN_INLINE T* row_at(const tn_tensor& t, int64_t r, int64_t heads) {
    return t.data == nullptr ? nullptr : static_cast<T*>(t.data) + r / heads * t.token_stride + r % heads * t.head_stride;
}

}  // namespace trainer::TN_ISA
