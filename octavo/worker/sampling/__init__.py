"""Logits to token ids: masks, penalties, filters, random draws and log-probabilities.

Start with sampler.py, which reads as the order of work. This room knows rows and tensors; it never
knows the model, the scheduler or text.
"""
