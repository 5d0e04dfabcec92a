"""What a WebSocket keeps of what it was sent, in every state in which nobody parses it. In process, without a peer."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from app.exceptions import CloseCode
from app.server.socket_protocol import MAX_EVENTS, PARSE_CHUNK, SocketProtocol
from app.wire.limits import FLOOD_FRAMES, MAX_FRAME
from tests.support.broken import CLOSE, PING, TEXT, frame, handshake

pytestmark = pytest.mark.anyio

READ = 256 * 1024  # bytes that uvloop reads at once


class Transport(asyncio.Transport):
    """Keeps what was written, and whether it is read from."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self._reading = True
        self.closing = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True

    def is_reading(self) -> bool:
        return self._reading

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    abort = close


class App:
    """Accepts when told to, and takes events when told to."""

    def __init__(self) -> None:
        self.may_accept = asyncio.Event()
        self.may_take = asyncio.Event()
        self.taken: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await self.may_accept.wait()
        await send({"type": "websocket.accept"})
        while True:
            await self.may_take.wait()
            self.taken.append(await receive())
            if self.taken[-1]["type"] == "websocket.disconnect":
                return


class Connection:
    """A protocol whose peer has sent the request of a handshake."""

    def __init__(self) -> None:
        self.app, self.transport = App(), Transport()
        config = uvicorn.Config(
            self.app, ws_max_size=MAX_FRAME, ws_per_message_deflate=False, ws_ping_interval=None, lifespan="off"
        )
        config.load()
        self.protocol = SocketProtocol(config=config, server_state=ServerState(), app_state={})
        self.protocol.connection_made(self.transport)
        self.protocol.data_received(handshake())

    def receive(self, data: bytes) -> None:
        """What the transport does: hands data over while it is read from."""
        for at in range(0, len(data), READ):
            if self.transport.is_reading() and not self.transport.closing:
                self.protocol.data_received(data[at : at + READ])

    @property
    def kept(self) -> int:
        """Bytes that wait for something."""
        protocol = self.protocol
        return len(protocol.unparsed) + len(protocol.conn.reader.buffer) + sum(map(len, protocol.frames))

    async def open(self) -> None:
        """The app accepts."""
        self.app.may_accept.set()
        while not self.protocol.handshake_complete and not self.transport.closing:
            await asyncio.sleep(0)

    async def end(self) -> None:
        """The connection is lost, and the app ends."""
        self.app.may_accept.set()
        self.app.may_take.set()
        self.transport.closing = True
        self.protocol.connection_lost(None)
        await asyncio.gather(*self.protocol.tasks)


async def test_before_the_handshake_is_answered_one_read_is_kept_and_reading_stops() -> None:
    connection = Connection()
    connection.receive(PING * 1_000_000)
    assert connection.kept <= READ
    assert not connection.transport.is_reading()
    assert connection.transport.written == b""
    await connection.end()


async def test_what_came_before_the_handshake_is_answered_is_parsed_after_it() -> None:
    connection = Connection()
    connection.receive(TEXT)
    assert not connection.transport.is_reading()
    await connection.open()
    connection.app.may_take.set()
    while not connection.app.taken:
        await asyncio.sleep(0)
    assert connection.app.taken == [{"type": "websocket.receive", "text": '{"type": "ping"}'}]
    assert connection.transport.is_reading()
    await connection.end()


@pytest.mark.parametrize("sent", [CLOSE, CLOSE + b"\xff\xff", b"\xff\xff", frame(0), frame(1, b"\xff")])
async def test_faults_before_the_handshake_is_answered_are_no_error_of_ours(
    sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    connection = Connection()
    connection.receive(sent)
    await connection.open()
    await connection.end()
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


async def test_a_peer_that_leaves_before_the_answer_is_no_error_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    connection = Connection()
    connection.transport.closing = True
    await connection.open()
    await connection.end()
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


async def test_while_the_app_takes_nothing_one_read_is_kept_and_reading_stops() -> None:
    connection = Connection()
    await connection.open()
    connection.receive(TEXT * 1_000_000)
    assert MAX_EVENTS <= len(connection.protocol.queue) <= MAX_EVENTS + PARSE_CHUNK // len(TEXT)
    assert connection.kept <= READ
    assert not connection.transport.is_reading()
    await connection.end()


async def test_after_a_flood_nothing_is_kept_and_reading_stops() -> None:
    connection = Connection()
    await connection.open()
    connection.receive(PING * 1_000_000)
    assert connection.protocol.close_sent
    assert connection.kept <= PARSE_CHUNK
    assert not connection.transport.is_reading()
    await connection.end()


async def test_after_a_flood_what_the_transport_still_had_is_dropped() -> None:
    connection = Connection()
    await connection.open()
    connection.protocol.close(CloseCode.FLOOD, "")
    connection.protocol.data_received(PING * 100_000)
    assert connection.kept == 0
    await connection.end()


async def test_a_close_while_the_app_takes_nothing_reads_on_for_the_peers_answer() -> None:
    connection = Connection()
    await connection.open()
    connection.receive(TEXT * (MAX_EVENTS * 2))
    connection.protocol.close(CloseCode.RESTART, "")
    connection.receive(TEXT)
    assert connection.kept == 0
    connection.receive(CLOSE)
    assert connection.transport.closing
    await connection.end()


@pytest.mark.parametrize("sent", [PING, TEXT, frame(2), frame(10)])
async def test_after_our_close_frame_few_frames_are_parsed(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = Connection()
    await connection.open()
    connection.protocol.close(CloseCode.REFUSED, "")
    parsed = 0
    receive_data = connection.protocol.conn.receive_data

    def count(data: bytes) -> None:
        nonlocal parsed
        parsed += len(data)
        receive_data(data)

    monkeypatch.setattr(connection.protocol.conn, "receive_data", count)
    connection.receive(sent * 1_000_000)
    assert parsed <= FLOOD_FRAMES * len(sent) + PARSE_CHUNK
    assert not connection.transport.is_reading()
    assert connection.kept <= PARSE_CHUNK
    await connection.end()


async def test_what_follows_a_protocol_error_is_dropped() -> None:
    connection = Connection()
    await connection.open()
    connection.receive(b"\xff\xff" + PING * 100_000)
    assert connection.transport.closing
    assert connection.kept <= PARSE_CHUNK
    await connection.end()
