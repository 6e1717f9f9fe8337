"""Inputs as user code finds them: files in private folders, hard-linked from the file cache where that can be.

Layout below a slot's folder: ``d/<n>/<input>/<path in the repo>`` for Python, ``d/<n>/pfs/<input>/...`` for commands,
``d/<n>/out`` or ``d/<n>/pfs/out`` for outputs. Constant inputs are laid out once per job and shared by its slots.

A hard link shares its inode with the cache, so size, times and inode of every file are compared after the datum: user
code that wrote to an input fails with `wrote to its input`, and the cache drops that entry.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from ...storage.digest import Digest, digest, from_hex
from ...storage.errors import DmlpipeError, ErrorCode, InvalidInputError, NotFoundError
from ...storage.objects.cache import FileCache
from ...storage.objects.object_store import Objects
from ...storage.objects.value import Inline, Value, decode_value
from ...storage.trees.codetree import read_code
from ...storage.trees.prolly import Tree
from ..child.arrays import METADATA_FILE, Grid, output_metadata, parse_grid
from ..child.environment import datum_environment, parameter_text
from ..child.namespace import PFS
from ..child.wire import INLINE_MAX_BYTES, Box, Given, Payload
from ..job import Datum, Item, JobInput, JobSpec, PythonTransform, Region
from .berths import Berth, Berths
from .standins import StandIns

COPIED_MAX_BYTES = 64 << 10
"""Files up to this size are written anew: cheaper than a cache entry and a link, and nobody else's."""
_READ_AHEAD_BYTES = 16 << 20
_region_decoder = msgspec.msgpack.Decoder(Region)


class ContentStore(Protocol):
    """What of a store this module needs."""

    @property
    def objects(self) -> Objects: ...  # noqa: D102
    @property
    def cache(self) -> FileCache: ...  # noqa: D102
    def tree(self, root: str | Digest) -> Tree: ...  # noqa: D102


NAME_MAX_BYTES = 255
"""What one part of a path may have, on all file systems that matter."""


class _Placed(NamedTuple):
    path: str
    seal: tuple[int, int, int, int]
    value: Value
    linked: bool


def _seal(status: os.stat_result) -> tuple[int, int, int, int]:
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode)


def _make_all(path: str) -> None:
    os.makedirs(path, exist_ok=True)


@contextlib.contextmanager
def _named(what: str) -> Iterator[None]:
    """Let a path that this machine's files cannot have be an error of the input `what`."""
    try:
        yield
    except OSError as err:
        if err.errno != errno.ENAMETOOLONG:
            raise
        path = str(err.filename or "")
        part = max(map(len, path.encode().split(b"/")))
        why = f"a part of {part} bytes" if part > NAME_MAX_BYTES else f"{len(path.encode())} bytes with its folder"
        raise InvalidInputError(
            f"{what} has a path that is too long for a file on this machine: {why}",
            code=ErrorCode.BAD_PATH,
            hint="take it as `bytes`, or let DMLPIPE_CACHE_DIR name a folder with a shorter path",
        ) from err


class Files:
    """Files that were laid out together: what they were, to see whether somebody wrote to them.

    Parameters
    ----------
    make_all
        Makes a folder and those above it, as far as they are missing.
    """

    def __init__(self, store: ContentStore, make_all: Callable[[str], None] = _make_all) -> None:
        self._store = store
        self._make_all = make_all
        self._placed: list[_Placed] = []

    def place(self, value: Value, target: str, content: bytes | None = None) -> None:
        """Let the content of `value` appear at `target`, whose folder exists."""
        if content is None and (isinstance(value, Inline) or value.size <= COPIED_MAX_BYTES):
            content = self._store.objects.read(value)
        if content is not None:
            fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
            try:
                view = memoryview(content)
                while view:
                    view = view[os.write(fd, view) :]
                self._placed.append(_Placed(target, _seal(os.fstat(fd)), value, False))
            finally:
                os.close(fd)
            return
        linked = self._store.cache.lay(value, self._store.objects, target)
        self._placed.append(_Placed(target, _seal(os.lstat(target)), value, linked))

    def changed(self) -> str | None:
        """Return a file that is no longer what it was, having dropped it from the cache; None if all are."""
        found = None
        for placed in self._placed:
            try:
                same = _seal(os.lstat(placed.path)) == placed.seal
            except FileNotFoundError:
                same = False
            if not same:
                found = found or placed.path
                if placed.linked:
                    self._store.cache.drop(placed.value)
        return found

    def mend(self) -> None:
        """Lay out again what was changed."""
        placed, self._placed = self._placed, []
        for old in placed:
            try:
                same = _seal(os.lstat(old.path)) == old.seal
            except FileNotFoundError:
                same = False
            if same:
                self._placed.append(old)
                continue
            with contextlib.suppress(FileNotFoundError):
                os.unlink(old.path)
            self._make_all(os.path.dirname(old.path))
            self.place(old.value, old.path)

    def place_all(self, entries: Iterable[tuple[str, Value]]) -> None:
        """Place many (target, value), reading small ones together."""
        made: set[str] = set()
        small: list[tuple[str, Value]] = []
        waiting = 0
        for target, value in entries:
            folder = os.path.dirname(target)
            if folder not in made:
                self._make_all(folder)
                made.add(folder)
            if value.size > COPIED_MAX_BYTES:
                self.place(value, target)
                continue
            small.append((target, value))
            waiting += value.size
            if waiting >= _READ_AHEAD_BYTES or len(small) >= 1024:
                self._place_small(small)
                small, waiting = [], 0
        self._place_small(small)

    def _place_small(self, entries: Sequence[tuple[str, Value]]) -> None:
        if entries:
            contents = self._store.objects.read_many([value for _, value in entries])
            for (target, value), content in zip(entries, contents, strict=True):
                self.place(value, target, content)


def files_below(tree: Tree, path: str) -> Iterator[tuple[str, Value]]:
    """Files of a commit at or below `path`, relative to the commit's root."""
    path = path.strip("/")
    if path:
        value = tree.get(path.encode())
        if value is not None:
            yield path, decode_value(value)
            return
        entries = tree.prefix(path.encode() + b"/")
    else:
        entries = tree.scan()
    for name, raw in entries:
        yield name.decode(), decode_value(raw)


def make_code(store: ContentStore, tree: str, folder: Path) -> Path:
    """Lay out a bundle as `folder/<tree>`, once per host, and return it. Safe for many processes."""
    target = folder / tree
    if target.is_dir():
        return target
    building = folder / f".building-{os.getpid()}-{threading.get_ident()}-{tree[:16]}"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    for name, data, mode in read_code(store.tree(from_hex(tree)), store.objects):
        path = building / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(mode)
    try:
        building.rename(target)
    except OSError:
        # Another process was faster; its folder holds the same.
        shutil.rmtree(building, ignore_errors=True)
        if not target.is_dir():
            raise
    return target


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
        self.resident = _resident_names(spec)
        for item in spec.inputs:
            if item.constant:
                self.constants[item.name] = self._lay_out(item)

    def _lay_out(self, item: JobInput) -> Given:
        root = self.folder / "constants" / item.name
        root.mkdir(parents=True)
        path = item.path.strip("/")
        if item.tree:
            files = files_below(self._store.tree(from_hex(item.tree)), path)
            with _named(f"a file of input {item.name!r}"):
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


class Prepared:
    """One datum laid out for one try.

    Parameters
    ----------
    files
        None: no file was laid out.
    done
        Takes its folder back; True: nobody is left who may use it.
    """

    __slots__ = ("_base", "_done", "_files", "_standins", "payload")

    def __init__(
        self,
        payload: Payload,
        files: Files | None,
        base: str,
        done: Callable[[bool], None] | None,
        standins: StandIns | None = None,
    ) -> None:
        self.payload = payload
        self._files = files
        self._base = base
        self._done = done
        self._standins = standins

    def changed(self) -> str | None:
        """Return the path in its input of a file that user code wrote to; None if there is none."""
        if self._files is None:
            return None
        path = self._files.changed()
        return None if path is None else os.path.relpath(path, self._base).removeprefix("pfs/")

    def problem(self) -> DmlpipeError | None:
        """Return why content could not be fetched while user code read it; None: it could, or nobody did."""
        return self._standins.problem if self._standins is not None else None

    def stood_for(self, source: str) -> Value:
        """Return what the stand-in `input/path` stands for.

        Raises
        ------
        InvalidInputError
            There is none.
        """
        name, _, path = source.partition("/")
        folder = self.payload.stands.get(name)
        value = self._standins.value(f"{folder}/{path}") if self._standins is not None and folder else None
        if value is None:
            raise InvalidInputError(f"there is no file {path!r} in input {name!r}", code=ErrorCode.NO_FILE)
        return value

    def remove(self, *, reuse: bool = False) -> None:
        """Delete everything that was laid out or put out. Idempotent.

        Parameters
        ----------
        reuse
            Nothing that the datum started is left: its folders may serve another.
        """
        if self._standins is not None:
            self._standins.close()
        done, self._done = self._done, None
        if done is not None:
            done(reuse)


class Materializer:
    """Lays out datums for one slot. One thread at a time.

    Parameters
    ----------
    folder
        Private to the slot; exists.
    """

    def __init__(self, store: ContentStore, folder: Path) -> None:
        self._store = store
        self._berths = Berths(str(folder))

    def prepare(self, job: JobInputs, datums: Sequence[tuple[Datum, int]]) -> list[Prepared]:
        """Lay out datums (each with its try's number); what is small is read together.

        Raises
        ------
        DmlpipeError
            The store does not give an input's content. Nothing is left laid out.
        """
        contents = self._read_small(job, [datum for datum, _ in datums])
        made: list[Prepared] = []
        try:
            for datum, attempt in datums:
                prepared = _without_folder(job, datum, attempt, contents)
                made.append(prepared or _Layout(self._store, self._berths, job, datum, attempt, contents).make())
        except DmlpipeError:
            for prepared in made:
                prepared.remove()
            raise
        return made

    def _read_small(self, job: JobInputs, datums: Sequence[Datum]) -> dict[bytes, bytes]:
        wanted: dict[bytes, Value] = {}
        for datum in datums:
            for declared, item in zip(job.varying, datum.items, strict=True):
                if item.kind == "f" and item.value not in wanted and not (declared.lazy or declared.empty):
                    value = decode_value(item.value)
                    if value.size <= COPIED_MAX_BYTES:
                        wanted[item.value] = value
        return dict(zip(wanted, self._store.objects.read_many(list(wanted.values())), strict=True))


def _without_folder(job: JobInputs, datum: Datum, attempt: int, contents: Mapping[bytes, bytes]) -> Prepared | None:
    """Prepare a datum that needs no folder: small files asked for as bytes, and values. None: it needs one."""
    transform = job.spec.transform
    if not isinstance(transform, PythonTransform) or transform.result == "out":
        return None
    given: dict[str, Given] = {}
    captures: dict[str, str] = {}
    for declared, form, item in zip(job.varying, job.forms, datum.items, strict=True):
        if item.kind == "v":
            given[declared.name] = Given("value", value=msgspec.json.decode(item.path))
        elif item.kind == "f" and not form:
            given[declared.name] = _UNUSED
        elif (
            item.kind == "f"
            and form == "bytes"
            and not declared.empty
            and (content := contents.get(item.value)) is not None
        ):
            given[declared.name] = Given("bytes", data=content)
        else:
            return None
        if item.captures:
            captures = captures | item.captures if captures else item.captures
    resident = _resident(job, datum) if job.resident else ""
    return Prepared(Payload(datum.fingerprint.hex(), given, captures, "", "", {}, attempt, resident), None, "", None)


_UNUSED = Given("path")
"""Nobody asks for it (only its captures are wanted): it need not be there."""


def _resident(job: JobInputs, datum: Datum) -> str:
    """What the resident inputs hold."""
    parts = [
        (declared.name, item.path, item.value)
        for declared, item in zip(job.varying, datum.items, strict=True)
        if declared.name in job.resident
    ]
    return digest(msgspec.msgpack.encode(parts)).hex() if parts else ""


class _Layout:
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
            with _named("a file of the datum"):
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
            resident=_resident(self._job, self._datum),
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
                return Given("path", path=self._file(declared, item, self._root().path)) if form else _UNUSED
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
