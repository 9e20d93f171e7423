"""Who may come in, how much of it, and what was used: keys with names, their limits and their ledger."""
