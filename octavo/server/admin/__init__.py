"""The administrative listener: what operators do to a running server, apart from what clients may ask."""
