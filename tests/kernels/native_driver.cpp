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

void write(const std::vector<float> &numbers) { std::fwrite(numbers.data(), sizeof(float), numbers.size(), stdout); }

int main() {
    std::puts(auricle_isa());
    const auto sizes = read<int64_t>(6);
    const int64_t B = sizes[0], E = sizes[1], S = sizes[2], L = sizes[3], W = sizes[4];
    const int32_t reverse = int32_t(sizes[5]);
    const auto lengths = read<int64_t>(B);
    const int64_t along = B * L * E, maps = B * L * S, blocks = (E + BLOCK - 1) / BLOCK;
    const auto u = read<float>(along), delta = read<float>(along), a = read<float>(E * S), b = read<float>(maps);
    const auto c = read<float>(maps), skip = read<float>(E), z = read<float>(along), bias = read<float>(E);
    const auto initial = read<float>(B * E * S), out_grad = read<float>(along), last_grad = read<float>(B * E * S);
    const auto taps = read<float>(E * W);
    std::vector<float> out(along), last(B * E * S), saved(B * ((L + CHUNK - 1) / CHUNK) * S * E);
    std::vector<float> u_grad(along), delta_grad(along), z_grad(along), b_grad(blocks * maps), c_grad(blocks * maps);
    std::vector<float> a_grad(B * E * S), skip_grad(B * E), bias_grad(B * E), initial_grad(B * E * S);

    Scan scan{};
    scan.batch = B, scan.channels = E, scan.states = S, scan.length = L;
    scan.softplus = 1, scan.reverse = reverse;
    scan.u = {u.data(), L * E, 1, E}, scan.delta = {delta.data(), L * E, 1, E}, scan.z = {z.data(), L * E, 1, E};
    scan.b = {b.data(), L * S, 1, S}, scan.c = {c.data(), L * S, 1, S};
    scan.a = a.data(), scan.skip = skip.data(), scan.bias = bias.data(), scan.initial = initial.data();
    scan.lengths = lengths.data();
    scan.out = {out.data(), L * E, 1, E}, scan.last = last.data(), scan.saved = saved.data();
    auricle_scan_forward(&scan, 1, 2);
    scan.out_grad = {out_grad.data(), L * E, 1, E}, scan.last_grad = last_grad.data();
    scan.u_grad = {u_grad.data(), L * E, 1, E}, scan.delta_grad = {delta_grad.data(), L * E, 1, E};
    scan.z_grad = {z_grad.data(), L * E, 1, E};
    scan.b_grad = b_grad.data(), scan.c_grad = c_grad.data(), scan.a_grad = a_grad.data();
    scan.skip_grad = skip_grad.data(), scan.bias_grad = bias_grad.data(), scan.initial_grad = initial_grad.data();
    auricle_scan_backward(&scan, 1, 2);
    for (const auto *found : {&out, &last, &u_grad, &delta_grad, &a_grad, &b_grad, &c_grad, &skip_grad, &z_grad,
                              &bias_grad, &initial_grad})
        write(*found);

    std::vector<float> convolved(along), x_grad(along), taps_grad(B * E * W), offset_grad(B * E);
    Convolution conv{};
    conv.batch = B, conv.channels = E, conv.length = L, conv.width = W;
    conv.silu = 1, conv.reverse = reverse;
    conv.x = {u.data(), L * E, 1, E}, conv.weight = taps.data(), conv.bias = bias.data();
    conv.lengths = lengths.data();
    conv.out = {convolved.data(), L * E, 1, E};
    auricle_convolution_forward(&conv, 1, 2);
    conv.out_grad = {out_grad.data(), L * E, 1, E}, conv.x_grad = {x_grad.data(), L * E, 1, E};
    conv.weight_grad = taps_grad.data(), conv.bias_grad = offset_grad.data();
    auricle_convolution_backward(&conv, 1, 2);
    for (const auto *found : {&convolved, &x_grad, &taps_grad, &offset_grad}) write(*found);
}
