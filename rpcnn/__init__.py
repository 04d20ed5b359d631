"""RP R-CNN: multiple human parsing with custom C++/CUDA kernels."""

__version__ = "0.1.0"
