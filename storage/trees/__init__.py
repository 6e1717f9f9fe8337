"""Sorted maps by their hash (prolly trees), and what commits do with them: edit, compare, merge."""
