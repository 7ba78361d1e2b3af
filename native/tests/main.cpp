#include "harness.h"

#include <chrono>
#include <cstdio>

std::vector<Test>& tests() {
    static std::vector<Test> all;
    return all;
}

int main() {
    int failed = 0;
    for (const Test& test : tests()) {
        const auto start = std::chrono::steady_clock::now();
        std::string error;
        try {
            test.body();
        } catch (const std::exception& e) {
            error = e.what();
        }
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        std::printf("%s  %s (%.2f s)\n", error.empty() ? "ok  " : "FAIL", test.sentence, seconds);
        if (!error.empty()) std::printf("      %s\n", error.c_str());
        failed += !error.empty();
    }
    std::printf("%zu passed, %d failed\n", tests().size() - static_cast<size_t>(failed), failed);
    return failed != 0 || tests().empty();
}
