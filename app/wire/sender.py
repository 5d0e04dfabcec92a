"""The ways of writing to a socket, behind one small interface.

Knows nothing of rooms or users. Nobody waits for a client: what it has not read is bounded, past that it is closed.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from app import tasks
from app.exceptions import CloseCode
from app.wire.prepared import PreparedFrames

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

CLOSE_TIMEOUT = 5.0  # seconds that a client may take to read what is before its close frame

DIRECT = "chat.direct"

logger = logging.getLogger(__name__)


class Sender(Protocol):
    """Where frames for one client go. `write` and `close` never wait, never raise, and do nothing after `close`.

    `code`: what `close` was called with, where the server does not say it again at the end.
    """

    code: CloseCode | None

    @property
    def closed(self) -> bool:
        """Whether nothing goes out any more."""

    def write(self, prepared: PreparedFrames) -> None:
        """Sends frames after all earlier ones. Closes a client that has not read enough of them (4001)."""

    def close(self, code: CloseCode) -> None:
        """Sends what waits, then the close frame. A client that does not read that far is cut off."""

    async def release(self) -> None:
        """Frees what the sender holds, when the connection has ended. Safe to call again."""


class Pipe(Protocol):
    """What our own server offers in `scope["extensions"][DIRECT]`."""

    transport: asyncio.Transport
    close_sent: bool

    def close(self, code: int, reason: str) -> None:
        """Writes a close frame, and sees to it that the connection ends, whatever the client does."""


class DirectSender:
    """Writes ready-made bytes to the socket: the fast way, on our own server. Needs no task and no queue."""

    __slots__ = ("_file", "_limit", "_pipe", "_transport", "code")

    def __init__(self, pipe: Pipe, limit: int) -> None:
        self._pipe = pipe
        self._limit = limit  # bytes
        self._transport = pipe.transport
        self._file = pipe.transport.get_extra_info("socket").fileno()
        self.code: CloseCode | None = None

    @property
    def closed(self) -> bool:
        return self._pipe.close_sent or self._transport.is_closing()

    def write(self, prepared: PreparedFrames) -> None:
        transport, wire = self._transport, prepared.wire
        if self._pipe.close_sent or transport.is_closing():
            return  # and the file may be another connection's in a moment
        waiting = transport.get_write_buffer_size()
        if not waiting:
            # The system call itself: on its way through the event loop it would cost half as much again.
            try:
                sent = os.write(self._file, wire)
            except OSError:  # the kernel's buffer is full, or the peer is gone, which the transport finds out
                sent = 0
            if sent == len(wire):
                return
            wire = wire[sent:]
        if waiting + len(wire) > self._limit:
            self.close(CloseCode.TOO_SLOW)
        else:
            transport.write(wire)

    def close(self, code: CloseCode) -> None:
        self._pipe.close(int(code), code.reason)

    async def release(self) -> None:
        """Nothing is held."""


class QueueSender:
    """Writes through ASGI, on any server: a bounded queue and one task.

    `give_up` is called when even the close frame can't be sent within CLOSE_TIMEOUT.
    """

    def __init__(
        self,
        send: Send,
        limit: int,
        give_up: Callable[[], object],
    ) -> None:
        self._send = send
        self._limit = limit  # bytes
        self._give_up = give_up
        self._queue: deque[PreparedFrames] = deque()
        self._waiting = 0  # bytes, in the queue and in the server's hands
        self.code: CloseCode | None = None
        self._gone = False  # the client takes nothing more
        self._timer: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()
        self._task = tasks.spawn(self._run(), "sender")

    @property
    def closed(self) -> bool:
        return self._gone or self.code is not None

    def write(self, prepared: PreparedFrames) -> None:
        if self.closed:
            return
        if self._waiting + prepared.size > self._limit:
            self.close(CloseCode.TOO_SLOW)
            return
        self._waiting += prepared.size
        self._queue.append(prepared)
        self._wake.set()

    def close(self, code: CloseCode) -> None:
        if self.closed:
            return
        self.code = code
        if code is CloseCode.TOO_SLOW:
            self._queue.clear()
        self._timer = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self._give_up)
        self._wake.set()

    async def release(self) -> None:
        if self._timer:
            self._timer.cancel()
        self.code = self.code or CloseCode.NORMAL
        self._queue.clear()
        await tasks.end(self._task)

    async def _run(self) -> None:
        try:
            while self._queue or self.code is None:
                await self._send_next()
            code = self.code
            await self._send({"type": "websocket.close", "code": int(code), "reason": code.reason})
        except Exception as error:
            # Each server has its own exception for a client that is gone. The endpoint learns it from receive().
            logger.debug("Could not send: %s", type(error).__name__)
            self._gone = True
            self._queue.clear()

    async def _send_next(self) -> None:
        if not self._queue:
            self._wake.clear()
            await self._wake.wait()
            return
        prepared = self._queue.popleft()
        for text in prepared.texts:
            await self._send({"type": "websocket.send", "text": text})
        self._waiting -= prepared.size


def open_sender(scope: Scope, send: Send, limit: int, give_up: Callable[[], object]) -> Sender:
    """The fastest way that the server offers. For `limit` (bytes) and `give_up` see QueueSender."""
    pipe: Pipe | None = scope.get("extensions", {}).get(DIRECT)
    return DirectSender(pipe, limit) if pipe else QueueSender(send, limit, give_up)
