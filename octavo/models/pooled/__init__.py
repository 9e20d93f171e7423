"""Models that answer with numbers: encoders and decoders, and the heads behind their pooling."""
