"""A slow answer or body arrives whole; one that stands still ends. See `tests.support.short_timeouts`."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time

import httpx2
import pytest

from tests.conftest import Start
from tests.support.running import RunningServer, until

pytestmark = pytest.mark.anyio

TOKEN = "the-owner-reads-and-writes-slowly"
HEADERS = f"Host: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
STALL_TIMEOUT = 2.0
PAUSE = 0.02  # seconds between two pieces of a slow transfer


async def start_full(start: Start) -> RunningServer:
    """A server whose messages are 5.6 MB as JSON, more than the kernel takes at once."""
    server = start("short timeouts", ENGINE_URL="memory://", OWNER_TOKEN=TOKEN, MAX_MESSAGE_LENGTH="10000")
    files = server.open_files()
    with httpx2.Client(headers={"Authorization": f"Bearer {TOKEN}"}) as owner:
        for _ in range(70):
            owner.post(f"http://127.0.0.1:{server.port}/api/messages", json={"content": "🦀" * 10_000})
    await until(lambda: server.open_files() == files)
    return server


def ask(server: RunningServer, request: str) -> socket.socket:
    """A connection that has sent a request and reads only when told to."""
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    peer.settimeout(20)
    peer.connect(("127.0.0.1", server.port))
    peer.sendall(request.encode())
    return peer


async def read_slowly(peer: socket.socket, size: int) -> int:
    """The bytes that come until the end, or until so many came."""
    got = 0
    with contextlib.suppress(OSError):
        while got < size and (part := await asyncio.to_thread(peer.recv, 16_384)):
            got += len(part)
            await asyncio.sleep(PAUSE)
    return got


@pytest.mark.parametrize("half_closed", [False, True])
async def test_an_answer_that_is_read_slowly_arrives_whole(start: Start, half_closed: bool) -> None:
    server = await start_full(start)
    began = time.monotonic()
    with ask(server, f"GET /api/messages HTTP/1.1\r\n{HEADERS}\r\n") as peer:
        first = await asyncio.to_thread(peer.recv, 4096)
        head = first.split(b"\r\n\r\n")[0].decode()
        if half_closed:
            peer.shutdown(socket.SHUT_WR)
        size = len(head) + 4 + int(head.lower().partition("content-length: ")[2].split()[0])
        assert await read_slowly(peer, size - len(first)) == size - len(first)
        assert time.monotonic() - began > 2 * STALL_TIMEOUT
        if not half_closed:
            peer.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await asyncio.to_thread(peer.recv, 4096)).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
async def test_an_answer_that_nobody_reads_ends(start: Start, connection: str) -> None:
    server = await start_full(start)
    files, began = server.open_files(), time.monotonic()
    with ask(server, f"GET /api/messages HTTP/1.1\r\n{HEADERS}Connection: {connection}\r\n\r\n"):
        await until(lambda: server.open_files() == files + 1)
        await until(lambda: server.open_files() == files)
    assert time.monotonic() - began > STALL_TIMEOUT


async def test_a_body_that_does_not_come_ends(start: Start) -> None:
    server = start("short timeouts", OWNER_TOKEN=TOKEN)
    began = time.monotonic()
    with ask(server, f"POST /api/messages HTTP/1.1\r\n{HEADERS}Content-Length: 17\r\n\r\n") as peer:
        assert await asyncio.to_thread(peer.recv, 4096) == b""
    assert time.monotonic() - began > STALL_TIMEOUT
    assert "Traceback" not in server.log()


async def test_a_body_that_trickles_ends(start: Start) -> None:
    server = start("short timeouts", OWNER_TOKEN=TOKEN)
    files = server.open_files()
    with ask(server, f"POST /api/messages HTTP/1.1\r\n{HEADERS}Content-Length: 60000\r\n\r\n") as peer:
        await until(lambda: server.open_files() == files + 1)
        for _ in range(500):  # at 50 bytes a second
            with contextlib.suppress(OSError):
                peer.sendall(b" ")
            await asyncio.sleep(PAUSE)
            if server.open_files() == files:
                return
    pytest.fail("the connection outlived five stall timeouts")


async def test_a_body_that_comes_slowly_is_taken(start: Start) -> None:
    server = start("short timeouts", OWNER_TOKEN=TOKEN)
    body = b'{"content": "slow"}' + b" " * 12_000
    began = time.monotonic()
    with ask(server, f"POST /api/messages HTTP/1.1\r\n{HEADERS}Content-Length: {len(body)}\r\n\r\n") as peer:
        for at in range(0, len(body), 50):  # 2.5 KB a second
            peer.sendall(body[at : at + 50])
            await asyncio.sleep(PAUSE)
        assert (await asyncio.to_thread(peer.recv, 4096)).startswith(b"HTTP/1.1 201 ")
    assert time.monotonic() - began > 2 * STALL_TIMEOUT
