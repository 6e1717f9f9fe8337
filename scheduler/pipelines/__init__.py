"""What a pipeline is: the Python API of DAGs, specifications in JSON and YAML, and the version that is recorded."""
