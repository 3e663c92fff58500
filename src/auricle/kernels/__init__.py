"""Kernels of the Mamba family, each behind one front door that picks the fastest implementation at hand."""

from auricle.kernels.convolution import causal_conv1d
from auricle.kernels.scan import selective_scan

__all__ = ["causal_conv1d", "selective_scan"]
