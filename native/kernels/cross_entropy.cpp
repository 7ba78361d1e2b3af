#include "engine.h"
#ifdef TN_HAS_CUDA
#include "cuda/engine.h"
#endif
#include "status.h"

#include <cmath>

using namespace trainer;

namespace {

void require_labels(const tn_cross_entropy_args& args) {
    for (int64_t r = 0; r < args.rows; ++r) {
        const int64_t label = args.labels_C[r];
        if (label != TN_IGNORE_INDEX && (label < 0 || label >= args.vocabulary))
            refuse("labels_C", "row " + std::to_string(r) + " has label " + std::to_string(label) + ", which is neither in 0.." +
                                   std::to_string(args.vocabulary - 1) + " nor " + std::to_string(TN_IGNORE_INDEX));
    }
}

}  // namespace

tn_status tn_cross_entropy(const tn_cross_entropy_args* args, [[maybe_unused]] void* stream) {
    return guard([&] {
        require(args != nullptr, "args", "is null");
        require_struct_size(args->struct_size, sizeof *args);
        (void)on_cuda(args->device);
        require_dtype(args->dtype, "dtype");
        require(args->write_gradient == 0 || args->write_gradient == 1, "write_gradient", "must be 0 or 1");
        require(args->rows >= 0, "rows", "must not be negative");
        require(args->vocabulary >= 1, "vocabulary", "must be at least 1");
        require(std::isfinite(args->gradient_scale), "gradient_scale", "must be finite");
        require(args->reserved == 0, "reserved", "must be 0");
        if (args->rows == 0) return;
        require(args->logits_CV != nullptr, "logits_CV", "is null");
        require(args->rows == 1 || args->logits_stride >= args->vocabulary, "logits_stride", "must be at least vocabulary");
        require(args->labels_C != nullptr, "labels_C", "is null");
        require(args->loss_C != nullptr, "loss_C", "is null");
#ifdef TN_HAS_CUDA
        if (on_cuda(args->device)) return cuda::cross_entropy(*args, stream);
#endif
        require_labels(*args);
        cpu_engine().cross_entropy(*args);
    });
}
