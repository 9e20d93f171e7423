"""Modules that models are made of. They know tensors and ops, not requests.

They call each other's `forward`, not the module: that is typed, and spares the machinery for module
hooks, which nothing here uses.
"""
