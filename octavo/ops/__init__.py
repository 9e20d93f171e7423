"""Kernels behind one contract: a plain form in torch, and faster providers per device."""
