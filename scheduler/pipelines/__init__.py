"""What a pipeline is: the Python API of DAGs, and the version that is recorded."""
