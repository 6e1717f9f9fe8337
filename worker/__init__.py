"""Slots that run user code.

Owns: what a job looks like to a worker (`job`), slot child processes, materialised inputs, collected outputs,
segment writers, the pull loop inside a Dask worker. May import `dmlpipe.storage` only.
"""
