"""What those who write a backend, or test against one, need. Imports pytest: for tests only.

Key types: `BackendTests` (the contract of `Backend` as a suite), `TransientTests` (what a backend over a network does
about faults, below it `FaultyFiles`), `CountingBackend`, `StoppingBackend`, `Stopped`.
"""

from .backend_tests import BackendTests
from .faults import CountingBackend, Stopped, StoppingBackend, WrappedBackend
from .faulty_files import Fault, FaultyFiles
from .transient_tests import TransientTests

__all__ = [
    "BackendTests",
    "CountingBackend",
    "Fault",
    "FaultyFiles",
    "Stopped",
    "StoppingBackend",
    "TransientTests",
    "WrappedBackend",
]
