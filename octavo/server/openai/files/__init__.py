"""/v1/files: what clients upload and what batches write, kept on disk for whoever made it."""
