"""HTTP: bodies become requests, outputs become replies. Never imports torch; knows the engine by its port."""
