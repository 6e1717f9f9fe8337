"""The algebra of inputs: expressions, bound to commits as ordered streams, and how those differ between commits."""
