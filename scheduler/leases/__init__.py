"""Which slot computes which datums: the pool, its seat in a Dask scheduler, and executors that drive it."""
