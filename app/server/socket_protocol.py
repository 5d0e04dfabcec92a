"""WebSocket below ASGI: a direct way to the socket, and limits on what a hostile peer can hold open.

Knows nothing of the chat.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request
from websockets.protocol import State

from app.exceptions import CloseCode
from app.server.event_queue import EventQueue
from app.wire.sender import DIRECT

CLOSE_TIMEOUT = 5.0  # seconds that a peer may take to read up to its close frame, before it is cut off
HURRY = 1.0  # the same at the server's end, and for a peer whose input is discarded
INVALID_UTF8 = 1007
EVENT_LIMIT = 64  # events that may wait for the app before the parser waits for it
SLICE = 4096  # bytes that are parsed before the flood limit is looked at again
FLOOD_FRAMES = 200  # frames that the app does not see, which a peer may send in
FLOOD_SECONDS = 10.0

WRITABLE = asyncio.Event()
WRITABLE.set()  # for ever


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
        *("transport", "writable", "discarding", "flood_count", "flood_until", "event_queue", "unparsed"),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.discarding = False
        self.flood_count, self.flood_until = 0, 0.0
        self.unparsed = b""
        self.queue = self.event_queue = EventQueue()  # type: ignore[assignment] # it has what uvicorn uses of a Queue
        self.writable = WRITABLE

    def handle_connect(self, event: Request) -> None:
        """Adds the extension before the app sees the scope."""
        super().handle_connect(event)
        if self.response.status_code == 101:
            cast(dict[str, object], self.scope["extensions"])[DIRECT] = self

    def close(self, code: int, reason: str) -> None:
        """Writes a close frame after what waits, and cuts off a peer that does not read up to it."""
        if self.close_sent or self.transport.is_closing() or self.conn.state is not State.OPEN:
            return
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.cut_off_later()
        if code == CloseCode.FLOOD:
            self.discard_input()
        self.read_or_pause()  # the peer's answer may come after frames that the app has not taken

    def cut_off_later(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Closing alone would wait for ever for a peer that does not read."""
        if self.close_timer:
            self.close_timer.cancel()
        self.close_timer = self.loop.call_later(timeout, self.transport.abort)

    def discard_input(self) -> None:
        """Neither reads nor keeps anything from now on: the peer has sent too much."""
        self.discarding = True
        self.frames.clear()
        self.cut_off_later(HURRY)

    async def send(self, message: Any) -> None:
        """Sends an event of the app. Once the handshake is answered, frames are parsed."""
        await super().send(message)
        if message["type"] == "websocket.accept":
            if not self.handshake_complete:
                raise ClientDisconnected  # the peer left meanwhile; uvicorn would log that the app answered nothing
            # Never looked at again, and a fifth of an idle connection's memory.
            self.request = self.response = None  # type: ignore[assignment]
            cast(list[object], self.scope["headers"]).clear()
            self.parse()
        elif message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True  # uvicorn forgets it, and would log that the app answered nothing

    def pause_writing(self) -> None:
        """The app does not wait for the client: it looks at how much waits."""

    def resume_writing(self) -> None:
        """See `pause_writing`."""

    def data_received(self, data: bytes) -> None:
        """Keeps what came until the app has dealt with what came before it. At most one read is kept: see below."""
        self.unparsed += data
        self.parse()

    def parse(self) -> None:
        """Parses in slices, so that a flood is noticed before all of it has cost its time."""
        data, at = self.unparsed, 0
        while at < len(data) and self.may_parse():
            super().data_received(data[at : at + SLICE])
            at += SLICE
        self.unparsed = b"" if self.discarding or self.transport.is_closing() else data[at:]
        self.read_or_pause()

    def may_parse(self) -> bool:
        """Whether the next slice is wanted now: the request, then frames between the answer to it and the end."""
        if self.discarding or self.transport.is_closing():
            return False
        if self.handshake_initiated and not self.handshake_complete:
            return False  # a frame before the handshake is answered breaks websockets' parser
        return self.close_sent or len(self.event_queue) < EVENT_LIMIT

    def read_or_pause(self) -> None:
        """Reads only while everything read is parsed and, until the close frame is sent, taken by the app.

        uvicorn pauses at each message. What arrives meanwhile waits in the kernel, and its window holds the peer up.
        """
        pause = self.discarding or bool(self.unparsed)
        if pause and not self.read_paused:
            self.transport.pause_reading()
            self.read_paused = True
        elif not pause and self.read_paused and (self.close_sent or self.event_queue.empty()):
            self.read_paused = False
            self.transport.resume_reading()

    async def receive(self) -> Any:
        """The next event for the app."""
        event = await self.event_queue.get()
        if self.event_queue.empty():
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
        """Closes a peer that floods with frames which the app does not see. After our close frame, that is any."""
        now = self.loop.time()
        if now > self.flood_until:
            self.flood_until, self.flood_count = now + FLOOD_SECONDS, 0
        self.flood_count += 1
        if self.flood_count > FLOOD_FRAMES:
            self.close(CloseCode.FLOOD, "too many frames")
            self.discard_input()  # if it was closing already, too

    def handle_close(self, event: Frame) -> None:
        """The peer's close frame: the end, whether it reads our answer or not."""
        super().handle_close(event)
        if not self.disconnected:
            self.cut_off_later()

    def handle_parser_exception(self) -> None:
        """A frame that breaks the protocol or the size limit."""
        super().handle_parser_exception()
        self.cut_off_later()

    def send_receive_event_to_app(self) -> None:
        """Closes when a text frame is no UTF-8 (RFC 6455, section 8.1), which uvicorn would log with a traceback."""
        if self.close_sent:
            self.frames.clear()
            self.count_hidden_frame()
            return
        if self.curr_msg_data_type == "text":
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.frames.clear()
                self.close(INVALID_UTF8, "invalid UTF-8")
                return
        super().send_receive_event_to_app()

    def eof_received(self) -> None:
        """The peer sends nothing more. The transport closes once all is written, which may be never."""
        self.queue.put_nowait({"type": "websocket.disconnect", "code": 1006})
        self.cut_off_later()

    def shutdown(self) -> None:
        """The server's end: who is told to come back may answer, for a moment, lest a reset swallows the news."""
        if self.handshake_complete:
            self.close(CloseCode.RESTART, CloseCode.RESTART.reason)
        self.loop.call_later(HURRY if self.handshake_complete else 0, self.transport.abort)
