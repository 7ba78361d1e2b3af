#include "engine.h"
#include "status.h"

using namespace trainer;

tn_status tn_dropout(const tn_dropout_args* args, void*) {
    return guard([&] {
        require(args != nullptr, "args", "is null");
        require_struct_size(args->struct_size, sizeof *args);
        require_device(args->device);
        require_dtype(args->dtype, "dtype");
        require(args->probability >= 0 && args->probability < 1, "probability", "must be in [0, 1)");
        require(args->count >= 0, "count", "must not be negative");
        require(args->offset % 4 == 0, "offset", "must be a multiple of 4");
        require(args->count == 0 || args->x != nullptr, "x", "is null");
        require(args->count == 0 || args->y != nullptr, "y", "is null");
        cpu_engine().dropout(*args);
    });
}
