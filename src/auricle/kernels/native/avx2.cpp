#define WIDTH 8
#define NAME "avx2"
#define KERNELS AVX2_KERNELS
#include "kernels.inc"
