"""Commits in the making: edits of one process or of many, merges, transactions, and how they are published."""
