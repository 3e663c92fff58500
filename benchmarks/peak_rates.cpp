// How fast one core of this machine is at what a selective scan must do: exponentials, multiply-adds, and moving bytes.
//
// Compiled with the kernels' own source and flags; prints exponentials and multiply-adds per second.
#define NAME "peak"
#define KERNELS PEAK_KERNELS
#include "kernels.inc"

#include <chrono>
#include <cstdio>

namespace {

constexpr int COUNT = 64, CHAINS = 12, TURNS = 5000, REPEATS = 25;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Operations per second of `work`, which does `count` vectors of them: the best of some repetitions.
template <class Work>
double rate(int count, Work work) {
    double best = 0.0;
    for (int r = 0; r < REPEATS; ++r) {
        const double begin = now();
        for (int turn = 0; turn < TURNS; ++turn) work();
        const double done = double(count) * WIDTH * TURNS / (now() - begin);
        best = done > best ? done : best;
    }
    return best;
}

}  // namespace

int main() {
    static vec from[COUNT], to[COUNT];
    for (int i = 0; i < COUNT; ++i) from[i] = all(-0.1f * i);
    const double exponentials = rate(COUNT, [&] {
        for (int i = 0; i < COUNT; ++i) to[i] = exp2v(from[i]);
        asm volatile("" ::"r"(from), "r"(to) : "memory");
    });
    const double multiply_adds = rate(COUNT * CHAINS, [&] {
        // So many chains of dependent operations hide each other's latency; equal ones would be computed once.
        vec sums[CHAINS];
        for (int c = 0; c < CHAINS; ++c) sums[c] = from[c];
        const vec factor = from[1], term = from[2];
        for (int i = 0; i < COUNT; ++i)
            for (int c = 0; c < CHAINS; ++c) sums[c] = sums[c] * factor + term;
        for (int c = 0; c < CHAINS; ++c) to[c] = sums[c];
        asm volatile("" ::"r"(from), "r"(to) : "memory");
    });
    std::printf("%.6g %.6g\n", exponentials, multiply_adds);
}
