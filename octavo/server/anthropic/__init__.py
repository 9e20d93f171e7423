"""The Anthropic API: /v1/messages, whole and streamed, and /v1/messages/count_tokens."""
