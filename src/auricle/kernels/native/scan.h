// What the selective scan is called with, the same for every instruction set.
//
// B batch, E channels, S states, L steps. Strides are in elements. Tensors that are no `Strided` are float32, and so is
// everything that is computed: a number is rounded once, where it is written.
#pragma once

#include <cstdint>

// To be raised, here and in native.py, with every change of what this file declares or means: fields, their order, their
// types, shapes, layouts, and functions of dispatch.cpp. A library of another number is not used.
constexpr int ABI = 3;

extern "C" {

enum Type : int64_t { FLOAT32, BFLOAT16, FLOAT16 };

struct Strided {
    const void *data;  // null: absent
    int64_t row, channel, step;
    Type type;
};

struct StridedOut {
    void *data;
    int64_t row, channel, step;
    Type type;
};

// One scan; the two directions of a bidirectional block are two of them, done in one call. Those of a call are of one
// size, and where both write into a sum, the second adds to what the first has written.
struct Scan {
    int64_t batch, channels, states, length;
    int32_t softplus, reverse;
    Strided u, delta, z;         // [B, E, L]; z optional
    Strided b, c;                // [B, S, L] (channel = state)
    const float *a;              // [E, S]
    const float *skip, *bias;    // [E], optional: D and delta_bias
    const float *initial;        // [B, E, S], optional
    const int64_t *lengths;      // [B], optional: valid steps
    Strided out_before;          // [B, E, L], optional: what is added to the output
    StridedOut out;              // [B, E, L]
    float *last;                 // [B, E, S], optional
    float *saved;                // [B, chunks, S, E], optional: states before each chunk, for the backward pass
    // Backward.
    Strided out_grad;            // [B, E, L]
    const float *last_grad;      // [B, E, S], optional
    Strided z_grad_before;       // as out_before
    StridedOut u_grad, delta_grad, z_grad;
    float *b_grad, *c_grad;      // [blocks, B, L, S]: to be summed over blocks
    float *a_grad;               // [B, E, S]: to be summed over the batch, as the next two
    float *skip_grad, *bias_grad;  // [B, E]
    float *initial_grad;         // [B, E, S], optional
};

// A causal depthwise convolution, with SiLU or without.
struct Convolution {
    int64_t batch, channels, length, width;
    int32_t silu, reverse;
    Strided x;                  // [B, E, L]
    const float *weight, *bias;  // [E, width], [E] (optional)
    const int64_t *lengths;
    StridedOut out;
    Strided out_grad;
    Strided x_grad_before;
    StridedOut x_grad;
    float *weight_grad, *bias_grad;  // [B, E, width], [B, E]: to be summed over the batch
};
}

// Steps between saved states, and channels that one task goes through: neither depends on the number of threads, so no
// sum does.
constexpr int64_t CHUNK = 32;
constexpr int64_t BLOCK = 64;
constexpr int64_t MAX_TAPS = 16;

// One task: channels [block * BLOCK, ...) of row `row`.
using ScanTask = void (*)(const Scan &, int64_t row, int64_t block);
using ConvolutionTask = void (*)(const Convolution &, int64_t row, int64_t block);

struct Kernels {
    const char *name;
    ScanTask scan_forward, scan_backward;
    ConvolutionTask convolution_forward, convolution_backward;
};

extern const Kernels PORTABLE_KERNELS;
extern const Kernels AVX2_KERNELS;
extern const Kernels AVX512_KERNELS;
