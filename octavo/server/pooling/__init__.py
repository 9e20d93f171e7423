"""Routes of models that answer with numbers: embeddings, scores, labels."""
