"""The Ollama API: chat, generate, and what is served, for clients made for Ollama."""
