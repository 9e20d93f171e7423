"""Formats of tool calls: data, one file per family."""
