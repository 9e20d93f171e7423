"""The GGUF file format: reading it safely, turning blocks into numbers and metadata into a config."""
