"""Google's storage, as far as `gcp-storage-emulator` has it, with what it leaves out.

The emulator takes `ifGenerationMatch` for nothing, so that every create would win: `init` refuses it, and rightly. Here
the condition holds, as it does at Google. And of a body that breaks off it makes an object; here, as there, it makes
none.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import pytest

# Else gcsfs asks by gRPC, over TLS, what kind of bucket it is, for a minute. It looks when it is imported.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

_lock = threading.Lock()
_careless: list[str] = []
"""Not empty: the condition is ignored, as the emulator does by itself."""


@contextmanager
def serving(port: int, *, conditional: bool = True) -> Iterator[dict[str, Any]]:
    """Serve a bucket `bucket` on a port of this machine; yields what `open_backend` takes as options."""
    server = pytest.importorskip("gcp_storage_emulator.server")
    objects = pytest.importorskip("gcp_storage_emulator.handlers.objects")
    insert = objects.insert

    def insert_if(request: Any, response: Any, storage: Any, *args: Any, **kwargs: Any) -> None:
        body = request.data  # unread, it would keep the client from hearing the answer
        with _lock:
            if not _careless and request.query.get("ifGenerationMatch") == ["0"] and _exists(storage, request, body):
                response.status = HTTPStatus.PRECONDITION_FAILED
                text = "At least one of the pre-conditions you specified did not hold."
                response.json({"error": {"code": 412, "message": text, "errors": [{"reason": "conditionNotMet"}]}})
                return
            insert(request, response, storage, *args, **kwargs)

    read = server._read_raw_data

    def read_whole(handler: Any) -> bytes | None:
        body: bytes | None = read(handler)
        said = int(handler.headers.get("Content-Length") or 0)
        if len(body or b"") < said:
            raise ConnectionAbortedError(f"the client went away after {len(body or b'')} of {said} bytes")
        return body

    patch = pytest.MonkeyPatch()
    patch.setattr(server, "_read_raw_data", read_whole)
    patch.setattr(_module, "_careless", [] if conditional else ["yes"])
    for route in server.HANDLERS:
        for method, handler in list(route[1].items()):
            if handler is insert:
                patch.setitem(route[1], method, insert_if)
    running = server.create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket")
    running.start()
    try:
        yield {"endpoint_url": f"http://127.0.0.1:{port}", "token": "anon", "project": "test"}
    finally:
        running.stop()
        patch.undo()


_module = sys.modules[__name__]


def _exists(storage: Any, request: Any, body: Any) -> bool:
    from gcp_storage_emulator.exceptions import NotFound  # pyright: ignore[reportMissingImports]

    name = request.query["name"][0] if "name" in request.query else (body.get("meta") or body)["name"]
    try:
        storage.get_file_obj(request.params["bucket_name"], name)
    except NotFound:
        return False
    return True
