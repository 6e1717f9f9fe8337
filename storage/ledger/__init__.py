"""The ledger: appended to, read, folded up to checkpoints; the only authority on what exists."""
