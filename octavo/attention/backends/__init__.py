"""Attention backends, one per file. They do not know each other."""
