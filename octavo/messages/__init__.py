"""Values that cross a thread or a process: no torch, no behaviour beyond checking themselves."""
