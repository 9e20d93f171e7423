"""The engine's mind: requests, scheduling, KV bookkeeping. Pure Python; ids and counts, never text or tensors."""
