"""From inputs to datums, and from datums to a plan: what runs, what is known, what leaves, and why. Pure."""
