"""Content by its hash: blobs and packs, pieces of large files, nodes, and where each of them lies."""
