"""The folders of the unit that a child runs: it lays out small inputs by itself, whose content came with the unit.

Layout: ``<n>/<input>/<path in the repo>`` and ``<n>/out``. ``<n>`` is renamed for each datum, so that no path of an
earlier one leads there; the folders in it are kept.

Where that fails (no room, a path that is too long, a process that user code left unable to make files) nothing is
called: the slot lays the unit out, and says what is wrong if it cannot either. What a child that was killed left here
is removed by its slot.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from .berths import FOLDER, Stock, unlinked
from .sealed import Seal, is_sealed, write_sealed
from .wire import Given, Payload, Result

Entries = Sequence["os.DirEntry[str]"]

_FEW = 256
"""So many files are removed within no time."""
_LONG_AGO = (1_000_000_000, 1_000_000_000)
"""No change that is made now has this time; in whole seconds, which every file system keeps."""


class _Kept:
    """A folder that stays, by its descriptor: it is checked after user code, which may have closed it.

    Its time of change is set to one long ago, so that a look at that tells whether anything was made in it, removed or
    renamed since, however roughly the file system and the kernel take times.
    """

    def __init__(self, name: str, parent: int | None = None) -> None:
        self.fd = os.open(name, FOLDER, dir_fd=parent)
        self._like = os.fstat(self.fd)

    def settle(self) -> None:
        """Take it as it is now."""
        os.utime(self.fd, ns=_LONG_AGO)

    def look(self) -> os.stat_result:
        """Return its status.

        Raises
        ------
        NotADirectoryError
            The descriptor is not its any more.
        """
        status = os.fstat(self.fd)
        if status.st_ino != self._like.st_ino or status.st_dev != self._like.st_dev:
            self.fd = -1
            raise NotADirectoryError("user code closed the descriptor of a folder")
        return status

    def is_settled(self) -> bool:
        """Whether nothing was made in it, removed or renamed since `settle`, nor its mode changed."""
        status = self.look()
        return status.st_mtime_ns == _LONG_AGO[1] and status.st_mode == self._like.st_mode

    def is_at(self, name: str, parent: int) -> bool:
        """Whether that is its name."""
        return os.path.samestat(os.stat(name, dir_fd=parent, follow_symlinks=False), self.look())

    def close(self) -> None:
        """Close the descriptor, if it is still its."""
        with contextlib.suppress(OSError):
            self.look()
            os.close(self.fd)
        self.fd = -1


class _Placed(NamedTuple):
    folder: _Kept
    inside: str
    """Path in the input."""
    shown: str
    """What user code is told that it changed: the input's name in front."""
    seal: Seal


class _Berth:
    """One folder for one datum at a time."""

    def __init__(self, path: str, stock: Stock) -> None:
        self.path = path
        self._stock = stock
        stock.make(path)
        self._own = _Kept(path)
        self._inputs: dict[str, _Kept] = {}
        self._out: _Kept | None = None
        self._out_name = ""
        self._placed: list[_Placed] = []
        self._nested = False
        """An input of the present datum lies in a folder of its own."""

    def move(self, path: str) -> bool:
        """Take another path, which is there for the next datum; False: it is not where it was."""
        try:
            os.rename(self.path, path)
        except OSError:
            return False
        self.path = path
        return True

    def place(self, name: str, given: Given) -> str:
        """Write a file of an input; return its path."""
        folder = self._inputs.get(name)
        if folder is None:
            folder = self._inputs[name] = self._make(name)
        inside = given.path
        path = f"{self.path}/{name}/{inside}"
        if "/" in inside:
            self._stock.make_all(os.path.dirname(path))
            self._nested = True
        seal = write_sealed(inside, given.data, folder.fd)
        self._placed.append(_Placed(folder, inside, f"{name}/{inside}", seal))
        folder.settle()
        return path

    def out(self, name: str) -> str:
        """Return an empty folder for outputs."""
        if self._out is None or self._out_name != name:
            self._out, self._out_name = self._make(name), name
        return f"{self.path}/{name}"

    def _make(self, name: str) -> _Kept:
        self._stock.make(f"{self.path}/{name}")
        kept = _Kept(name, self._own.fd)
        self._own.settle()
        return kept

    def changed(self) -> str:
        """Return the first file that is not what it was, as its input and the path in it; empty: all are."""
        for folder, inside, shown, seal in self._placed:
            # By path, too: user code may have closed the descriptor.
            if not is_sealed(inside, seal, folder.fd) and not is_sealed(f"{self.path}/{shown}", seal):
                return shown
        return ""

    def clear(self, listed: Entries | None, *, alone: bool) -> None:
        """Remove what the datum was given and left, as far as it is not kept.

        Parameters
        ----------
        listed
            What is in the folder of outputs, files alone; None: not known.
        alone
            Nobody else is left who may use it.

        Raises
        ------
        OSError
            It is not what it was, and must go.
        """
        placed, self._placed = self._placed, []
        nested, self._nested = self._nested, False
        if not alone or not self._own.is_settled():
            self._own.look()
            self._clear_slowly(alone=alone)
            return
        if self._out is not None:
            self._clear_out(self._out, listed)
        # Every input, whether the datum had a file of it or not: user code knows where all of them are.
        full = [name for name, folder in self._inputs.items() if nested or not folder.is_settled()]
        for folder, inside, _, _ in placed:
            if not nested:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(inside, dir_fd=folder.fd)
        for name in full:
            self._stock.empty_alone(f"{self.path}/{name}")

    def _clear_out(self, out: _Kept, listed: Entries | None) -> None:
        if listed is None:
            self._stock.empty_alone(f"{self.path}/{self._out_name}")
            status = out.look()
        else:
            status = out.look()
            for entry in listed:
                os.unlink(entry.name, dir_fd=out.fd)
        if not self._stock.is_plain(status):
            os.rmdir(self._out_name, dir_fd=self._own.fd)
            self._forget_out()

    def _clear_slowly(self, *, alone: bool) -> None:
        """Do so whatever others do meanwhile, following no link; the folder of outputs goes, too."""
        fd = self._own.fd
        left = set(self._inputs)
        for name in os.listdir(fd):
            if name in left:
                self._stock.empty(name, fd, reuse=False)
                left.discard(name)
            elif not unlinked(name, fd):
                self._stock.remove(name, fd, reuse=alone)
        self._forget_out()
        if left or not self._own.is_settled() or not all(kept.is_at(name, fd) for name, kept in self._inputs.items()):
            raise NotADirectoryError(f"{self.path} is not what it was")

    def _forget_out(self) -> None:
        if self._out is not None:
            self._out.close()
        self._out = None
        self._own.settle()

    def close(self) -> None:
        """Close its descriptors; it is of no use any more."""
        for kept in (self._own, self._out, *self._inputs.values()):
            if kept is not None:
                kept.close()

    def remove(self) -> None:
        """Delete it."""
        self.close()
        shutil.rmtree(self.path, ignore_errors=True)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


class DatumFolders:
    """The folders of one unit at a time.

    Parameters
    ----------
    root
        Private to this child and job; exists.
    out
        Each datum gets a folder for its outputs.
    """

    def __init__(self, root: str, *, out: bool) -> None:
        self._root = root
        self._stock = Stock(f"{root}/stock")
        self._has_out = out
        self._free: list[_Berth] = []
        self._made = 0
        self._laid_out: list[tuple[int, _Berth, str]] = []
        """Of the present unit: place in it, berth, and the folder for outputs."""
        self._listed: dict[str, Entries] = {}
        """What was found in folders of outputs, by folder; of those with few files and nothing else."""

    def lay_out(self, payloads: Sequence[Payload]) -> tuple[Payload, ...]:
        """Lay out the datums of a unit, as far as that is left to the child; `clear` follows, whatever happens.

        Raises
        ------
        OSError
            It cannot be done here.
        """
        return tuple(
            [
                self._lay_out(place, payload) if payload.unlaid else payload
                for place, payload in enumerate(payloads)  # a list: a third of what a generator costs for one
            ]
        )

    def _berth(self) -> _Berth:
        self._made += 1
        path = f"{self._root}/{self._made}"
        while self._free:
            berth = self._free.pop()
            if berth.move(path):
                return berth
            berth.remove()
        return _Berth(path, self._stock)

    def _lay_out(self, place: int, payload: Payload) -> Payload:
        berth = self._berth()
        self._laid_out.append((place, berth, ""))
        given = payload.given.copy()
        for name, each in payload.given.items():
            if each.kind == "file":
                given[name] = Given("path", berth.place(name, each))
        out = ""
        if self._has_out:
            name = "out"
            while name in given:
                name += "-"
            out = berth.out(name)
            self._laid_out[-1] = (place, berth, out)
        return Payload(
            payload.id, given, payload.captures, out, "", payload.env, payload.attempt, payload.resident, payload.stands
        )

    def listed(self, folder: str, entries: Entries) -> None:
        """Take what is in a folder of outputs: they are read, and can be removed without looking again."""
        if len(entries) <= _FEW and not any(map(_is_folder, entries)):
            self._listed[folder] = entries

    def judged(self, results: tuple[Result, ...]) -> tuple[Result, ...]:
        """Add to the results of datums whose inputs were changed which file that is."""
        for place, berth, _ in self._laid_out:
            if place < len(results) and (changed := berth.changed()):
                result = msgspec.structs.replace(results[place], changed=changed)
                results = (*results[:place], result, *results[place + 1 :])
        return results

    @property
    def slow(self) -> bool:
        """Whether to clear them may take longer than a datum should be kept waiting."""
        return any([out and out not in self._listed for _, _, out in self._laid_out])  # noqa: C419 - there is one, mostly

    def clear(self, *, alone: bool) -> None:
        """Remove what the unit's datums were given and what they left.

        Parameters
        ----------
        alone
            Nothing that they started is left: no thread, no process.
        """
        laid_out, self._laid_out = self._laid_out, []
        listed, self._listed = self._listed, {}
        for _, berth, out in laid_out:
            try:
                berth.clear(listed.get(out), alone=alone)
            except OSError:
                berth.remove()
            else:
                self._free.append(berth)

    def close(self) -> None:
        """Let go of all of them; their slot removes them."""
        for berth in self._free:
            berth.close()
        self._free.clear()
