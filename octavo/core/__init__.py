"""The engine's mind: requests, scheduling, KV bookkeeping. Ids and counts, never text or tensors."""
