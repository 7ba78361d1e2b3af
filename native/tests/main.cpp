#include "harness.h"

#include <chrono>
#include <cstdio>
#include <cstring>

std::vector<Test>& tests() {
    static std::vector<Test> all;
    return all;
}

// Runs every test, or those whose sentence contains the argument.
int main(int argc, char** argv) {
    size_t run = 0;
    int failed = 0;
    for (const Test& test : tests()) {
        if (argc > 1 && std::strstr(test.sentence, argv[1]) == nullptr) continue;
        ++run;
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
    std::printf("%zu passed, %d failed\n", run - static_cast<size_t>(failed), failed);
    return failed != 0 || run == 0;
}
