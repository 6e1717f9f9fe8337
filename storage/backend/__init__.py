"""Where bytes live: one primitive, `Backend.put_if_absent`, carries all the safety of a store.

Owns: the protocol, its three implementations (local folder, memory of this process, anything fsspec reaches) and
the probe that refuses a medium on which the primitive does not hold.

Key types: `Backend`, `Properties`, `open_backend`, `probe_exclusive_create`.
"""

from .base import MAX_OBJECT_BYTES, Backend, Properties, Request
from .draft import Clone, Draft
from .opening import open_backend
from .probe import is_vacant, probe_exclusive_create

__all__ = [
    "MAX_OBJECT_BYTES",
    "Backend",
    "Clone",
    "Draft",
    "Properties",
    "Request",
    "is_vacant",
    "open_backend",
    "probe_exclusive_create",
]
