#include "compat.h"
#include "guard.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <chrono>
#include <sstream>

using tt::guard;
using tt::unwrap;

namespace {

using Milliseconds = std::chrono::milliseconds;
using Store = c10::intrusive_ptr<c10d::TCPStore>;

Store& unwrap(tt_store store) {
    return *reinterpret_cast<Store*>(store);
}

tt_store open_store(const char* host, int32_t port, bool is_server, int64_t timeout_ms) {
    c10d::TCPStoreOptions options;
    options.port = static_cast<uint16_t>(port);
    options.isServer = is_server;
    options.waitWorkers = false;
    options.timeout = Milliseconds(timeout_ms);
    return reinterpret_cast<tt_store>(new Store(c10::make_intrusive<c10d::TCPStore>(host, options)));
}

std::string rank_key(int32_t rank) {
    return "rank-" + std::to_string(rank);
}

std::vector<uint8_t> bytes_of(const std::string& text) {
    return {text.begin(), text.end()};
}

// The store's own timeout error names no rank.
[[noreturn]] void report_missing(c10d::TCPStore& store, int32_t world_size, int64_t timeout_ms, const std::string& reason) {
    std::ostringstream missing;
    for (int32_t rank = 0; rank < world_size; ++rank) {
        if (!store.check({rank_key(rank)})) {
            missing << (missing.tellp() > 0 ? ", " : "") << rank;
        }
    }
    TORCH_CHECK(missing.tellp() > 0, reason);
    TORCH_CHECK(false, "rank ", missing.str(), " of ", world_size, " did not come within ", timeout_ms / 1000.0, " s");
}

#if TT_HAS_GLOO

using Group = c10::intrusive_ptr<c10d::ProcessGroupGloo>;

Group& unwrap(tt_group group) {
    return *reinterpret_cast<Group*>(group);
}

void require_reducible(const at::Tensor& tensor) {
    const auto dtype = tensor.scalar_type();
    TORCH_CHECK(tensor.device().is_cpu() && tensor.is_contiguous(), "the tensor must be contiguous and on the CPU");
    TORCH_CHECK(dtype == at::kFloat || dtype == at::kDouble || dtype == at::kLong, "float32, float64 or int64 is wanted");
}

#else

constexpr const char* no_gloo = "this library was built without gloo's headers; install libgloo-dev and build it again";

#endif

} // namespace

int32_t tt_has_gloo(void) {
    return TT_HAS_GLOO;
}

int32_t tt_store_serve(const char* host, int64_t timeout_ms, tt_store* out, int32_t* port) {
    return guard("store.serve", {}, [&] {
        *out = open_store(host, 0, true, timeout_ms);
        *port = unwrap(*out)->getPort();
    });
}

int32_t tt_store_connect(const char* host, int32_t port, int64_t timeout_ms, tt_store* out) {
    return guard("store.connect", {}, [&] { *out = open_store(host, port, false, timeout_ms); });
}

int32_t tt_store_meet(tt_store store, const char* device, int32_t rank, int32_t world_size, int64_t timeout_ms) {
    return guard("store.meet", {}, [&] {
        c10d::TCPStore& meeting = *unwrap(store);
        meeting.set(rank_key(rank), bytes_of(device));
        std::vector<std::string> keys;
        for (int32_t other = 0; other < world_size; ++other) {
            keys.push_back(rank_key(other));
        }
        try {
            meeting.wait(keys, Milliseconds(timeout_ms));
        } catch (const std::exception& error) {
            report_missing(meeting, world_size, timeout_ms, error.what());
        }
        for (int32_t other = 0; other < world_size; ++other) {
            const std::vector<uint8_t> theirs = meeting.get(keys[other]);
            TORCH_CHECK(theirs == bytes_of(device), "rank ", rank, " came with a ", device, ", rank ", other, " with a ",
                        std::string(theirs.begin(), theirs.end()));
        }
    });
}

int32_t tt_store_set(tt_store store, const char* key, const void* value, int64_t length) {
    return guard("store.set", {}, [&] {
        const auto* bytes = static_cast<const uint8_t*>(value);
        unwrap(store)->set(key, std::vector<uint8_t>(bytes, bytes + length));
    });
}

int32_t tt_store_get(tt_store store, const char* key, void* value, int64_t length) {
    return guard("store.get", {}, [&] {
        const std::vector<uint8_t> bytes = unwrap(store)->get(key);
        TORCH_CHECK(static_cast<int64_t>(bytes.size()) == length, key, " has ", bytes.size(), " bytes, ", length, " are wanted");
        std::copy(bytes.begin(), bytes.end(), static_cast<uint8_t*>(value));
    });
}

void tt_store_free(tt_store store) {
    delete reinterpret_cast<Store*>(store);
}

#if TT_HAS_GLOO

int32_t tt_group_new(tt_store store, const char* host, int32_t rank, int32_t world_size, int64_t timeout_ms,
                     tt_group* out) {
    return guard("gloo.connect", {}, [&] {
        auto options = c10d::ProcessGroupGloo::Options::create(Milliseconds(timeout_ms));
        options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(host));
        // One collective at a time is under way.
        options->threads = 1;
        *out = reinterpret_cast<tt_group>(
            new Group(c10::make_intrusive<c10d::ProcessGroupGloo>(unwrap(store), rank, world_size, options)));
    });
}

int32_t tt_group_all_reduce_sum(tt_group group, tt_tensor tensor) {
    return guard("gloo.all_reduce", {tensor}, [&] {
        require_reducible(unwrap(tensor));
        std::vector<at::Tensor> tensors{unwrap(tensor).detach()};
        unwrap(group)->allreduce(tensors)->wait();
    });
}

int32_t tt_group_broadcast(tt_group group, tt_tensor tensor, int32_t root) {
    return guard("gloo.broadcast", {tensor}, [&] {
        require_reducible(unwrap(tensor));
        std::vector<at::Tensor> tensors{unwrap(tensor).detach()};
        c10d::BroadcastOptions options;
        options.rootRank = root;
        unwrap(group)->broadcast(tensors, options)->wait();
    });
}

int32_t tt_group_barrier(tt_group group) {
    return guard("gloo.barrier", {}, [&] { unwrap(group)->barrier()->wait(); });
}

void tt_group_free(tt_group group) {
    delete reinterpret_cast<Group*>(group);
}

#else

int32_t tt_group_new(tt_store, const char*, int32_t, int32_t, int64_t, tt_group*) {
    return guard("gloo.connect", {}, [&] { TORCH_CHECK(false, no_gloo); });
}

int32_t tt_group_all_reduce_sum(tt_group, tt_tensor tensor) {
    return guard("gloo.all_reduce", {tensor}, [&] { TORCH_CHECK(false, no_gloo); });
}

int32_t tt_group_broadcast(tt_group, tt_tensor tensor, int32_t) {
    return guard("gloo.broadcast", {tensor}, [&] { TORCH_CHECK(false, no_gloo); });
}

int32_t tt_group_barrier(tt_group) {
    return guard("gloo.barrier", {}, [&] { TORCH_CHECK(false, no_gloo); });
}

void tt_group_free(tt_group) {}

#endif
