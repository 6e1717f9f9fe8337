"""Commits, and one session, as an fsspec file system."""
