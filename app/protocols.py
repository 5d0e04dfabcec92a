"""HTTP and WebSocket below ASGI: a direct way to the socket, and limits on what a hostile network can hold open.

Knows nothing of the chat.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request

from app.exceptions import CloseCode
from app.outbox import DIRECT

HEADER_TIMEOUT = 10.0  # seconds in which a connection must have sent a whole request
HEADER_LIMIT = 65_536  # bytes
CLOSE_TIMEOUT = 5.0  # seconds that a peer may take to read up to its close frame, before it is cut off
SHUTDOWN_TIMEOUT = 0.5  # seconds that a peer may take at the server's end
INBOX_LIMIT = 64  # events that may wait for the app before the parser waits for it
SLICE = 4096  # bytes that are parsed before the flood limit is looked at again
FLOOD_FRAMES = 200  # pings, pongs and continuation frames that a peer may send in
FLOOD_SECONDS = 10.0

WRITABLE = asyncio.Event()
WRITABLE.set()  # for ever


class Inbox:
    """The events for one endpoint. An asyncio.Queue would cost an idle connection 3 KiB for what it never uses."""

    __slots__ = ("_events", "_taken", "_waiter")

    def __init__(self) -> None:
        self._events: list[Any] = []
        self._taken = 0
        self._waiter: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._events) - self._taken

    def empty(self) -> bool:
        """As asyncio.Queue has it."""
        return not len(self)

    def put_nowait(self, event: Any) -> None:
        """Adds an event."""
        self._events.append(event)
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> Any:
        """The oldest event. For one reader at a time."""
        while self.empty():
            self._events.clear()
            self._taken = 0
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
            self._waiter = None
        self._taken += 1
        return self._events[self._taken - 1]


class SocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket. Offers itself to the app as the extension DIRECT: `transport`, `close_sent` and `close`."""

    # What uvicorn's class sets on each instance, but what is never set: a dict for these would take 2 KiB, and a
    # fan-out would look into all of them. An attribute that is missing here still works.
    __slots__ = (
        *("app", "app_state", "asgi_version", "client", "close_sent", "close_timeout", "close_timer", "config"),
        *("conn", "connections", "curr_msg_data_type", "default_headers", "disconnected", "frames"),
        *("handshake_complete", "handshake_initiated", "initial_response", "last_ping_rtt", "logger", "loop"),
        *("pending_ping_payload", "ping_interval", "ping_sent_at", "ping_timeout", "ping_timer", "pong_timer"),
        *("queue", "read_paused", "request", "response", "root_path", "scheme", "scope", "server", "tasks"),
        *("transport", "writable", "deaf", "flood_count", "flood_until", "inbox", "unparsed"),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.deaf = False
        self.flood_count, self.flood_until = 0, 0.0
        self.unparsed = b""
        self.queue = self.inbox = Inbox()  # type: ignore[assignment]
        self.writable = WRITABLE

    def handle_connect(self, event: Request) -> None:
        """Adds the extension before the app sees the scope."""
        super().handle_connect(event)
        if self.response.status_code == 101:
            cast(dict[str, object], self.scope["extensions"])[DIRECT] = self

    def close(self, code: int, reason: str) -> None:
        """Writes a close frame after what waits, and cuts off a peer that does not read up to it."""
        if self.close_sent or self.transport.is_closing():
            return
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        if self.read_paused:  # or the peer's answer would not be read
            self.read_paused = False
            self.transport.resume_reading()
        self.cut_off_later()

    def cut_off_later(self) -> None:
        """Closing alone would wait for ever for a peer that does not read."""
        if self.close_timer:
            self.close_timer.cancel()
        self.close_timer = self.loop.call_later(CLOSE_TIMEOUT, self.transport.abort)

    async def send(self, message: Any) -> None:
        """Nobody asks for the request after the handshake, and it would be a fifth of an idle connection's memory."""
        await super().send(message)
        if message["type"] == "websocket.accept":
            self.request = self.response = None  # type: ignore[assignment]
            cast(list[object], self.scope["headers"]).clear()

    def pause_writing(self) -> None:
        """The app does not wait for the client: it looks at how much waits."""

    def resume_writing(self) -> None:
        """See `pause_writing`."""

    def data_received(self, data: bytes) -> None:
        """Keeps what came until the app has dealt with what came before it."""
        self.unparsed += data
        self.parse()

    def parse(self) -> None:
        """Parses in slices, so that a flood is noticed before all of it has cost its time."""
        while self.unparsed and not self.deaf and len(self.inbox) < INBOX_LIMIT:
            part, self.unparsed = self.unparsed[:SLICE], self.unparsed[SLICE:]
            super().data_received(part)

    async def receive(self) -> Any:
        """The next event for the app."""
        event = await super().receive()
        if self.unparsed and self.inbox.empty():
            self.parse()
        return event

    def handle_ping(self) -> None:
        """Answered by the parser; counted here."""
        super().handle_ping()
        self.count_hidden_frame()

    def handle_pong(self, event: Frame) -> None:
        """Unasked pongs cost as much as pings."""
        super().handle_pong(event)
        self.count_hidden_frame()

    def handle_cont(self, event: Frame) -> None:
        """Empty ones would pile up without ever reaching the size limit."""
        super().handle_cont(event)
        self.count_hidden_frame()

    def count_hidden_frame(self) -> None:
        """Closes a peer that floods with frames which the app does not see."""
        now = self.loop.time()
        if now > self.flood_until:
            self.flood_until, self.flood_count = now + FLOOD_SECONDS, 0
        self.flood_count += 1
        if self.flood_count > FLOOD_FRAMES:
            self.deaf = True
            self.frames.clear()
            self.close(CloseCode.FLOOD, "too many frames")

    def handle_close(self, event: Frame) -> None:
        """The peer's close frame: the end, whether it reads our answer or not."""
        super().handle_close(event)
        if not self.disconnected:
            self.cut_off_later()

    def handle_parser_exception(self) -> None:
        """A frame that breaks the protocol or the size limit."""
        super().handle_parser_exception()
        self.cut_off_later()

    def shutdown(self) -> None:
        """The server's end: who has not gone by now is cut off soon."""
        super().shutdown()
        self.loop.call_later(SHUTDOWN_TIMEOUT, self.transport.abort)


class RequestProtocol(HttpToolsProtocol):
    """One HTTP connection: bounded in the time and the size of a request's headers."""

    deadline: asyncio.TimerHandle | None = None
    header_bytes = 0
    in_headers = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the clock."""
        super().connection_made(transport)
        self.await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the clock."""
        self.stop_waiting()
        super().connection_lost(exc)

    def await_request(self) -> None:
        """A whole request must come until the deadline."""
        self.stop_waiting()
        self.deadline = self.loop.call_later(HEADER_TIMEOUT, self.transport.abort)

    def stop_waiting(self) -> None:
        """The request came, or nobody waits for it any more."""
        if self.deadline:
            self.deadline.cancel()
            self.deadline = None

    def data_received(self, data: bytes) -> None:
        """Refuses headers over HEADER_LIMIT before they are parsed (RFC 6585, section 5)."""
        if self.in_headers:
            end = data.find(b"\r\n\r\n")
            self.header_bytes += end if end >= 0 else len(data)
            if self.header_bytes > HEADER_LIMIT:
                self.transport.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\r\n")
                self.transport.close()
                return
        super().data_received(data)
        if self.transport.get_protocol() is not self:
            self.forget_request()

    def forget_request(self) -> None:
        """After the upgrade to WebSocket: parser and protocol refer to each other, and would stay for a while."""
        self.stop_waiting()
        self.parser = self.scope = self.headers = None  # type: ignore[assignment]

    def on_headers_complete(self) -> None:
        """The request is whole as far as it can be waited for; a body is read by whom it is meant for."""
        self.in_headers = False
        self.header_bytes = 0
        self.stop_waiting()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """The next request on this connection gets as long as the first."""
        self.in_headers = True
        if not self.transport.is_closing():
            self.await_request()
        super().on_response_complete()
