"""The API of Hugging Face's text-generation-inference, as huggingface_hub's InferenceClient speaks it."""
