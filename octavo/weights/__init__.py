"""Model files: finding them, opening them, turning them into tensors and configuration."""
