"""Bodies (pydantic) and replies (msgspec) of the OpenAI routes and their vLLM extras."""
