"""What a slot and its child say to each other, as msgpack in frames.

Parent to child: one `Setup` per job, then `Work` with one or more units. Child to parent: `Ready` or `SetupFailed`,
then for each unit, in order: one `Ended`, and before it any number of `Produced` for outputs that are too much for it.
A unit is one call of the transform: one datum, or a batch of them. The first unit that has not ended is the one a
dying child is blamed for; so each end is sent when it happens, never together with the next.

Where datums have folders, small files travel as content and the child lays them out; `Ended` comes before what was laid
out is removed. If that may take long, a `Loading` before and one after say that it is not the next unit's time. A unit
that the child cannot lay out ends as `unlaid`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ...storage.objects.segment import Failure
from ..job import ArrayWrites, Transform

INLINE_MAX_BYTES = 1 << 20
"""Inputs asked for as `bytes` and outputs below this size travel in the frame; larger ones as a path or descriptor."""


class Box(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A region of an array whose chunks lie in a folder."""

    core: tuple[tuple[int, int], ...]
    read: tuple[tuple[int, int], ...]


class Given(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One input of one datum as the child finds it."""

    kind: str
    """`path` (file or folder), `file` (that the child lays out: its path in the input, and `data`), `paths` (of
    a group), `bytes`, `value`, `array` (a folder with `zarr.json` and the chunks needed) or `none`: it is lacking."""
    path: str = ""
    data: bytes = b""
    value: Any = None
    box: Box | None = None
    """None with `array`: all of it."""
    root: str = ""
    """Constants: the folder that shows at `/pfs/<name>`."""
    paths: tuple[str, ...] = ()
    """Of a group: its files and folders, sorted."""


class Payload(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One datum as the child sees it."""

    id: str
    """Fingerprint, hex."""
    given: dict[str, Given]
    """Varying inputs by name."""
    captures: dict[str, str] = {}
    out: str = ""
    """Folder for outputs; empty: the transform does not use one."""
    root: str = ""
    """Commands: the folder that becomes `/pfs`."""
    env: dict[str, str] = {}
    """Commands: variables of this datum."""
    attempt: int = 1
    resident: str = ""
    """What the resident inputs hold: while it stays equal, the instance stays."""
    stands: dict[str, str] = {}
    """Inputs whose files stand for content that is not there, by name: the folder that holds them."""
    unlaid: bool = False
    """Its folders are not made: the child lays it out."""


class Unit(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One call."""

    number: int
    """Rises by one per unit sent to a child."""
    payloads: tuple[Payload, ...]


class Setup(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="setup"):
    """A job: what is called, with what."""

    job: str
    transform: Transform
    parameters: dict[str, Any]
    batch: int
    constants: dict[str, Given]
    env: dict[str, str]
    """The whole environment."""
    code: str
    """Folder that holds the bundle, or the commands' code; empty: none."""
    scratch: str
    """Working directory."""
    secret_files: dict[str, str] = {}
    """Commands: absolute path to content."""
    prefix: tuple[str, ...] = ()
    """Commands: words before their own, as their environment needs them."""
    pickled: bytes = b""
    writes: ArrayWrites | None = None
    array: bytes = b""
    """`zarr.json` of the output array."""
    folders: str = ""
    """Where the child lays out datums; empty: it is told where each is laid out."""


class Work(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="work"):
    """Units to do, in order."""

    units: tuple[Unit, ...]


class Ready(msgspec.Struct, frozen=True, array_like=True, tag="ready"):
    """The transform is loaded."""

    notice: str = ""
    """Something that people should be told once."""
    at: float = 0.0


class SetupFailed(msgspec.Struct, frozen=True, array_like=True, tag="setup-failed"):
    """The transform cannot be loaded."""

    failure: Failure
    log: bytes = b""


class Loading(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="loading"):
    """What is being done (`begin`) or is done is not the unit's time.

    The instance of a resident class is made, or the outputs of the unit before are removed.
    """

    begin: bool
    at: float


class OutFile(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One output file."""

    path: str
    data: bytes = b""
    fd: int = -1
    """Index among the frame's descriptors, or -1: `data` is the content."""
    source: str = ""
    """Instead of content: the stand-in that it is a copy of, `input/path`."""


class Produced(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="produced"):
    """Outputs of one datum that do not travel with its `Result`; there may be several such frames."""

    unit: int
    index: int
    """Of the datum in its unit."""
    files: tuple[OutFile, ...]


class Result(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How one datum of a unit ended."""

    outcome: int
    """`Outcome`."""
    failure: Failure | None = None
    files: tuple[OutFile, ...] = ()
    """Outputs that no `Produced` carried, all of them inline."""
    changed: str = ""
    """A file that the child laid out and user code changed: its input and the path in it."""


class Ended(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="ended"):
    """A unit ended."""

    unit: int
    results: tuple[Result, ...]
    """One per datum; a single failure for a batch of several means that the call raised, and splits it."""
    seconds: float
    at: float
    """`time.monotonic()` of the child: one clock for the whole host."""
    log: bytes = b""
    modules: tuple[str, ...] = ()
    """Top-level modules imported since the last report."""
    alone: bool = False
    """Nothing that it started is left: no thread, no process; and its working directory is what it was."""
    unlaid: bool = False
    """The child could not lay it out: nothing was called."""


ToChild = Setup | Work
FromChild = Ready | SetupFailed | Loading | Produced | Ended

encoder = msgspec.msgpack.Encoder()
to_child: msgspec.msgpack.Decoder[ToChild] = msgspec.msgpack.Decoder(ToChild)
from_child: msgspec.msgpack.Decoder[FromChild] = msgspec.msgpack.Decoder(FromChild)
