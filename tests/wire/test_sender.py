"""The queue sender: order, bound, and every way to its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import pytest

from app.exceptions import CloseCode
from app.wire.frames import PreparedFrames
from app.wire.sender import QueueSender

pytestmark = pytest.mark.anyio


class Server:
    """The ASGI server's end: takes what is sent while `flowing`, and notes it."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.fault: Exception | None = None
        self.closed = asyncio.Event()
        self.gave_up = asyncio.Event()

    async def send(self, message: MutableMapping[str, Any]) -> None:
        await self.flowing.wait()
        if self.fault:
            raise self.fault
        self.sent.append(message.get("text") or (message["code"], message["reason"]))
        if message["type"] == "websocket.close":
            self.closed.set()


@pytest.fixture
async def server() -> Server:
    return Server()


@pytest.fixture
async def queue(server: Server) -> AsyncIterator[QueueSender]:
    sender = QueueSender(server.send, 10, server.gave_up.set)
    yield sender
    await sender.release()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "sender"]


async def closed(server: Server) -> list[Any]:
    async with asyncio.timeout(5):
        await server.closed.wait()
    return server.sent


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_frames_go_out_in_order(server: Server, queue: QueueSender) -> None:
    queue.write(PreparedFrames([b"1", b"2"]))
    queue.write(PreparedFrames([b"3"]))
    await settle()
    queue.write(PreparedFrames([b"4"]))
    await settle()
    assert server.sent == ["1", "2", "3", "4"]


async def test_close_comes_after_what_waits_and_nothing_after_it(server: Server, queue: QueueSender) -> None:
    queue.write(PreparedFrames([b"1"]))
    queue.close(CloseCode.REFUSED)
    queue.write(PreparedFrames([b"2"]))
    queue.close(CloseCode.RESTART)
    assert await closed(server) == ["1", (1008, "refused")]
    queue.write(PreparedFrames([b"3"]))
    await settle()
    assert server.sent == ["1", (1008, "refused")]


async def test_client_that_reads_may_get_any_amount(server: Server, queue: QueueSender) -> None:
    for _ in range(5):
        queue.write(PreparedFrames([b"ten bytes!"]))
        await settle()
    assert server.sent == ["ten bytes!"] * 5


async def test_client_that_does_not_read_is_closed_and_its_queue_dropped(server: Server, queue: QueueSender) -> None:
    server.flowing.clear()
    queue.write(PreparedFrames([b"12345"]))
    await settle()  # in the server's hands, and still counted
    queue.write(PreparedFrames([b"67890"]))
    queue.write(PreparedFrames([b"x"]))
    server.flowing.set()
    assert await closed(server) == ["12345", (4001, "too slow")]


async def test_frame_larger_than_the_bound_closes(server: Server, queue: QueueSender) -> None:
    queue.write(PreparedFrames([b"eleven byte"]))
    assert await closed(server) == [(4001, "too slow")]


@pytest.mark.parametrize("code", list(CloseCode))
async def test_reason_fits_into_a_close_frame(server: Server, queue: QueueSender, code: CloseCode) -> None:
    queue.close(code)
    sent, reason = (await closed(server))[0]
    assert sent == code
    assert 0 < len(reason.encode()) <= 123


async def test_client_that_never_takes_the_close_frame_is_given_up(server: Server) -> None:
    server.flowing.clear()
    queue = QueueSender(server.send, 10, server.gave_up.set, close_timeout=0.001)
    queue.write(PreparedFrames([b"1"]))
    queue.close(CloseCode.SILENT)
    assert not server.gave_up.is_set()
    async with asyncio.timeout(5):
        await server.gave_up.wait()
    await queue.release()
    assert server.sent == []


async def test_released_sender_gives_nothing_up(server: Server) -> None:
    queue = QueueSender(server.send, 10, server.gave_up.set, close_timeout=0.001)
    queue.close(CloseCode.NORMAL)
    await queue.release()
    await asyncio.sleep(0.01)
    assert not server.gave_up.is_set()


async def test_server_that_raises_ends_the_sending_quietly(
    server: Server, queue: QueueSender, caplog: pytest.LogCaptureFixture
) -> None:
    server.fault = RuntimeError("gone")
    queue.write(PreparedFrames([b"1"]))
    queue.write(PreparedFrames([b"2"]))
    await settle()
    server.fault = None
    queue.write(PreparedFrames([b"3"]))
    queue.close(CloseCode.SILENT)
    await settle()
    assert server.sent == []
    assert not [entry for entry in caplog.records if entry.levelname == "ERROR"]


@pytest.mark.parametrize("flowing", [True, False])
async def test_release_may_come_twice_and_leaves_no_task(server: Server, flowing: bool) -> None:
    if not flowing:
        server.flowing.clear()
    before = asyncio.all_tasks()
    queue = QueueSender(server.send, 10, server.gave_up.set)
    queue.write(PreparedFrames([b"1"]))
    await settle()
    await queue.release()
    await queue.release()
    assert asyncio.all_tasks() == before
    queue.write(PreparedFrames([b"2"]))
    queue.close(CloseCode.NORMAL)
    await settle()
    assert server.sent == (["1"] if flowing else [])
