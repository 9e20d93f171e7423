"""From one step's sequences and block tables to attention over the paged KV cache."""
