"""Models: what is true of an architecture, one family per file. No requests, no serving features."""
