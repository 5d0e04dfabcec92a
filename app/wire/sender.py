"""The two ways to a socket, behind one small interface.

Nothing waits for a client: the amount that it has not read is bounded, and past the bound it is closed.
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
from app.wire.frames import PreparedFrames

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

CLOSE_TIMEOUT = 5.0  # seconds that a client may take to read up to its close frame, before it is cut off
DIRECT = "chat.direct"  # the ASGI extension of our own server

logger = logging.getLogger(__name__)


class Sender(Protocol):
    """Sends frames to one client. `write` and `close` never wait, never raise, and do nothing after `close`.

    `code` is what `close` was called with, or None where the server reports it when the connection ends.
    """

    code: CloseCode | None

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""

    def write(self, prepared: PreparedFrames) -> None:
        """Sends frames after all earlier ones. Closes a client that has too much left to read (4001)."""

    def close(self, code: CloseCode) -> None:
        """Sends a close frame after all earlier frames. A client that does not read that far is cut off."""

    async def release(self) -> None:
        """Frees all resources after the connection has ended. Safe to call again."""


class DirectSocket(Protocol):
    """The object that our own server offers in `scope["extensions"][DIRECT]`."""

    transport: asyncio.Transport
    close_sent: bool

    def close(self, code: int, reason: str) -> None:
        """Writes a close frame, and makes sure that the connection ends whatever the client does."""


class DirectSender:
    """Writes WebSocket frames to the socket itself. Fast, but for our own server alone. Needs no task and no queue."""

    __slots__ = ("_file", "_limit", "_socket", "_transport")
    code: CloseCode | None = None

    def __init__(self, socket: DirectSocket, limit: int) -> None:
        self._socket = socket
        self._limit = limit  # bytes
        self._transport = socket.transport
        self._file = socket.transport.get_extra_info("socket").fileno()

    @property
    def closed(self) -> bool:
        return self._socket.close_sent or self._transport.is_closing()

    def write(self, prepared: PreparedFrames) -> None:
        transport, wire = self._transport, prepared.wire
        if self._socket.close_sent or transport.is_closing():
            return  # the file descriptor may soon belong to another connection
        waiting = transport.get_write_buffer_size()
        if not waiting:
            # Calls the system itself: through the event loop it would cost half as much again.
            try:
                sent = os.write(self._file, wire)
            except OSError:  # the kernel's buffer is full, or the peer is gone, as the transport will find
                sent = 0
            if sent == len(wire):
                return
            wire = wire[sent:]
        if waiting + len(wire) > self._limit:
            self.close(CloseCode.TOO_SLOW)
        else:
            transport.write(wire)

    def close(self, code: CloseCode) -> None:
        self._socket.close(int(code), code.reason)

    async def release(self) -> None:
        """Does nothing: the server owns the socket."""


class QueueSender:
    """Writes through ASGI, on any server, by a bounded queue and one task.

    `limit`: bytes. `give_up` is called when even the close frame can't be sent within `close_timeout`.
    """

    def __init__(
        self, send: Send, limit: int, give_up: Callable[[], object], close_timeout: float = CLOSE_TIMEOUT
    ) -> None:
        self._send = send
        self._limit = limit
        self._give_up = give_up
        self._close_timeout = close_timeout
        self._queue: deque[PreparedFrames] = deque()
        self._waiting = 0  # bytes, in the queue and on their way through the server
        self.code: CloseCode | None = None
        self._broken = False  # sending failed
        self._timer: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()
        self._task = tasks.spawn(self._run(), "sender")

    @property
    def closed(self) -> bool:
        return self._broken or self.code is not None

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
        self._timer = asyncio.get_running_loop().call_later(self._close_timeout, self._give_up)
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
                if not self._queue:
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                prepared = self._queue.popleft()
                for text in prepared.texts:
                    await self._send({"type": "websocket.send", "text": text})
                self._waiting -= prepared.size
            await self._send({"type": "websocket.close", "code": int(self.code), "reason": self.code.reason})
        except Exception as error:
            # Each server has its own exception for a client that is gone. The endpoint learns of it by receive().
            logger.debug("Could not send: %s", type(error).__name__)
            self._broken = True
            self._queue.clear()


def open_sender(
    scope: Scope, send: Send, limit: int, give_up: Callable[[], object], close_timeout: float = CLOSE_TIMEOUT
) -> Sender:
    """Opens the fastest way that the server offers. The arguments after `scope` are those of QueueSender."""
    socket: DirectSocket | None = scope.get("extensions", {}).get(DIRECT)
    return DirectSender(socket, limit) if socket else QueueSender(send, limit, give_up, close_timeout)
