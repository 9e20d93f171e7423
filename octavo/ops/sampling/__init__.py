"""From logits to token ids: what a row draws by, the plain form in torch, and its exact arithmetic.

Start with choose.py. Kernels live in octavo/ops/triton/sampling*.py and mean the same.
"""
