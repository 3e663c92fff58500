#define WIDTH 16
#define NAME "avx512"
#define KERNELS AVX512_KERNELS
#include "kernels.inc"
