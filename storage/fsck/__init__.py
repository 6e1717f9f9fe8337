"""Whether everything is there and is what it is called; if not, what that touches, and how to mend it.

Key types: `Report`, `Problem`, `Touch` (what a check found), `Mended` (what a repair did).
"""

from .check import fsck
from .mirrors import Mirror
from .repair import NOT_REPRODUCIBLE, Mended, Rederive, repair
from .report import Problem, Progress, Report, Touch
from .sample import CheckedLog
from .touched import FileRef

__all__ = [
    "NOT_REPRODUCIBLE",
    "CheckedLog",
    "FileRef",
    "Mended",
    "Mirror",
    "Problem",
    "Progress",
    "Rederive",
    "Report",
    "Touch",
    "fsck",
    "repair",
]
