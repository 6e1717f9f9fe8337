"""From a DAG to finished jobs.

Owns: the Python API of DAGs, pipeline specs, the input algebra, code identity, plans, the lease pool in the Dask
scheduler, the controller, cluster launchers, `testing`. May import `dmlpipe.worker` and `dmlpipe.storage`.
"""
