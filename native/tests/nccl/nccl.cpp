// Stands in for libnccl.so.2 where there is no GPU: ranks are threads of one process, buffers lie in host memory. Tests steer it by
// standin_set and read standin_count. What NCCL does in the background, initialisation, is under way here for the first asks.
#include <climits>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))

namespace {

enum Result { success = 0, system_error = 2, invalid_argument = 4, invalid_usage = 5, in_progress = 7 };

struct UniqueId {
    char bytes[128];
};

// As of 2.14, the oldest that is served.
struct Config {
    size_t size;
    unsigned magic;
    unsigned version;
    int blocking;
};

struct Clique {
    int come = 0;
    int arrived = 0;
    int leaving = 0;
    std::vector<std::vector<char>> shares;
    std::condition_variable all;
};

struct Communicator {
    Clique* clique;
    int rank;
    int ranks;
};

std::mutex lock;
std::map<std::string, Clique> cliques;
std::map<std::string, int> settings;
int ids = 0;

thread_local std::vector<std::function<void()>> group;
thread_local int depth = 0;

size_t size_of(int type) {
    return type == 4 || type == 8 ? 8 : type == 7 ? 4 : 0;
}

template <typename T>
void add(char* to, const char* from, size_t count) {
    for (size_t i = 0; i < count; ++i) {
        T a, b;
        std::memcpy(&a, to + i * sizeof(T), sizeof(T));
        std::memcpy(&b, from + i * sizeof(T), sizeof(T));
        a += b;
        std::memcpy(to + i * sizeof(T), &a, sizeof(T));
    }
}

// Every rank puts its bytes down, and reads all of them once all are there. The next round begins when all have read.
std::vector<std::vector<char>> gather(Communicator* self, const void* bytes, size_t length) {
    std::unique_lock<std::mutex> held(lock);
    Clique& clique = *self->clique;
    clique.all.wait(held, [&] { return clique.leaving == 0; });
    clique.shares.resize(self->ranks);
    clique.shares[self->rank].assign(static_cast<const char*>(bytes), static_cast<const char*>(bytes) + length);
    if (++clique.arrived == self->ranks) {
        clique.arrived = 0;
        clique.leaving = self->ranks;
        clique.all.notify_all();
    }
    clique.all.wait(held, [&] { return clique.leaving > 0; });
    auto shares = clique.shares;
    if (--clique.leaving == 0) {
        clique.all.notify_all();
    }
    return shares;
}

Result queue(std::function<void()> collective) {
    {
        std::lock_guard<std::mutex> held(lock);
        if (settings["collective"] != success) {
            return static_cast<Result>(settings["collective"]);
        }
    }
    if (depth == 0) {
        return invalid_usage;
    }
    group.push_back(std::move(collective));
    return success;
}

} // namespace

API void standin_set(const char* name, int value) {
    std::lock_guard<std::mutex> held(lock);
    settings[name] = value;
}

API int standin_count(const char* name) {
    std::lock_guard<std::mutex> held(lock);
    return settings[name];
}

API int standin_depth(void) {
    return depth;
}

API int ncclGetVersion(int* version) {
    *version = 21809;
    return success;
}

API int ncclGetUniqueId(UniqueId* id) {
    std::lock_guard<std::mutex> held(lock);
    std::memset(id->bytes, ++ids, sizeof(id->bytes));
    return success;
}

API int ncclCommInitRankConfig(Communicator** out, int ranks, UniqueId id, int rank, const Config* config) {
    if (config->magic != 0xcafebeef || config->size < sizeof(Config) || config->version < 21400 || config->blocking != 0) {
        return invalid_argument;
    }
    std::lock_guard<std::mutex> held(lock);
    Clique& clique = cliques[std::string(id.bytes, sizeof(id.bytes))];
    ++clique.come;
    *out = new Communicator{&clique, rank, ranks};
    return in_progress;
}

API int ncclCommGetAsyncError(Communicator* self, int* state) {
    std::lock_guard<std::mutex> held(lock);
    *state = settings["async"] != success ? settings["async"] : self->clique->come < self->ranks ? in_progress : success;
    return success;
}

API int ncclCommFinalize(Communicator*) {
    return success;
}

API int ncclCommDestroy(Communicator* self) {
    std::lock_guard<std::mutex> held(lock);
    ++settings["destroyed"];
    delete self;
    return success;
}

API int ncclCommAbort(Communicator* self) {
    std::lock_guard<std::mutex> held(lock);
    ++settings["aborted"];
    delete self;
    return success;
}

API const char* ncclGetErrorString(int result) {
    return result == 6 ? "remote process exited or there was a network error" : "unhandled system error";
}

API const char* ncclGetLastError(Communicator*) {
    return "Connection closed by remote peer\n";
}

API int ncclGroupStart(void) {
    ++depth;
    return success;
}

API int ncclGroupEnd(void) {
    if (--depth == 0) {
        for (auto& collective : group) {
            collective();
        }
        group.clear();
    }
    return success;
}

API int ncclAllReduce(const void* send, void* receive, size_t count, int type, int op, Communicator* self, void*) {
    if (op != 0 || size_of(type) == 0) {
        return invalid_argument;
    }
    return queue([=] {
        const size_t bytes = count * size_of(type);
        const auto shares = gather(self, send, bytes);
        std::vector<char> sum = shares[0];
        for (int rank = 1; rank < self->ranks; ++rank) {
            (type == 4 ? add<int64_t> : type == 8 ? add<double> : add<float>)(sum.data(), shares[rank].data(), count);
        }
        std::memcpy(receive, sum.data(), bytes);
    });
}

API int ncclBroadcast(const void* send, void* receive, size_t count, int type, int root, Communicator* self, void*) {
    return queue([=] {
        const auto shares = gather(self, send, count * size_of(type));
        std::memcpy(receive, shares[root].data(), shares[root].size());
    });
}
