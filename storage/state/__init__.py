"""What exists in a store now: the ledger's records, folded one by one."""

from .state import State
from .view import IDENTITY, ZERO_HASH, Base

__all__ = ["IDENTITY", "ZERO_HASH", "Base", "State"]
