"""Text to ids and back: tokenizers, chat templates, incremental decoding, stop strings. No torch here."""
