"""Requests to models that answer with numbers: embeddings, scores of labels."""
