"""KV bookkeeping: which block holds what, who holds which block, what can be reused. Ids only, no memory."""
