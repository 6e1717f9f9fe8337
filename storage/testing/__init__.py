"""What those who write a backend, or test against one, need. Imports pytest: for tests only.

Key types: `BackendTests` (the contract of `Backend` as a suite), `CountingBackend`, `StoppingBackend`, `Stopped`.
"""

from .backend_tests import BackendTests
from .faults import CountingBackend, Stopped, StoppingBackend, WrappedBackend

__all__ = ["BackendTests", "CountingBackend", "Stopped", "StoppingBackend", "WrappedBackend"]
