"""Optional parts of a step. Each is one file and uses the five hooks of `contract.Extra`."""
