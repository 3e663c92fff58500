"""Kernels of the Mamba family, each behind one front door that picks the fastest implementation at hand."""

from auricle.kernels.convolution import bidirectional_conv1d, causal_conv1d
from auricle.kernels.products import linear
from auricle.kernels.scan import bidirectional_scan, selective_scan

__all__ = ["bidirectional_conv1d", "bidirectional_scan", "causal_conv1d", "linear", "selective_scan"]
