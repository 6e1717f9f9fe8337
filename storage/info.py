"""What a store says of itself: ``dmlpipe.json``, written once by `Store.init` and read first by all others.

Also where a store is found that nobody named, and where this machine keeps its caches.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from pathlib import Path

import msgspec

from .backend import Backend, open_backend
from .clock import utc_now
from .errors import CorruptError, ErrorCode, FormatError, InvalidInputError, NotFoundError
from .ledger.ledger import entry_key
from .objects.cutting import FEATURE as CUTTING_FEATURE
from .objects.cutting import ContentDefined, require_cutter
from .objects.node import TREE_TARGET
from .objects.pack import PACK_TARGET_BYTES
from .objects.value import WHOLE_MAX_BYTES
from .sealed import compare_json, encode_json

STORE_FOLDER = ".dmlpipe"
STORE_VARIABLE = "DMLPIPE_STORE"
CACHE_VARIABLE = "DMLPIPE_CACHE_DIR"
INFO_KEY = "dmlpipe.json"
FORMAT_NAME = "dmlpipe"
FORMAT_VERSION = 1
READ_FEATURES: frozenset[str] = frozenset({CUTTING_FEATURE})
"""Features of a store that this version can read."""
WRITE_FEATURES: frozenset[str] = frozenset()
"""Features of a store that this version can write."""

FIXED_PIECES = "fixed"
PIECES_CHOICES = (FIXED_PIECES, "content-defined")
"""What `Store.init` can be told of large files."""


class TreeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """How trees are cut."""

    target: int = TREE_TARGET
    split: str = "crc32-fmix64-v1"


class StoreInfo(msgspec.Struct, frozen=True, kw_only=True):
    """``dmlpipe.json``: what a store is. Written once."""

    format: str = FORMAT_NAME
    version: int
    repo_id: str
    hash: str = "blake3"
    read_features: tuple[str, ...] = ()
    write_features: tuple[str, ...] = ()
    tree: TreeInfo = TreeInfo()
    pack: dict[str, int] = msgspec.field(default_factory=lambda: {"target": PACK_TARGET_BYTES})
    pieces: dict[str, int] = msgspec.field(default_factory=lambda: {"size": WHOLE_MAX_BYTES})
    created: str = ""
    description: str = ""
    probe: dict[str, bool] = msgspec.field(default_factory=lambda: {"exclusive_create": True})
    check: str = ""
    """Hash of the file with zeros in the place of these digits; empty: not checked."""


class _Format(msgspec.Struct):
    """What is read first, whatever else the version holds."""

    format: str = ""
    version: int = 0


def find_store(start: Path) -> Path | None:
    """Return the folder ``.dmlpipe`` that holds a store in `start` or the nearest folder above it."""
    for folder in (start.absolute(), *start.absolute().parents):
        if (folder / STORE_FOLDER / INFO_KEY).is_file():
            return folder / STORE_FOLDER
    return None


def default_cache_dir() -> Path:
    """Return ``$DMLPIPE_CACHE_DIR``, else ``dmlpipe`` in the user's cache folder."""
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dmlpipe"


def new_info(description: str = "", pieces: str = FIXED_PIECES) -> StoreInfo:
    """Return what a new store says of itself.

    Parameters
    ----------
    description, pieces
        See `Store.init`.

    Raises
    ------
    InvalidInputError
        `pieces` is none of `PIECES_CHOICES`, or the library that cuts by content is not installed (code
        ``unsupported``).
    """
    if pieces not in PIECES_CHOICES:
        raise InvalidInputError(f"pieces {pieces!r}: expected one of {', '.join(PIECES_CHOICES)}")
    sizes = {"size": WHOLE_MAX_BYTES}
    by_content = pieces != FIXED_PIECES
    if by_content:
        require_cutter()
        sizes |= ContentDefined().parameters()
    return StoreInfo(
        version=FORMAT_VERSION,
        repo_id=str(uuid.uuid4()),
        read_features=(CUTTING_FEATURE,) if by_content else (),
        pieces=sizes,
        created=utc_now(),
        description=description,
    )


def encode_info(info: StoreInfo) -> bytes:
    """Return the bytes of ``dmlpipe.json``, sealed."""
    return encode_json(info, lambda raw: msgspec.json.format(raw) + b"\n")


def root_of(url: str | os.PathLike[str] | None) -> str:
    """Return the root that `url` means; None: ``$DMLPIPE_STORE``, else the nearest ``.dmlpipe`` here or above.

    Raises
    ------
    FormatError
        Nobody named a store, and there is none here (code ``no-store``).
    """
    place = os.fspath(url) if url is not None else os.environ.get(STORE_VARIABLE) or find_store(Path.cwd())
    if place is None:
        raise FormatError(
            f"no store: neither {Path.cwd()} nor a folder above it has a {STORE_FOLDER}",
            code=ErrorCode.NO_STORE,
            hint="make one: dmlpipe init; or name one: --store URL, $DMLPIPE_STORE",
        )
    return str(place)


def put_back_info(url: str | os.PathLike[str] | None, sources: Iterable[Backend]) -> str:
    """Put back ``dmlpipe.json`` from a clone, where it is damaged or missing; return where it came from, or nothing.

    Parameters
    ----------
    url
        As for `Store.open`.
    sources
        Where to look. A source is believed if its first ledger entry is that of the store.

    Raises
    ------
    FormatError
        There is no store (code ``no-store``), or one of another format.
    CorruptError
        It is damaged, and no source has it.
    """
    backend = open_backend(root_of(url))
    first = entry_key(0)
    try:
        read_info(backend)
    except (CorruptError, FormatError) as error:
        if backend.size(first) is None:
            raise
        for source in sources:
            if source.size(first) is not None and source.get(first) == backend.get(first):
                read_info(source)
                backend.put(INFO_KEY, source.get(INFO_KEY))
                backend.sync([INFO_KEY])
                return source.url
        error.hint = "put it back from a clone: dmlpipe fsck --repair --from URL"
        raise
    return ""


def read_info(backend: Backend) -> StoreInfo:
    """Read what a store says of itself.

    Raises
    ------
    FormatError
        There is no store (code ``no-store``), one of a later format, or one with a feature that is unknown here.
    CorruptError
        ``dmlpipe.json`` is damaged.
    """
    try:
        raw = backend.get(INFO_KEY)
    except NotFoundError as error:
        raise FormatError(
            f"no store at {backend.url}", code=ErrorCode.NO_STORE, hint=f"make one: dmlpipe init {backend.url}"
        ) from error
    try:
        first = msgspec.json.decode(raw, type=_Format)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptError(f"{INFO_KEY} of {backend.url} is damaged: {error}") from error
    if first.format != FORMAT_NAME:
        raise FormatError(f"{backend.url} holds {first.format!r}, not a dmlpipe store", code=ErrorCode.NO_STORE)
    if first.version != FORMAT_VERSION:
        raise FormatError(
            f"{backend.url} has format {first.version}; this dmlpipe reads format {FORMAT_VERSION}",
            hint="upgrade dmlpipe" if first.version > FORMAT_VERSION else None,
        )
    try:
        info = msgspec.json.decode(raw, type=StoreInfo)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptError(f"{INFO_KEY} of {backend.url} is damaged: {error}") from error
    try:
        compare_json(raw, info.check, StoreInfo, f"{INFO_KEY} of {backend.url}")
    except CorruptError as error:
        error.hint = "put it back from a clone: dmlpipe fsck --repair --from URL"
        raise
    unknown = sorted(set(info.read_features) - READ_FEATURES)
    if info.hash != "blake3":
        unknown.append(f"hash {info.hash}")
    if unknown:
        raise FormatError(f"{backend.url} needs {', '.join(unknown)}, which this dmlpipe lacks", hint="upgrade dmlpipe")
    return info
