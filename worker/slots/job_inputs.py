"""What all datums of a job share: constant inputs, the forms that its parameters ask for, grids of arrays."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

from ...storage.digest import Digest, from_hex
from ...storage.errors import ErrorCode, NotFoundError
from ...storage.objects.value import Value, decode_value
from ...storage.trees.prolly import Tree
from ..child.arrays import METADATA_FILE, Grid, output_metadata, parse_grid
from ..child.wire import Given
from ..job import Datum, JobInput, JobSpec, PythonTransform, Region
from .files import ContentStore, Files, files_below, named, small_bytes


class JobInputs:
    """What all datums of a job share: constant inputs laid out once. Safe for use by many threads.

    Parameters
    ----------
    folder
        Private to this job and worker; made when needed.
    """

    def __init__(self, store: ContentStore, spec: JobSpec, folder: Path) -> None:
        self.spec = spec
        self.folder = folder
        self.varying = tuple(item for item in spec.inputs if not item.constant)
        self.constants: dict[str, Given] = {}
        self._files = Files(store)
        self._lock = threading.Lock()
        self._grids: dict[tuple[bytes, str], tuple[Grid, Value]] = {}
        self._store = store
        self.forms = _forms(spec, self.varying)
        """Per varying input, the form that its parameter asks for; empty: nobody asks for it."""
        self.in_folders = _in_folders(spec, self.forms)
        """Whether its datums are laid out in folders."""
        self._left_forms = _left_forms(spec, self.varying, self.forms)
        self.resident = _resident_names(spec)
        for item in spec.inputs:
            if item.constant:
                self.constants[item.name] = self._lay_out(item)

    def left_bytes(self, datum: Datum) -> int | None:
        """The content that travels if the child lays a datum out; None: it may not.

        It may if all its files are small and asked for one by one.
        """
        forms = self._left_forms
        if forms is None:
            return None
        total = 0
        for form, item in zip(forms, datum.items, strict=True):
            kind = item.kind
            if kind == "f":
                if form:
                    size = small_bytes(item.value)
                    if size is None:
                        return None
                    total += size
            elif kind != "v" and kind != "n":
                return None
        return total

    def _lay_out(self, item: JobInput) -> Given:
        root = self.folder / "constants" / item.name
        root.mkdir(parents=True)
        path = item.path.strip("/")
        if item.tree:
            files = files_below(self._store.tree(from_hex(item.tree)), path)
            with named(f"a file of input {item.name!r}"):
                self._files.place_all((os.path.join(root, name), value) for name, value in files)
        where = os.path.join(root, path) if path else str(root)
        if not os.path.exists(where):
            os.makedirs(where)
        return Given("array" if item.kind == "array" else "path", path=where, root=str(root))

    def changed(self) -> str | None:
        """Return a constant input's file that somebody wrote to, having laid it out again; None if there is none."""
        with self._lock:
            found = self._files.changed()
            if found is not None:
                self._files.mend()
            return found

    def grid(self, region: Region) -> tuple[Grid, Value]:
        """Grid of a region's array, and the value of its metadata."""
        key = (region.tree, region.array)
        with self._lock:
            known = self._grids.get(key)
        if known is None:
            known = self._read_grid(self._store.tree(Digest(region.tree)), region.array)
            with self._lock:
                self._grids[key] = known
        return known

    def _read_grid(self, tree: Tree, array: str) -> tuple[Grid, Value]:
        path = f"{array.strip('/')}/{METADATA_FILE}".lstrip("/")
        raw = tree.get(path.encode())
        if raw is None:
            raise NotFoundError(f"array {array!r} is not there: no {path}", code=ErrorCode.NO_FILE)
        value = decode_value(raw)
        return parse_grid(self._store.objects.read(value), path), value

    def output_array(self) -> bytes:
        """The ``zarr.json`` of the output array; empty without `writes=`."""
        writes = self.spec.writes
        if writes is None:
            return b""
        like = next(item for item in self.spec.inputs if item.name == writes.like)
        _, value = self._read_grid(self._store.tree(from_hex(like.tree)), like.path)
        return output_metadata(self._store.objects.read(value), writes)

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _forms(spec: JobSpec, varying: Sequence[JobInput]) -> tuple[str, ...]:
    transform = spec.transform
    if not isinstance(transform, PythonTransform):
        return ("path",) * len(varying)
    asked = {p.input or p.name: p.form for p in transform.signature if p.source == "input"}
    return tuple(asked.get(item.name, "") for item in varying)


def _left_forms(spec: JobSpec, varying: Sequence[JobInput], forms: Sequence[str]) -> tuple[str, ...] | None:
    """The forms, if datums with such may be laid out by the child."""
    if not isinstance(spec.transform, PythonTransform) or not {"", "bytes", "path"}.issuperset(forms):
        return None
    stands = any(form and (item.lazy or item.empty) for item, form in zip(varying, forms, strict=True))
    return None if stands else tuple(forms)


def _in_folders(spec: JobSpec, forms: Sequence[str]) -> bool:
    transform = spec.transform
    if not isinstance(transform, PythonTransform) or transform.result == "out":
        return True
    return not {"", "bytes"}.issuperset(forms)


def _resident_names(spec: JobSpec) -> frozenset[str]:
    transform = spec.transform
    if not isinstance(transform, PythonTransform):
        return frozenset()
    return frozenset(p.input or p.name for p in transform.signature if p.resident)
