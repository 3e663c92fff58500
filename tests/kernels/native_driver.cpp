// Runs the kernels without Python, so that they can be tested on a processor that is only emulated: numbers come in on
// standard input, results go out on standard output, after the name of the instruction set.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "scan.h"

extern "C" {
const char *auricle_isa();
void auricle_scan_forward(const Scan *, int64_t, int);
void auricle_scan_backward(const Scan *, int64_t, int);
void auricle_convolution_forward(const Convolution *, int64_t, int);
void auricle_convolution_backward(const Convolution *, int64_t, int);
}

template <class Number>
std::vector<Number> read(int64_t count) {
    std::vector<Number> numbers(count);
    if (std::fread(numbers.data(), sizeof(Number), count, stdin) != size_t(count)) std::exit(3);
    return numbers;
}

template <class Number>
void write(const std::vector<Number> &numbers) {
    std::fwrite(numbers.data(), sizeof(Number), numbers.size(), stdout);
}

// Whatever its type, a sequence is bytes here.
using Sequence = std::vector<char>;

int main() {
    std::puts(auricle_isa());
    const auto sizes = read<int64_t>(7);
    const int64_t B = sizes[0], E = sizes[1], S = sizes[2], L = sizes[3], W = sizes[4];
    const int32_t reverse = int32_t(sizes[5]);
    const Type type = Type(sizes[6]);
    const int64_t size = type == FLOAT32 ? 4 : 2;
    const auto lengths = read<int64_t>(B);
    const int64_t along = B * L * E, maps = B * L * S, blocks = (E + BLOCK - 1) / BLOCK;
    const Sequence u = read<char>(along * size), delta = read<char>(along * size);
    const auto a = read<float>(E * S);
    const Sequence b = read<char>(maps * size), c = read<char>(maps * size);
    const auto skip = read<float>(E);
    const Sequence z = read<char>(along * size);
    const auto bias = read<float>(E), initial = read<float>(B * E * S);
    const Sequence out_grad = read<char>(along * size);
    const auto last_grad = read<float>(B * E * S), taps = read<float>(E * W);
    Sequence out(along * size), u_grad(along * size), delta_grad(along * size), z_grad(along * size);
    std::vector<float> last(B * E * S), saved(B * ((L + CHUNK - 1) / CHUNK) * S * E);
    std::vector<float> b_grad(blocks * maps), c_grad(blocks * maps);
    std::vector<float> a_grad(B * E * S), skip_grad(B * E), bias_grad(B * E), initial_grad(B * E * S);

    Scan scan{};
    scan.batch = B, scan.channels = E, scan.states = S, scan.length = L;
    scan.softplus = 1, scan.reverse = reverse;
    scan.u = {u.data(), L * E, 1, E, type}, scan.delta = {delta.data(), L * E, 1, E, type}, scan.z = {z.data(), L * E, 1, E, type};
    scan.b = {b.data(), L * S, 1, S, type}, scan.c = {c.data(), L * S, 1, S, type};
    scan.a = a.data(), scan.skip = skip.data(), scan.bias = bias.data(), scan.initial = initial.data();
    scan.lengths = lengths.data();
    scan.out = {out.data(), L * E, 1, E, type}, scan.last = last.data(), scan.saved = saved.data();
    auricle_scan_forward(&scan, 1, 2);
    scan.out_grad = {out_grad.data(), L * E, 1, E, type}, scan.last_grad = last_grad.data();
    scan.u_grad = {u_grad.data(), L * E, 1, E, type}, scan.delta_grad = {delta_grad.data(), L * E, 1, E, type};
    scan.z_grad = {z_grad.data(), L * E, 1, E, type};
    scan.b_grad = b_grad.data(), scan.c_grad = c_grad.data(), scan.a_grad = a_grad.data();
    scan.skip_grad = skip_grad.data(), scan.bias_grad = bias_grad.data(), scan.initial_grad = initial_grad.data();
    auricle_scan_backward(&scan, 1, 2);
    for (const auto *found : {&out, &u_grad, &delta_grad, &z_grad}) write(*found);
    for (const auto *found : {&last, &a_grad, &b_grad, &c_grad, &skip_grad, &bias_grad, &initial_grad}) write(*found);

    Sequence convolved(along * size), x_grad(along * size);
    std::vector<float> taps_grad(B * E * W), offset_grad(B * E);
    Convolution conv{};
    conv.batch = B, conv.channels = E, conv.length = L, conv.width = W;
    conv.silu = 1, conv.reverse = reverse;
    conv.x = {u.data(), L * E, 1, E, type}, conv.weight = taps.data(), conv.bias = bias.data();
    conv.lengths = lengths.data();
    conv.out = {convolved.data(), L * E, 1, E, type};
    auricle_convolution_forward(&conv, 1, 2);
    conv.out_grad = {out_grad.data(), L * E, 1, E, type}, conv.x_grad = {x_grad.data(), L * E, 1, E, type};
    conv.weight_grad = taps_grad.data(), conv.bias_grad = offset_grad.data();
    auricle_convolution_backward(&conv, 1, 2);
    for (const auto *found : {&convolved, &x_grad}) write(*found);
    for (const auto *found : {&taps_grad, &offset_grad}) write(*found);
}
