#define WIDTH 4
#if defined(__aarch64__)
#define NAME "neon"
#else
#define NAME "portable"
#endif
#define KERNELS PORTABLE_KERNELS
#include "kernels.inc"
