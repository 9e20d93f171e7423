"""Bodies (pydantic) and replies (msgspec) of the Ollama routes."""
