"""Click commands: what is typed, turned into calls of the layers below; no logic.

May import every layer. `main` knows the verbs by a table and imports the one that is used, so that
``dmlpipe --help`` and ``dmlpipe ls`` load no Dask, zarr, s3fs or numpy.

Key types: `App` (what the global options say, and how a verb speaks), `Verb` and `Noun` (commands that take the
global options anywhere), `Progress` (the live table of a run).
"""
