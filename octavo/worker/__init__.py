"""One device: its rows, its model, its KV pages, and the running of steps. Knows no sockets and no queues."""
