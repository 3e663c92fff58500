#define WIDTH 4
#define NAME "portable"
#define KERNELS PORTABLE_KERNELS
#include "kernels.inc"
