"""The Responses API: /v1/responses, its events, its storage."""
