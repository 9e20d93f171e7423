"""What we measure and say: latency definitions, metrics, logs. Never imports torch, numpy or fastapi."""
