"""Where content came from and what came of it; proofs that a history holds it."""
