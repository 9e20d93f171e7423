"""Sampling as requests ask for it: masks, penalties, log-probabilities, and the choice of a token.

Start with sampler.py, which reads as the order of work. This room knows rows and tensors; it never
knows the model, the scheduler or text. How a token is drawn is in octavo/ops/sampling. On a GPU
nothing here waits for the device: work is enqueued, and what the host needs is read later.
"""
