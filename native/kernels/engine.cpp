#include "engine.h"

#include <cstdlib>
#include <cstring>

namespace trainer {

namespace {

const Engine& choose() {
#ifdef TN_HAS_AVX2
    const char* wanted = std::getenv("TRAINER_KERNELS_ISA");
    const bool plain = wanted != nullptr && std::strcmp(wanted, "portable") == 0;
    if (!plain && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2::engine;
#endif
    return portable::engine;
}

}  // namespace

const Engine& cpu_engine() {
    static const Engine& chosen = choose();
    return chosen;
}

}  // namespace trainer
