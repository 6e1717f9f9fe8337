"""Who holds which parts of which files: the tracker, and its place in the Dask scheduler."""
