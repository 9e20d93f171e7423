"""Connections: what happens to one before there is a request, beside it, and after it."""
