"""The `/pfs` of a container that outlives a datum: its mounts stay, so what is in them comes and goes.

A container's folders are fixed when it starts. So it is given one folder as `/pfs` and one as `/pfs/out`, beside the
slot's working directory; each datum's inputs are moved in, and its outputs are moved to where those of any command are.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection

__all__ = ["Box"]


class Box:
    """Two folders that a container keeps.

    Parameters
    ----------
    folder
        Private to the slot, on the file system of its datums' folders; made anew.
    constants
        Names of the inputs that are mounted apart, and stay.
    """

    def __init__(self, folder: str, constants: Collection[str]) -> None:
        self.pfs, self.out = f"{folder}/pfs", f"{folder}/out"
        self._stay = {"out", *constants}
        shutil.rmtree(folder, ignore_errors=True)
        for path in (self.out, *(f"{self.pfs}/{name}" for name in self._stay)):
            os.makedirs(path)
        # Whoever runs in there may be somebody else.
        os.chmod(self.out, 0o777)

    def put_in(self, root: str) -> None:
        """Move a datum's inputs in."""
        for name in os.listdir(root):
            if name not in self._stay:
                os.rename(f"{root}/{name}", f"{self.pfs}/{name}")

    def take_out(self, root: str, out: str) -> None:
        """Move the inputs back, and what the datum left as its outputs to `out`."""
        for name in os.listdir(self.pfs):
            if name not in self._stay:
                os.rename(f"{self.pfs}/{name}", f"{root}/{name}")
        for name in os.listdir(self.out):
            os.rename(f"{self.out}/{name}", f"{out}/{name}")
