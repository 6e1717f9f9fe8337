"""The folders of one datum: its inputs as user code finds them.

Layout below a slot's folder: ``d/<n>/<input>/<path in the repo>`` for Python, ``d/<n>/pfs/<input>/...`` for commands,
``d/<n>/out`` or ``d/<n>/pfs/out`` for outputs. Python datums that need small files alone are laid out by the child,
below ``own/<job>``. Constant inputs are laid out once per job and shared by its slots.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

import msgspec

from ...storage.digest import Digest, digest
from ...storage.errors import DmlpipeError, ErrorCode, InvalidInputError
from ...storage.objects.value import Value, decode_value
from ..child.arrays import METADATA_FILE
from ..child.berths import Berth, Berths
from ..child.environment import datum_environment, parameter_text
from ..child.namespace import PFS
from ..child.wire import INLINE_MAX_BYTES, Box, Given, Payload
from ..job import Datum, Item, JobInput, PythonTransform, Region
from .files import ContentStore, Files, files_below, named
from .job_inputs import JobInputs
from .prepared import Prepared
from .standins import StandIns

_region_decoder = msgspec.msgpack.Decoder(Region)

UNUSED = Given("path")
"""Nobody asks for it (only its captures are wanted): it need not be there."""


def resident(job: JobInputs, datum: Datum) -> str:
    """What the resident inputs hold."""
    parts = [
        (declared.name, item.path, item.value)
        for declared, item in zip(job.varying, datum.items, strict=True)
        if declared.name in job.resident
    ]
    return digest(msgspec.msgpack.encode(parts)).hex() if parts else ""


class Layout:
    """Makes one `Prepared`."""

    def __init__(
        self,
        store: ContentStore,
        berths: Berths,
        job: JobInputs,
        datum: Datum,
        attempt: int,
        contents: Mapping[bytes, bytes],
    ) -> None:
        self._store = store
        self._berths = berths
        self._job = job
        self._datum = datum
        self._attempt = attempt
        self._contents = contents
        self._files = Files(store, berths.stock.make_all)
        self._standins = StandIns(store.objects) if any(each.lazy or each.empty for each in job.varying) else None
        self._stands: dict[str, str] = {}
        self._berth: Berth | None = None

    def make(self) -> Prepared:
        """Lay out."""
        transform = self._job.spec.transform
        try:
            with named("a file of the datum"):
                payload = self._python(transform) if isinstance(transform, PythonTransform) else self._command()
        except DmlpipeError:
            if self._standins is not None:
                self._standins.close()
            if self._berth is not None:
                self._berth.remove()
            raise
        if self._stands:
            payload = msgspec.structs.replace(payload, stands=self._stands)
        berth = self._berth
        if berth is None:
            return Prepared(payload, self._files, "", None, self._standins)
        job = self._job
        done = lambda reuse: self._berths.give_back(berth, job, reuse=reuse)  # noqa: E731 - it keeps what it is made of
        return Prepared(payload, self._files, berth.path, done, self._standins)

    def _root(self) -> Berth:
        if self._berth is None:
            self._berth = self._berths.take(self._job)
        return self._berth

    def _captures(self) -> dict[str, str]:
        captures: dict[str, str] = {}
        for item in self._datum.items:
            captures |= item.captures
        return captures

    def _python(self, transform: PythonTransform) -> Payload:
        given = {
            declared.name: self._given(declared, item, form)
            for declared, form, item in zip(self._job.varying, self._job.forms, self._datum.items, strict=True)
        }
        # Threads of Python code may outlive their datum; what they write late must not be another's output.
        out = self._root().fresh("out") if transform.result == "out" else ""
        return Payload(
            id=self._datum.fingerprint.hex(),
            given=given,
            captures=self._captures(),
            out=out,
            attempt=self._attempt,
            resident=resident(self._job, self._datum),
        )

    def _given(self, declared: JobInput, item: Item, form: str) -> Given:
        match item.kind:
            case "v":
                return Given("value", value=msgspec.json.decode(item.path))
            case "f" if form == "bytes" and declared.empty:
                return Given("bytes", data=b"")
            case "f" if form == "bytes" and not declared.lazy:
                content = self._contents.get(item.value)
                value = decode_value(item.value)
                if content is None and value.size < INLINE_MAX_BYTES:
                    content = self._store.objects.read(value)
                if content is not None:
                    return Given("bytes", data=content)
                return Given("path", path=self._file(declared, item, self._root().path))
            case "f":
                return Given("path", path=self._file(declared, item, self._root().path)) if form else UNUSED
            case "d":
                return Given("path", path=self._tree(declared, item, self._root().path) if form else "")
            case "a":
                return self._region(declared.name, item, self._root().path)
            case "l":
                return Given("paths", paths=self._group(declared, item, self._root().path) if form else ())
            case "n":
                return Given("none")
            case other:
                raise ValueError(f"unknown kind of item {other!r}")

    def _place_all(self, declared: JobInput, folder: str, entries: Iterable[tuple[str, Value]]) -> None:
        """Place (path below `folder`, value), or what stands for it."""
        targets = ((f"{folder}/{path}", value) for path, value in entries)
        if self._standins is not None and (declared.lazy or declared.empty):
            self._stands[declared.name] = folder
            self._standins.place(targets, pipes=declared.lazy)
        else:
            self._files.place_all(targets)

    def _file(self, declared: JobInput, item: Item, root: str) -> str:
        folder = self._root().keep(root, declared.name)
        path = item.path.strip("/")
        target = f"{folder}/{path}"
        if declared.lazy or declared.empty:
            self._place_all(declared, folder, [(path, decode_value(item.value))])
            return target
        if "/" in path:
            self._berths.stock.make_all(os.path.dirname(target))
        self._files.place(decode_value(item.value), target, self._contents.get(item.value))
        return target

    def _tree(self, declared: JobInput, item: Item, root: str) -> str:
        folder = self._root().keep(root, declared.name)
        path = item.path.strip("/")
        files = files_below(self._store.tree(Digest(item.value)), path)
        self._place_all(declared, folder, files)
        target = f"{folder}/{path}" if path else folder
        self._berths.stock.make_all(target)
        return target

    def _group(self, declared: JobInput, item: Item, root: str) -> tuple[str, ...]:
        """Lay out all files of a group; return where each of its files and folders is."""
        folder = self._root().keep(root, declared.name)
        wanted: dict[str, Value] = {}
        found: dict[str, None] = {}
        for member in item.members():
            path = member.path.strip("/")
            target = f"{folder}/{path}" if path else folder
            found[target] = None
            if member.kind == "d":
                self._berths.stock.make_all(target)
                files = files_below(self._store.tree(Digest(member.value)), path)
            else:
                files = iter([(path, decode_value(member.value))])
            for inside, value in files:
                if wanted.setdefault(inside, value) != value:
                    raise InvalidInputError(
                        f"group {item.path!r} has two files /{inside} in input {declared.name!r}",
                        code=ErrorCode.BAD_INPUT,
                        hint="give the members of the union names of their own",
                    )
        self._place_all(declared, folder, wanted.items())
        return tuple(found)

    def _region(self, name: str, item: Item, root: str) -> Given:
        region = _region_decoder.decode(item.value)
        grid, metadata = self._job.grid(region)
        folder = self._root().keep(root, name)
        tree = self._store.tree(Digest(region.tree))
        array = region.array.strip("/")
        keys = [grid.key(index) for index in grid.covering(region.read)]
        paths = sorted((f"{array}/{key}".lstrip("/").encode(), key) for key in keys)
        values = tree.get_many([path for path, _ in paths])
        present = [
            (f"{folder}/{key}", decode_value(raw))
            for (_, key), raw in zip(paths, values, strict=True)
            if raw is not None
        ]
        self._files.place_all([(f"{folder}/{METADATA_FILE}", metadata), *present])
        return Given("array", path=folder, box=Box(region.core, region.read))

    def _command(self) -> Payload:
        berth = self._root()
        pfs = berth.keep(berth.path, "pfs")
        variables = {"out": f"{PFS}/out"}
        for declared, item in zip(self._job.varying, self._datum.items, strict=True):
            match item.kind:
                case "v":
                    variables[declared.name] = parameter_text(msgspec.json.decode(item.path))
                    continue
                case "f":
                    self._file(declared, item, pfs)
                case "d":
                    self._tree(declared, item, pfs)
                case "l":
                    self._group(declared, item, pfs)
                case "n":
                    berth.leave_out(pfs, declared.name)
                    continue
                case _:
                    self._region(declared.name, item, pfs)
            path = "" if item.kind in ("a", "l") else item.path.strip("/")
            variables[declared.name] = f"{PFS}/{declared.name}/{path}".rstrip("/")
        for name, given in self._job.constants.items():
            berth.keep(pfs, name)
            inside = os.path.relpath(given.path, given.root)
            variables[name] = f"{PFS}/{name}" if inside == "." else f"{PFS}/{name}/{inside}"
        variables |= {name: value for name, value in self._captures().items() if name not in variables}
        out = berth.keep(pfs, "out")
        name = self._datum.fingerprint.hex()
        listed = variables | datum_environment(name, self._attempt)
        berth.write(pfs, ".env", "".join(f"{key}={value}\n" for key, value in listed.items()).encode())
        return Payload(
            id=name,
            given={},
            out=out,
            root=pfs,
            env=variables,
            attempt=self._attempt,
        )
