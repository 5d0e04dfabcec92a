"""Whatever a client sends, however broken and wherever it ends: no warning, no error and no traceback in the log."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator

import pytest

from tests.support.broken import FRAMES, HANDSHAKES, REQUESTS, TOKEN
from tests.support.running import COMMANDS, RunningServer, until

pytestmark = pytest.mark.anyio

LINES_ABOVE_INFO = ("[WARNING]", "[ERROR]", "[CRITICAL]", "Traceback", "Exception")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server for all of these tests."""
    variables = {"OWNER_TOKEN": TOKEN, "MAX_STORED_MESSAGES": "1000"}
    with RunningServer(COMMANDS["app"], tmp_path_factory.mktemp("broken"), variables) as running:
        yield running


def send_and_end(peer: socket.socket, sent: bytes, how: str) -> None:
    """Sends, then ends the connection: by FIN, by a TCP reset, or by FIN for sending alone, reading on."""
    with peer, contextlib.suppress(OSError):  # the server may be faster
        peer.sendall(sent)
        if how == "half-closed":
            peer.shutdown(socket.SHUT_WR)
            while peer.recv(65536):
                pass
        elif how == "reset":
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def complaints(server: RunningServer, already: int, files: int) -> list[str]:
    """The lines above INFO since then, once every connection has ended. The server must still answer."""
    await until(lambda: server.open_files() <= files)
    assert server.get("/health").json()["status"] == "ok"
    lines = server.log()[already:].splitlines()
    return [line for line in lines if any(mark in line for mark in LINES_ABOVE_INFO)]


@pytest.mark.parametrize("how", ["closed", "reset", "half-closed"])
@pytest.mark.parametrize("kind", REQUESTS | HANDSHAKES)
async def test_broken_requests_log_nothing_above_info(server: RunningServer, kind: str, how: str) -> None:
    already, files = len(server.log()), server.open_files()
    for sent in (REQUESTS | HANDSHAKES)[kind]:
        send_and_end(socket.create_connection(("127.0.0.1", server.port), timeout=20), sent, how)
    assert await complaints(server, already, files) == []


@pytest.mark.parametrize("how", ["closed", "reset", "half-closed"])
@pytest.mark.parametrize("kind", FRAMES)
async def test_broken_frames_log_nothing_above_info(server: RunningServer, kind: str, how: str) -> None:
    already, files = len(server.log()), server.open_files()
    for sent in FRAMES[kind]:
        send_and_end(server.raw("ada"), sent, how)
    assert await complaints(server, already, files) == []
