"""How wishes become values: one file per kind of option."""
