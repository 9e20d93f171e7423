"""Model names to local files: aliases, folders, the Hugging Face hub, packages of the package index."""
