"""What a worker is told: the transform, a job, its blocks of datums, a lease.

All of it is plain data, encoded with msgpack; a job and its blocks are nodes of the store, so that leases carry
three numbers and two names.
"""

from __future__ import annotations

from typing import Any

import msgspec

BLOCK_MAX_DATUMS = 4096
BLOCK_MAX_BYTES = 4 << 20
"""A block is closed once its items hold so much: a group lists its files."""


class Parameter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One parameter of a Python transform: what comes in and how."""

    name: str
    source: str
    """`input`, `capture`, `value`, `parameter` or `out`."""
    form: str
    """`path`, `bytes`, `paths` (list[Path]), `array`, `xarray`, `str`, `scalar`."""
    resident: bool = False
    """Belongs to `__init__` of a class."""
    input: str = ""
    """The input that a capture or value belongs to."""
    scalar: str = ""
    """`int`, `float`, `bool`, `str`: what `scalar` is converted to."""
    optional: bool = False
    """A datum may lack it: then None comes in."""


class ArrayWrites(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The output array of a pipeline with `writes=`."""

    like: str
    """Name of the array input whose shape and chunks it takes."""
    dtype: str
    path: str = ""
    """Where the output array stands in the output commit; empty: at its root."""
    fill_value: Any = 0


class Environment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A declared environment that a worker can provide."""

    kind: str
    """`venv`: a virtual environment made from `file`; `folder`: one that is there; `conda`: a conda environment made
    from `file`; `modules`: environment modules."""
    name: str
    """As it was declared: `requirements.txt`, `/opt/envs/seq`, `module load samtools/1.19`."""
    tree: str = ""
    """Holds `file`, hex."""
    file: str = ""


class PythonTransform(msgspec.Struct, frozen=True, kw_only=True, tag="python", omit_defaults=True):
    """A Python function or class."""

    module: str
    """Module name, importable with the bundle's folder on `sys.path`."""
    qualname: str
    kind: str
    """`function` or `class`."""
    result: str
    """`files` (returns a mapping), `out` (writes to the `out` folder) or `array`."""
    signature: tuple[Parameter, ...]
    bundle: str
    """Tree of the source files, hex."""
    path: tuple[str, ...] = ("",)
    """Folders inside the bundle that go on `sys.path`, in order."""
    pickled: str = ""
    """Blob with a cloudpickle of code that has no file, hex; then `module` is informative."""
    pickled_python: str = ""
    """`3.11`: the only Python minor version that may load it."""
    environment: Environment | None = None
    """What it runs with: `venv`, `conda` or `folder`; None: the worker's own interpreter."""


class CommandTransform(msgspec.Struct, frozen=True, kw_only=True, tag="command", omit_defaults=True):
    """A command in any language."""

    argv: tuple[str, ...]
    """Ready to execute; a shell line is `("bash", "-euo", "pipefail", "-c", line)`."""
    stdin: tuple[str, ...] = ()
    """Lines."""
    env: dict[str, str] = {}
    working_dir: str = ""
    accept_return_code: tuple[int, ...] = ()
    err_argv: tuple[str, ...] = ()
    err_stdin: tuple[str, ...] = ()
    code: str = ""
    """Tree that appears at `/code`, hex."""
    image: str = ""
    """What a container runs; without `container` it is a note."""
    shell: bool = False
    """`argv`'s last word is a shell line, in which `$name` and `$out` are variables."""
    user: str = ""
    """Who runs it: a name, a number, or `user:group`; empty: who runs the worker."""
    batching: bool = False
    """One process for many datums, which asks for the next."""
    batch: int = 0
    """With `batching`: datums after which a new process is started; 0: never."""
    container: str = ""
    """The program that runs `image`: `docker`, `podman`, `apptainer`; `auto`: the first that is there."""
    environment: Environment | None = None


Transform = PythonTransform | CommandTransform


class JobInput(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One input of a job."""

    name: str
    kind: str
    """`files`, `values` or `array`."""
    constant: bool
    repo: str = ""
    """Empty, as are the commit and the tree, where members of a union share the name."""
    commit: str = ""
    tree: str = ""
    """Root of the commit's tree, hex."""
    path: str = ""
    """Constant `files`: folder below the root, without slashes at the ends (empty: all). `array`: its path."""
    glob: str = "/"
    halo: tuple[int, ...] = ()
    lazy: bool = False
    """Files are named pipes, fetched when they are opened."""
    empty: bool = False
    """Files are empty, and stand for their content where the output links to them."""


class JobSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job as its workers see it. Stored as a node; leases name it."""

    v: int = 1
    job: str
    run: str
    pipeline: str
    version: int
    context: str
    transform: Transform
    parameters: dict[str, Any] = {}
    inputs: tuple[JobInput, ...] = ()
    """Varying inputs in the order of the datum key, then the constant ones."""
    writes: ArrayWrites | None = None
    batch: int = 0
    """0: not batched."""
    tries: int = 1
    timeout_s: float = 0.0
    """0: none."""
    cpus: float = 1.0
    gpus: int = 0
    memory_bytes: int = 0
    """What one slot may hold; 0: no limit."""
    secrets: tuple[str, ...] = ()


class Item(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One varying input of one datum."""

    path: str
    """A file's or folder's path, a value's canonical JSON, a chunk's key. So it stands in the datum key too, where a
    folder's path ends in ``/``. Of a group: its key."""
    kind: str
    """`f` file, `d` folder, `v` value, `a` array region, `l` files and folders of a group, `n` nothing: the input is
    absent."""
    value: bytes = b""
    """`f`: encoded tree value; `d`: root digest of the commit's tree; `v`, `n`: empty; `a`: encoded `Region`; `l`: a
    msgpack list of ``[path, kind, value]``."""
    captures: dict[str, str] = {}
    """By name; also variables that commands are told of this input (`PACH_DATUM_x_JOIN_ON`)."""

    def members(self) -> list[Item]:
        """Items of a group."""
        return _members_decoder.decode(self.value)


_members_decoder: msgspec.msgpack.Decoder[list[Item]] = msgspec.msgpack.Decoder(list[Item])


class Region(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A box of an array."""

    array: str
    """The array's path in the commit."""
    tree: bytes
    """Root digest of the commit's tree."""
    core: tuple[tuple[int, int], ...]
    """[start, stop) per dimension: one chunk, clipped to the array's shape."""
    read: tuple[tuple[int, int], ...]
    """The core with its halo, clipped."""


class Datum(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The unit that is cached, retried and traced."""

    key: bytes
    fingerprint: bytes
    items: tuple[Item, ...]
    """One per varying input, in the job's order."""


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """Datums in a slot's hands."""

    id: int
    job: str
    spec: str
    """Node of the `JobSpec`, hex."""
    block: str
    """Node of the block, hex."""
    start: int
    stop: int
    fold: int


_block_encoder = msgspec.msgpack.Encoder()
_block_decoder = msgspec.msgpack.Decoder(list[Datum])
_spec_decoder = msgspec.msgpack.Decoder(JobSpec)


def encode_block(datums: list[Datum]) -> bytes:
    """Canonical bytes of a block (at most `BLOCK_MAX_DATUMS`)."""
    return _block_encoder.encode(datums)


def decode_block(data: bytes) -> list[Datum]:
    """Inverse of `encode_block`."""
    return _block_decoder.decode(data)


def encode_spec(spec: JobSpec) -> bytes:
    """Canonical bytes of a job's spec."""
    return msgspec.msgpack.encode(spec, order="deterministic")


def decode_spec(data: bytes) -> JobSpec:
    """Inverse of `encode_spec`."""
    return _spec_decoder.decode(data)
