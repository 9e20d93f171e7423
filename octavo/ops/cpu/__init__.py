"""Kernels for CPUs: a small C++ library (native/) with a plain C interface, and how Python calls it."""
