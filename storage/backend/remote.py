"""Objects on anything that fsspec reaches: S3, Google's and Azure's storage.

What fsspec does not give by itself, and is seen to here:

- `pipe_file(mode="create")` is exclusive only on some file systems (the inherited one checks, then writes): the others
  are refused for writing.
- The lost race has several faces: `FileExistsError`; `OSError(EINVAL)` from servers that answer 412 without naming the
  condition; 409 from AWS, which means "try again". The HTTP answer decides.
- The client library repeats a request whose answer was lost, and then loses against itself: on "exists" the object is
  read back and compared.
- Listings are never cached: a cached one hides what other processes wrote, even from `get`.
- A whole-object `cat_file` of s3fs asks for the size first, unless told to read in one stream.
- A busy server, a timeout, an answer that breaks off: asked again, a bounded number of times, with growing pauses.
- Neither the event loop nor its connections survive a fork: a child connects anew.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import os
import secrets
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar  # `list` is a method of the class below

import fsspec
from fsspec.asyn import AsyncFileSystem, sync
from fsspec.core import url_to_fs

from ..digest import Data
from ..errors import BackendError, DmlpipeError, ErrorCode, InvalidInputError, NotFoundError
from .base import MAX_OBJECT_BYTES, Backend, Properties, Request, backend_error, check_key, check_range

logger = logging.getLogger(__name__)

T = TypeVar("T")
U = TypeVar("U")

_EXCLUSIVE_PROTOCOLS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl"})
"""Where `_pipe_file(mode="create")` maps to a conditional request of the server."""

_S3 = frozenset({"s3", "s3a"})
_GOOGLE = frozenset({"gs", "gcs"})
_EXTRAS = {**dict.fromkeys(_GOOGLE, "gcs"), **dict.fromkeys(_EXCLUSIVE_PROTOCOLS - _S3 - _GOOGLE, "azure")}
_CONCURRENCY = 32
_CONFLICT_TRIES = 8
_TRIES = 5
_BACKOFF_S = 0.1
"""Before the second try; twice as long before each one after it, a random part of it."""
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses that may be gone the next time."""
_BULK_DELETE = 1000
_PAUSE_FIRST_S = 0.1
_PAUSE_MAX_S = 5.0

# Refused connections are told at once; a server that answers slowly gets its time.
_S3_CONFIG = {
    "connect_timeout": 5,
    "read_timeout": 60,
    "max_pool_connections": _CONCURRENCY,
    "retries": {"mode": "standard", "max_attempts": 2},
}


class RemoteBackend(Backend):
    """Objects below a URL, by way of an asynchronous fsspec file system.

    Parameters
    ----------
    url
        Such as ``s3://bucket/prefix``.
    storage_options
        For the file system. Without them it takes what its library finds in the environment
        (``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``, ...).

    Raises
    ------
    InvalidInputError
        The protocol is unknown, its library is not installed, or an option does not fit.
    """

    def __init__(self, url: str, storage_options: Mapping[str, Any] | None = None) -> None:
        self._url = url.rstrip("/")
        self._options = dict(storage_options or {})
        self._protocol = url.partition("://")[0]
        if not url.partition("://")[2].strip("/"):
            raise InvalidInputError(f"store URL {url!r} has no bucket or path")
        self._lock = threading.Lock()
        self._fs: Any = None  # fsspec publishes no types
        self._root = ""
        self._pid = -1
        self._patience_s = 0.0
        try:
            kind = fsspec.get_filesystem_class(self._protocol)
        except ValueError as err:
            raise InvalidInputError(f"store URL {url!r}: unknown protocol {self._protocol!r}") from err
        except ImportError as err:
            extra = _EXTRAS.get(self._protocol)
            raise InvalidInputError(
                f"store URL {url!r} needs a library that is not installed: {err}",
                hint=f"pip install 'dmlpipe[{extra}]'" if extra else None,
            ) from err
        if not issubclass(kind, AsyncFileSystem):
            raise InvalidInputError(
                f"store URL {url!r}: a store cannot be on {self._protocol}, which has no exclusive create",
                hint="use a local folder, s3://, gs:// or az://",
            )
        self._errors = _library_errors(self._protocol)
        _live.add(self)

    @property
    def url(self) -> str:
        """The URL it was made with, without a slash at its end."""
        return self._url

    @property
    def properties(self) -> Properties:
        """A request costs a round trip."""
        return Properties(remote=True, shared=True, hard_links=False)

    def be_patient(self, seconds: float) -> None:
        """See `Backend.be_patient`."""
        self._patience_s = seconds

    def __reduce__(self) -> tuple[Any, ...]:
        return (RemoteBackend, (self._url, self._options))

    def __repr__(self) -> str:
        return f"RemoteBackend({self._url!r})"

    def put_if_absent(self, key: str, data: Data, *, durable: bool = False) -> bool:
        """See `Backend.put_if_absent`; always durable."""
        return self.put_many_if_absent([(key, data)])[0]

    def put_many_if_absent(self, items: Sequence[tuple[str, Data]]) -> Sequence[bool]:
        """See `Backend.put_many_if_absent`."""
        self._demand_exclusive()
        for key, data in items:
            _check_put(key, data)
        return self._run(f"write {_some(key for key, _ in items)}", self._create, items)

    def put(self, key: str, data: Data) -> None:
        """See `Backend.put`."""
        _check_put(key, data)
        self._run(f"write object {key}", self._overwrite, [(key, data)])

    def get(self, key: str, start: int | None = None, end: int | None = None) -> bytes:
        """See `Backend.get`."""
        return self.get_many([(key, start, end)])[0]

    def get_many(self, requests: Sequence[Request]) -> Sequence[bytes]:
        """See `Backend.get_many`."""
        for key, start, end in requests:
            check_key(key)
            check_range(key, start, end)
        return self._run(f"read {_some(key for key, _, _ in requests)}", self._read, requests)

    def size(self, key: str) -> int | None:
        """See `Backend.size`."""
        check_key(key)
        return self._run(f"look at object {key}", self._stat, [key])[0]

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """See `Backend.list`."""
        yield from self._run(f"list {prefix or 'objects'}", self._find, [prefix])[0]

    def list_written(self, prefix: str = "") -> Iterator[tuple[str, int, float | None]]:
        """See `Backend.list_written`: what the listing says, where it does."""
        yield from self._run(f"list {prefix or 'objects'}", self._find_written, [prefix])[0]

    def list_folders(self, prefix: str = "") -> Sequence[str]:
        """See `Backend.list_folders`."""
        return self._run(f"list {prefix or 'objects'}", self._folders, [prefix])[0]

    def delete_many(self, keys: Iterable[str]) -> None:
        """See `Backend.delete_many`."""
        wanted = list(keys)
        for key in wanted:
            check_key(key)
        if self._protocol in _S3:
            batches = [wanted[start : start + _BULK_DELETE] for start in range(0, len(wanted), _BULK_DELETE)]
            self._run("delete objects", self._delete_batch, batches)
        else:
            self._run("delete objects", self._delete, wanted)

    # --- one request each; they run on fsspec's event loop ---

    async def _create(self, fs: Any, item: tuple[str, Data]) -> bool:
        path, body = self._path(item[0]), bytes(item[1])
        for attempt in range(_CONFLICT_TRIES):
            try:
                await fs._pipe_file(path, body, mode="create")
            except FileExistsError:
                break
            except self._errors as err:
                status = _status(err)
                if status == 412:
                    break
                if status != 409 or attempt == _CONFLICT_TRIES - 1:
                    raise
                # Another create of this key is under way: the server wants to be asked again.
                await asyncio.sleep(secrets.randbelow(1000) / 1000 * min(2.0, 0.05 * 2**attempt))
            else:
                return True
        if await self._stat(fs, item[0]) != len(body):
            return False
        try:
            return await self._read(fs, (item[0], None, None)) == body
        except NotFoundError:
            return False

    async def _overwrite(self, fs: Any, item: tuple[str, Data]) -> None:
        await fs._pipe_file(self._path(item[0]), bytes(item[1]))

    async def _read(self, fs: Any, request: Request) -> bytes:
        key, start, end = request
        if start is not None and start < 0 and self._protocol not in _S3:
            # Azure knows no ranges that count from the end, and of Google's emulators not all do.
            size = await self._stat(fs, key)
            if size is None:
                raise NotFoundError(f"no object {key} in {self._url}")
            start, end = max(0, size + start), size
        if end is not None and end <= (start or 0):
            # A range header cannot say "nothing".
            if await self._stat(fs, key) is None:
                raise NotFoundError(f"no object {key} in {self._url}")
            return b""
        one_stream = {"max_concurrency": 1} if self._protocol in _S3 else {}
        try:
            data: bytes = await fs._cat_file(self._path(key), start=start, end=end, **one_stream)
        except FileNotFoundError as err:
            raise NotFoundError(f"no object {key} in {self._url}") from err
        except self._errors as err:
            if _status(err) == 416:  # begins past the end
                return b""
            raise
        if end is not None and len(data) < end - (start or 0):
            await self._check_short(fs, key, (start or 0) + len(data))
        return data

    async def _check_short(self, fs: Any, key: str, end: int) -> None:
        """Refuse an answer that ends where the object does not."""
        size = await self._stat(fs, key)
        if size is not None and end < size:
            raise ConnectionResetError(f"an answer of object {key} ended at byte {end} of {size}")

    async def _stat(self, fs: Any, key: str) -> int | None:
        try:
            if self._protocol in _S3:
                # `_info` would list the key as a folder when it is no object.
                bucket, name, _ = fs.split_path(self._path(key))
                head = await fs._call_s3("head_object", Bucket=bucket, Key=name)
                return int(head["ContentLength"])
            info = await fs._info(self._path(key))
        except FileNotFoundError:
            return None
        return int(info["size"]) if info["type"] == "file" else None

    async def _find(self, fs: Any, prefix: str) -> Sequence[tuple[str, int]]:
        return [(key, size) for key, size, _ in await self._find_written(fs, prefix)]

    async def _find_written(self, fs: Any, prefix: str) -> Sequence[tuple[str, int, float | None]]:
        folder, _, start = prefix.rpartition("/")
        path = f"{self._root}/{folder}".rstrip("/")
        narrowed = {"prefix": start} if start and self._protocol in _S3 else {}
        try:
            found = await fs._find(path, detail=True, **narrowed)
        except FileNotFoundError:
            return []
        skip = len(self._root) + 1
        files = ((name[skip:], info) for name, info in found.items() if info["type"] == "file")
        return sorted((key, int(info["size"]), _written(info)) for key, info in files if key.startswith(prefix))

    async def _folders(self, fs: Any, prefix: str) -> Sequence[str]:
        try:
            found = await fs._ls(f"{self._root}/{prefix}".rstrip("/"), detail=True)
        except FileNotFoundError:
            return []
        return sorted(info["name"].rstrip("/").rpartition("/")[2] for info in found if info["type"] == "directory")

    async def _delete(self, fs: Any, key: str) -> None:
        try:
            await fs._rm_file(self._path(key))
        except FileNotFoundError:
            pass

    async def _delete_batch(self, fs: Any, keys: Sequence[str]) -> None:
        await fs._bulk_delete([self._path(key) for key in keys])

    # --- connection ---

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _demand_exclusive(self) -> None:
        if self._protocol not in _EXCLUSIVE_PROTOCOLS:
            raise BackendError(
                f"{self._url}: {self._protocol} has no exclusive create, two writers could both win",
                code=ErrorCode.UNSAFE_BACKEND,
                hint="use a local folder, s3://, gs:// or az://",
            )

    def _connect(self) -> Any:
        with self._lock:
            if self._fs is None or self._pid != os.getpid():
                if self._fs is not None:
                    # Closing what the parent opened would wait for a loop that does not run here.
                    _inherited.append(self._fs)
                options = dict(self._options)
                if self._protocol in _S3:
                    options["config_kwargs"] = {**_S3_CONFIG, **options.get("config_kwargs", {})}
                    options.setdefault("default_fill_cache", False)
                try:
                    # fsspec shares instances by their options: ours must be ours alone.
                    fs, root = url_to_fs(self._url, use_listings_cache=False, skip_instance_cache=True, **options)
                except (ValueError, TypeError) as err:
                    raise InvalidInputError(f"store URL {self._url!r}: {err}") from err
                if self._protocol in _S3:
                    # Its own rounds of retries, two of them nested around botocore's, make 150 requests of one that
                    # is refused, and a minute of waiting. botocore's and `be_patient` do.
                    fs.retries = 1
                self._fs, self._root, self._pid = fs, str(root).rstrip("/"), os.getpid()
            return self._fs

    def _run(self, what: str, call: Callable[[Any, T], Awaitable[U]], items: Sequence[T]) -> Sequence[U]:
        """Await `call` for each item, some at a time; raise the first error when all have ended.

        What fails in passing is tried again while patience lasts.
        """
        fs = self._connect()

        async def all_of(some: Sequence[T]) -> Sequence[U | BaseException]:
            free = asyncio.Semaphore(_CONCURRENCY)

            async def one(item: T) -> U:
                async with free:
                    for attempt in range(_TRIES):
                        try:
                            return await call(fs, item)
                        except self._errors as err:
                            if attempt == _TRIES - 1 or not _is_passing(err):
                                raise
                        # Every request may be sent twice: a create that landed is found by reading back.
                        await asyncio.sleep(_BACKOFF_S * 2**attempt * secrets.randbelow(1000) / 1000)
                    raise AssertionError("unreachable")

            return await asyncio.gather(*(one(item) for item in some), return_exceptions=True)

        until = time.monotonic() + self._patience_s
        pause_s = _PAUSE_FIRST_S
        done: dict[int, U] = {}
        waiting = list(range(len(items)))
        while True:
            results: Any = sync(fs.loop, all_of, [items[at] for at in waiting])
            again: list[int] = []
            for at, result in zip(waiting, results, strict=True):
                if not isinstance(result, BaseException):
                    done[at] = result
                    continue
                translated = self._translate(result, what)
                passing = isinstance(translated, BackendError) and translated.retryable
                if passing and time.monotonic() + pause_s < until:
                    if not again:
                        logger.warning("%s; trying again for up to %.0f s", translated, until - time.monotonic())
                    again.append(at)
                elif translated is result:
                    raise result
                else:
                    raise translated from result
            if not again:
                return [done[at] for at in range(len(items))]
            waiting = again
            time.sleep(pause_s * (0.5 + secrets.randbelow(1000) / 1000))
            pause_s = min(_PAUSE_MAX_S, 2 * pause_s)

    def _translate(self, err: BaseException, what: str) -> BaseException:
        if isinstance(err, DmlpipeError) or not isinstance(err, self._errors):
            return err
        name = type(err).__name__
        status = _status(err)
        if isinstance(err, PermissionError) or status in (401, 403) or "Credential" in name:
            return BackendError(
                f"cannot {what} in {self._url}: {err}",
                code=ErrorCode.PERMISSION,
                hint=f"check the credentials ({_CREDENTIALS[_EXTRAS.get(self._protocol, '')]}) and what they allow",
            )
        if isinstance(err, FileNotFoundError):
            return BackendError(f"cannot {what} in {self._url}: {err}", hint="does the bucket exist?")
        if isinstance(err, OSError) and not isinstance(err, (TimeoutError, ConnectionError)):
            translated = backend_error(err, what, self._url)
            translated.retryable |= status in _PASSING or status == 409
            return translated
        return BackendError(
            f"cannot {what} in {self._url}: {str(err) or name}", retryable=True, hint="is the server reachable?"
        )


_CREDENTIALS = {
    "": "AWS_ACCESS_KEY_ID, AWS_PROFILE, ...",
    "gcs": "GOOGLE_APPLICATION_CREDENTIALS, gcloud auth application-default login, ...",
    "azure": "AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_CONNECTION_STRING, ...",
}
"""Where the client libraries look for them, by extra."""

_inherited: list[Any] = []
_live: weakref.WeakSet[RemoteBackend] = weakref.WeakSet()


def _renew_locks() -> None:
    # A child must not inherit a lock that another thread of its parent held at the fork.
    for backend in _live:
        backend._lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_locks)


def _library_errors(protocol: str) -> tuple[type[BaseException], ...]:
    """What the libraries below raise; imported with them, since none is needed otherwise."""
    errors: list[type[BaseException]] = [OSError, TimeoutError, asyncio.TimeoutError]
    if protocol in _S3:
        from aiohttp import ClientError as HttpClientError
        from botocore.exceptions import BotoCoreError, ClientError

        errors += [BotoCoreError, ClientError, HttpClientError]
    elif protocol in ("gs", "gcs"):
        from aiohttp import ClientError as HttpClientError
        from gcsfs.retry import HttpError  # pyright: ignore[reportMissingImports]  # an extra

        errors += [HttpError, HttpClientError]
    elif protocol in _EXCLUSIVE_PROTOCOLS:
        from azure.core.exceptions import AzureError  # pyright: ignore[reportMissingImports]  # an extra

        errors += [AzureError]
    return tuple(errors)


def _is_passing(err: BaseException) -> bool:
    """Whether the same request may succeed in a moment: the server was busy, or an answer broke off."""
    status = _status(err)
    if status:
        return status in _PASSING
    if isinstance(err, (TimeoutError, asyncio.TimeoutError, ConnectionResetError, BrokenPipeError)):
        return True
    return type(err).__name__ in _BROKEN_OFF


_BROKEN_OFF = frozenset(
    {"ClientPayloadError", "ServerDisconnectedError", "IncompleteReadError", "ServiceResponseError"}
)
"""Errors of the client libraries that mean so: named, since not all of the libraries are installed."""


def _status(err: BaseException) -> int:
    """The HTTP status behind an error of the client library, or 0."""
    seen: BaseException | None = err
    while seen is not None:
        response = getattr(seen, "response", None)
        if isinstance(response, dict):
            if response.get("Error", {}).get("Code") == "ConditionalRequestConflict":
                return 409
            return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        for name in ("status_code", "code"):
            if isinstance(code := getattr(seen, name, None), int):
                return code
        seen = seen.__cause__
    return 0


def _check_put(key: str, data: Data) -> None:
    check_key(key)
    if len(data) > MAX_OBJECT_BYTES:
        raise InvalidInputError(f"object {key} is too large: {len(data)} bytes, at most {MAX_OBJECT_BYTES}")


def _some(keys: Iterable[str]) -> str:
    listed = list(keys)
    return f"object {listed[0]}" if len(listed) == 1 else f"{len(listed)} objects"


_WRITTEN_FIELDS = ("LastModified", "last_modified", "updated", "mtime", "created")


def _written(info: Mapping[str, Any]) -> float | None:
    """When an object was written, by what its protocol's listing calls it."""
    for name in _WRITTEN_FIELDS:
        value = info.get(name)
        if isinstance(value, datetime.datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, str):
            try:
                return datetime.datetime.fromisoformat(value).timestamp()
            except ValueError:
                continue
    return None
