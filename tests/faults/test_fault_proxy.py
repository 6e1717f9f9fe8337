from __future__ import annotations

import asyncio
import gc
import socket
import struct

from tests.faults.arena import wait_for
from tests.faults.fault_proxy import FaultProxy


def test_a_request_whose_client_went_away_is_not_collected_in_the_middle() -> None:
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        port = upstream.getsockname()[1]
        with FaultProxy(f"http://127.0.0.1:{port}") as proxy:
            idle = len(asyncio.all_tasks(proxy._loop))
            client = socket.create_connection(("127.0.0.1", proxy.port))
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            served, _ = upstream.accept()
            assert served.recv(100).startswith(b"GET")
            # Reset, as by one that was killed with bytes unread: what it may still have sent is no longer waited for.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            wait_for(lambda: len(asyncio.all_tasks(proxy._loop)) == idle + 1)
            gc.collect()
            assert len(asyncio.all_tasks(proxy._loop)) == idle + 1
            served.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            served.close()
            wait_for(lambda: len(asyncio.all_tasks(proxy._loop)) == idle)
