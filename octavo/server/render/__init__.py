"""Bodies become prompts and sampling parameters. Everything is checked here, before the engine is touched."""
