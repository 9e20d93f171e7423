"""Models of transformers, computed by their own modules on our attention, products and norms."""
