#include "compat.h"
#include "guard.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/core/Generator.h>
#include <torch/version.h>

#include <dlfcn.h>

#include <climits>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <string>

using tt::guard;

namespace {

std::string library_path() {
    Dl_info info;
    // Any function that libtorch_cpu exports.
    auto* symbol = reinterpret_cast<void*>(static_cast<at::Context& (*)()>(&at::globalContext));
    if (dladdr(symbol, &info) == 0 || info.dli_fname == nullptr) {
        return "";
    }
    char resolved[PATH_MAX];
    return realpath(info.dli_fname, resolved) ? resolved : info.dli_fname;
}

// "2.11.0" of a text that starts with it, "" of one that starts otherwise.
std::string leading_version(const std::string& text) {
    const std::string version = text.substr(0, text.find_first_not_of("0123456789."));
    return version.find('.') == std::string::npos ? "" : version;
}

// libtorch exports no version. A distribution puts it in the file name, a wheel in torch/version.py, a download in
// build-version. No std::regex here: libtorch exports its own instances of it, which need not fit ours.
std::string library_version(const std::string& path) {
    const size_t suffix = path.rfind(".so.");
    if (suffix != std::string::npos) {
        return leading_version(path.substr(suffix + 4));
    }
    const std::string root = path.substr(0, path.rfind("/lib/"));
    std::string line;
    std::ifstream download(root + "/build-version");
    if (std::getline(download, line)) {
        return leading_version(line);
    }
    std::ifstream wheel(root + "/version.py");
    while (std::getline(wheel, line)) {
        const size_t quote = line.find('\'');
        if (line.rfind("__version__", 0) == 0 && quote != std::string::npos) {
            return leading_version(line.substr(quote + 1));
        }
    }
    return "";
}

at::Generator& unwrap(tt_generator generator) {
    return *reinterpret_cast<at::Generator*>(generator);
}

tt_generator wrap(at::Generator generator) {
    return reinterpret_cast<tt_generator>(new at::Generator(std::move(generator)));
}

} // namespace

int32_t tt_abi_version(void) {
    return TT_ABI_VERSION;
}

const char* tt_built_version(void) {
    return TORCH_VERSION;
}

const char* tt_loaded_version(void) {
    static const std::string version = library_version(library_path());
    return version.c_str();
}

const char* tt_loaded_path(void) {
    static const std::string path = library_path();
    return path.c_str();
}

int32_t tt_get_num_threads(void) {
    return at::get_num_threads();
}

int32_t tt_set_num_threads(int32_t count) {
    return guard("set_num_threads", {}, [&] { at::set_num_threads(count); });
}

int32_t tt_manual_seed(int64_t seed) {
    return guard("manual_seed", {}, [&] { at::manual_seed(static_cast<uint64_t>(seed)); });
}

int32_t tt_cuda_device_count(int32_t* out) {
    return guard("cuda.device_count", {}, [&] { *out = static_cast<int32_t>(at::getNumGPUs()); });
}

int32_t tt_set_deterministic(int32_t enabled, int32_t warn_only) {
    return guard("use_deterministic_algorithms", {}, [&] {
        // cuBLAS reads it when its first handle is made, libtorch at every product.
        if (enabled) {
            setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", 0);
        }
        tt::leave_memory_unfilled();
        at::globalContext().setDeterministicAlgorithms(enabled != 0, warn_only != 0);
        at::globalContext().setDeterministicCuDNN(enabled != 0);
    });
}

int32_t tt_set_allow_tf32(int32_t enabled) {
    return guard("allow_tf32", {}, [&] {
        at::globalContext().setFloat32MatmulPrecision(enabled ? "high" : "highest");
        at::globalContext().setAllowTF32CuDNN(enabled != 0);
    });
}

int32_t tt_generator_new(int64_t device, int64_t seed, tt_generator* out) {
    return guard("generator", {}, [&] {
        at::Generator generator = at::globalContext().defaultGenerator(tt::unpack_device(device)).clone();
        generator.set_current_seed(static_cast<uint64_t>(seed));
        *out = wrap(std::move(generator));
    });
}

int32_t tt_generator_default(int64_t device, tt_generator* out) {
    return guard("generator", {}, [&] { *out = wrap(at::globalContext().defaultGenerator(tt::unpack_device(device))); });
}

int32_t tt_generator_set_seed(tt_generator generator, int64_t seed) {
    return guard("generator.manual_seed", {}, [&] {
        std::lock_guard<std::mutex> lock(unwrap(generator).mutex());
        unwrap(generator).set_current_seed(static_cast<uint64_t>(seed));
    });
}

int32_t tt_generator_get_seed(tt_generator generator, int64_t* out) {
    return guard("generator.initial_seed", {}, [&] {
        std::lock_guard<std::mutex> lock(unwrap(generator).mutex());
        *out = static_cast<int64_t>(unwrap(generator).current_seed());
    });
}

int32_t tt_generator_get_state(tt_generator generator, tt_tensor* out) {
    return guard("generator.get_state", {}, [&] {
        std::lock_guard<std::mutex> lock(unwrap(generator).mutex());
        *out = tt::wrap(unwrap(generator).get_state());
    });
}

int32_t tt_generator_set_state(tt_generator generator, tt_tensor state) {
    return guard("generator.set_state", {state}, [&] {
        std::lock_guard<std::mutex> lock(unwrap(generator).mutex());
        unwrap(generator).set_state(tt::unwrap(state));
    });
}

void tt_generator_free(tt_generator generator) {
    delete reinterpret_cast<at::Generator*>(generator);
}
