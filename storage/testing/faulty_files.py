"""A server that misbehaves: the file system below `RemoteBackend`, in memory, with faults that a test names.

A fault is taken by the next request of its kind, once. What each does is what servers and networks do: a request that
never lands, one that lands and whose answer is lost, a server that is busy, that asks to be asked again, that answers
in part.
"""

from __future__ import annotations

import asyncio
import enum
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import fsspec.asyn

HTTP_NAMES: Mapping[int, str] = {409: "ConditionalRequestConflict", 412: "PreconditionFailed", 403: "AccessDenied"}


class Fault(enum.StrEnum):
    """What goes wrong."""

    NEVER_LANDS = "never-lands"
    """The connection breaks before the request is carried out."""
    LOST_ANSWER = "lost-answer"
    """It breaks after the request was carried out."""
    TIMEOUT = "timeout"
    """Nothing is heard of the request, which was carried out."""
    BUSY = "503"
    SLOW_DOWN = "429"
    FAILS = "500"
    CONFLICT = "409"
    """A conditional create meets another one that is under way."""
    FORBIDDEN = "403"
    BREAKS_OFF = "breaks-off"
    """The answer ends before its end, and the client notices."""
    SHORT = "short"
    """Fewer bytes come than were asked for, and nobody says so."""
    TRICKLES = "trickles"
    """The answer comes a byte at a time, with pauses; `FaultyFiles.arrived` is what came so far."""


class AnswerError(OSError):
    """An HTTP answer that is an error, as client libraries raise them."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the server answered {status}")
        code = HTTP_NAMES.get(status, str(status))
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


class IncompleteReadError(OSError):
    """An answer that broke off, named as asyncio names it."""


class FaultyFiles:
    """Objects in memory, reached as `RemoteBackend` reaches those of S3.

    Parameters
    ----------
    faults
        (request, what happens to it): `create`, `put`, `get`, `head`, `list` or `delete`. Taken in order.
    """

    def __init__(self, faults: Sequence[tuple[str, Fault]] = ()) -> None:
        self.loop = fsspec.asyn.get_loop()
        self.faults = list(faults)
        self.objects: dict[str, bytes] = {}
        self.requests: Counter[str] = Counter()
        self.arrived: dict[str, bytes] = {}
        """Path to what came of an answer that trickles."""

    async def _pipe_file(self, path: str, body: bytes, mode: str = "overwrite") -> None:
        kind = "create" if mode == "create" else "put"
        after = await self._meet(kind)
        if kind == "create" and path in self.objects:
            raise AnswerError(412)
        self.objects[path] = body
        self._then(after)

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: object) -> bytes:
        after = await self._meet("get")
        if path not in self.objects:
            raise FileNotFoundError(path)
        self._then(after)
        if after is Fault.BREAKS_OFF:
            raise IncompleteReadError("7 of 9 bytes read")
        body = self.objects[path][start:end]
        if after is Fault.SHORT:
            return body[: len(body) // 2]
        if after is Fault.TRICKLES:
            for stop in range(len(body) + 1):
                self.arrived[path] = body[:stop]
                await asyncio.sleep(0)
        return body

    async def _call_s3(self, method: str, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803  (botocore's names)
        assert method == "head_object"
        self._then(await self._meet("head"))
        path = f"{Bucket}/{Key}"
        if path not in self.objects:
            raise FileNotFoundError(path)
        return {"ContentLength": len(self.objects[path])}

    async def _find(self, path: str, **_: object) -> dict[str, dict[str, Any]]:
        self._then(await self._meet("list"))
        found = {key: body for key, body in self.objects.items() if key.startswith(path)}
        return {key: {"type": "file", "size": len(body)} for key, body in found.items()}

    async def _bulk_delete(self, paths: Sequence[str]) -> None:
        after = await self._meet("delete")
        for path in paths:
            self.objects.pop(path, None)
        self._then(after)

    def split_path(self, path: str) -> tuple[str, str, None]:
        """(bucket, key, version)."""
        bucket, _, key = path.partition("/")
        return bucket, key, None

    async def _meet(self, kind: str) -> Fault | None:
        """Count a request; raise what goes wrong before it is carried out, return what does afterwards."""
        await asyncio.sleep(0)
        self.requests[kind] += 1
        if not self.faults or self.faults[0][0] != kind:
            return None
        fault = self.faults.pop(0)[1]
        if fault is Fault.NEVER_LANDS:
            raise ConnectionResetError("connection reset by peer")
        if fault.value.isdigit():
            raise AnswerError(int(fault.value))
        return fault

    def _then(self, fault: Fault | None) -> None:
        if fault is Fault.LOST_ANSWER:
            raise ConnectionResetError("connection reset by peer")
        if fault is Fault.TIMEOUT:
            raise TimeoutError("no answer")
