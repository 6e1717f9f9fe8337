"""A versioned, content-addressed store on fsspec.

Owns: backends, objects and packs, commit trees, the ledger and its fold, repos, arrays, provenance queries, fsck.
Imports no other layer, and neither Dask nor click.
"""
