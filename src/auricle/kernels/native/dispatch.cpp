// Which instruction set, and how many threads.
#include <atomic>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "scan.h"

namespace {

// The kernels that this processor can run, the best last.
std::vector<const Kernels *> usable() {
    std::vector<const Kernels *> all{&PORTABLE_KERNELS};
#if defined(__x86_64__)
    __builtin_cpu_init();
    unsigned a, b, c = 0, d;
    __get_cpuid(1, &a, &b, &c, &d);
    const bool halves = c & bit_F16C;
    if (halves && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) all.push_back(&AVX2_KERNELS);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) all.push_back(&AVX512_KERNELS);
#endif
    return all;
}

std::atomic<const Kernels *> chosen{nullptr};

const Kernels &kernels() {
    const Kernels *now = chosen.load();
    if (!now) chosen.store(now = usable().back());
    return *now;
}

// Run tasks [0, count) on some threads, each taking the next. They live as long as the call: a fork between two calls
// meets none.
void in_parallel(int64_t count, int threads, const std::function<void(int64_t)> &task) {
    std::atomic<int64_t> next{0};
    const auto work = [&] {
        for (int64_t i = next++; i < count; i = next++) task(i);
    };
    std::vector<std::thread> others;
    const int64_t helpers = (threads < count ? threads : count) - 1;
    for (int64_t i = 0; i < helpers; ++i) others.emplace_back(work);
    work();
    for (auto &other : others) other.join();
}

// All problems' tasks, those of the first problem first. A row and block of a problem waits for that of the problem
// before, to whose results it may add; tasks are begun in order, so what is waited for is being done.
template <class Problem, class Task>
void run(const Problem *problems, int64_t count, int threads, Task task) {
    if (!count) return;
    const int64_t blocks = (problems->channels + BLOCK - 1) / BLOCK, each = problems->batch * blocks;
    std::vector<std::atomic<bool>> done(count * each);
    in_parallel(count * each, threads, [&](int64_t i) {
        while (i >= each && !done[i - each]) std::this_thread::yield();
        task(problems[i / each], i % each / blocks, i % blocks);
        done[i] = true;
    });
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

int auricle_abi() { return ABI; }

// What the caller must have the same: native.py compares it, so that a change that forgot to raise the ABI is noticed.
const int64_t *auricle_sizes() {
    static const int64_t sizes[] = {CHUNK, BLOCK, MAX_TAPS, sizeof(Scan), sizeof(Convolution)};
    return sizes;
}

const char *auricle_isa() { return kernels().name; }

// What this processor can run, with spaces between.
const char *auricle_isas() {
    static const std::string names = [] {
        std::string all;
        for (const Kernels *k : usable()) all += (all.empty() ? "" : " ") + std::string(k->name);
        return all;
    }();
    return names.c_str();
}

// "" chooses the best again. Returns 0, or 1 where this processor or build lacks it.
int auricle_set_isa(const char *name) {
    const auto all = usable();
    for (const Kernels *k : all)
        if (!*name ? k == all.back() : !std::strcmp(k->name, name)) {
            chosen.store(k);
            return 0;
        }
    return 1;
}

void auricle_scan_forward(const Scan *scans, int64_t count, int threads) {
    run(scans, count, threads, kernels().scan_forward);
}
void auricle_scan_backward(const Scan *scans, int64_t count, int threads) {
    run(scans, count, threads, kernels().scan_backward);
}
void auricle_convolution_forward(const Convolution *all, int64_t count, int threads) {
    run(all, count, threads, kernels().convolution_forward);
}
void auricle_convolution_backward(const Convolution *all, int64_t count, int threads) {
    run(all, count, threads, kernels().convolution_backward);
}
}
#pragma GCC visibility pop
