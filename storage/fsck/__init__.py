"""Whether everything is there and is what it is called; if not, what that touches, and how to mend it.

Key types: `Report`, `Problem`, `Touch` (what a check found), `Mended` (what a repair did).
"""

from .check import fsck
from .report import Problem, Progress, Report, Touch
from .sample import CheckedLog

__all__ = ["CheckedLog", "Problem", "Progress", "Report", "Touch", "fsck"]
