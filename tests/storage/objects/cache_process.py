"""A process that fetches files into a cache: ``python cache_process.py CACHE SOURCE LOG GATE NAME...``.

`SOURCE` holds the parts as files by hash; each read is a line in `LOG`. Where a file `GATE/<hash>` exists the read
waits until it is gone. A NAME is ``<size>:<hash>[,<hash>...]``: parts of equal size but for the last.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dmlpipe.storage.digest import Digest, digest
from dmlpipe.storage.objects.cache import FileCache
from dmlpipe.storage.objects.filling import Part
from dmlpipe.storage.objects.value import Pieces, Value, Whole

PART = 64 << 10


class Folder:
    """Parts in a folder, reads counted across processes."""

    def __init__(self, source: Path, log: Path, gates: Path) -> None:
        self.source, self.log, self.gates = source, log, gates
        self.files: dict[bytes, list[Part]] = {}

    def add(self, data: bytes) -> Pieces:
        """Store a file; return its value."""
        hashes = []
        for start in range(0, len(data), PART):
            part = data[start : start + PART]
            hashes.append(digest(part))
            (self.source / hashes[-1].hex()).write_bytes(part)
        return self.know(len(data), hashes)

    def know(self, size: int, hashes: Sequence[bytes]) -> Pieces:
        """Remember a file's parts."""
        name = digest(b"".join(hashes))
        self.files[name] = [
            Part(number, number * PART, min(PART, size - number * PART), Digest(each))
            for number, each in enumerate(hashes)
        ]
        return Pieces(size, name)

    def spell(self, value: Pieces) -> str:
        """Name of a file for another process."""
        return f"{value.size}:{','.join(part.hash.hex() for part in self.files[value.manifest])}"

    def parts(self, value: Whole | Pieces) -> Sequence[Part]:
        assert isinstance(value, Pieces)
        return self.files[value.manifest]

    def read_part(self, part: Part) -> bytes:
        with open(self.log, "a") as log:
            log.write(f"{os.getpid()} {part.hash.hex()}\n")
        gate = self.gates / part.hash.hex()
        deadline = time.monotonic() + 60
        while gate.exists() and time.monotonic() < deadline:
            time.sleep(0.002)
        return (self.source / part.hash.hex()).read_bytes()

    def copy_to(self, value: Value, path: Path) -> None:
        raise NotImplementedError

    def reads(self) -> list[str]:
        """Hashes of the parts that were read, in order."""
        return [line.split()[1] for line in self.log.read_text().splitlines()] if self.log.exists() else []


def main(cache: str, source: str, log: str, gates: str, *names: str) -> None:
    """Fetch every name, again and again if `DML_LOOP` is set, and say so."""
    folder = Folder(Path(source), Path(log), Path(gates))
    files = FileCache(Path(cache))
    values = []
    for name in names:
        size, _, hashes = name.partition(":")
        values.append(folder.know(int(size), [bytes.fromhex(each) for each in hashes.split(",")]))
    while True:
        for value in values:
            path = files.get(value, folder)
            data = path.read_bytes()
            assert digest(data[:PART]) == folder.parts(value)[0].hash
            print("got", flush=True)
            if os.environ.get("DML_LOOP"):
                files.drop(value)
        if not os.environ.get("DML_LOOP"):
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
