"""Modules that models are made of. They know tensors and ops, not requests."""
