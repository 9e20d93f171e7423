"""The front door for Python users and the server: LLM, AsyncLLM, text from ids, the core's life."""
