"""Benchmarks: what to send (datasets), how (client, load), what came out (measure, report, plot)."""
