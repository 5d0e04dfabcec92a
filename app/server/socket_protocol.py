"""WebSocket below ASGI: a direct way to the socket, and limits on what a hostile peer can hold open."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request
from websockets.protocol import State

from app.exceptions import CloseCode
from app.wire.limits import FLOOD_FRAMES, FLOOD_SECONDS
from app.wire.sender import CLOSE_TIMEOUT, DIRECT

SHORT_CLOSE_TIMEOUT = 1.0  # CLOSE_TIMEOUT when the server stops, and for a peer whose input is discarded
INVALID_UTF8 = 1007
MAX_EVENTS = 64  # events that may wait for the app before the parser waits for it
YIELD_AFTER = 0.004  # seconds of reading without a pause after which the event loop is given back
PARSE_CHUNK = 4096  # bytes that are parsed before the flood limit is looked at again

ALWAYS_SET = asyncio.Event()
ALWAYS_SET.set()


class EventQueue:
    """A queue for one reader at a time. An asyncio.Queue would cost each idle connection 3 KiB more."""

    __slots__ = ("_events", "_next", "_waiter", "_yield_at")

    def __init__(self) -> None:
        self._events: list[Any] = []
        self._next = 0  # index of the oldest event that has not been read
        self._yield_at = 0.0
        self._waiter: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._events) - self._next

    def put_nowait(self, event: Any) -> None:
        """Adds an event, and wakes the reader."""
        self._events.append(event)
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> Any:
        """Returns the oldest event; waits for one. Now and then gives other tasks a turn, however many there are."""
        if self and time.monotonic() > self._yield_at:
            await asyncio.sleep(0)
            self._yield_at = time.monotonic() + YIELD_AFTER
        while not self:
            self._events.clear()
            self._next = 0
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
            self._waiter = None
            self._yield_at = time.monotonic() + YIELD_AFTER
        self._next += 1
        return self._events[self._next - 1]


class SocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket. Offers itself to the app as the extension DIRECT; see `DirectSocket`."""

    # All attributes that uvicorn's class sets on each instance, and ours: a dict for them would take 2 KiB, and a
    # fan-out would look into all of these dicts. (An attribute that is missing here still works.)
    __slots__ = (
        *("app", "app_state", "asgi_version", "client", "close_sent", "close_timeout", "close_timer", "config"),
        *("conn", "connections", "curr_msg_data_type", "default_headers", "disconnected", "frames"),
        *("handshake_complete", "handshake_initiated", "initial_response", "last_ping_rtt", "logger", "loop"),
        *("pending_ping_payload", "ping_interval", "ping_sent_at", "ping_timeout", "ping_timer", "pong_timer"),
        *("queue", "read_paused", "request", "response", "root_path", "scheme", "scope", "server", "tasks"),
        *("transport", "writable", "discarding", "flood_count", "flood_until", "unparsed"),
    )
    queue: EventQueue  # type: ignore[assignment] # uvicorn only calls put_nowait
    scope: dict[str, Any]  # type: ignore[assignment] # uvicorn's type has no room for an extension of our own

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.discarding = False
        self.flood_count, self.flood_until = 0, 0.0
        self.unparsed = b""
        self.queue = EventQueue()
        self.writable = ALWAYS_SET  # the app never waits for a client: the sender looks at how much is buffered

    def pause_writing(self) -> None:
        """Does nothing: see `writable`."""

    resume_writing = pause_writing

    def handle_connect(self, event: Request) -> None:
        """Adds the extension before the app sees the scope."""
        super().handle_connect(event)
        if self.response.status_code == 101:
            self.scope["extensions"][DIRECT] = self

    async def send(self, message: Any) -> None:
        """Sends an event of the app. Parses what came meanwhile once the handshake is answered."""
        await super().send(message)
        if message["type"] == "websocket.accept":
            if not self.handshake_complete:
                raise ClientDisconnected  # the peer left meanwhile; uvicorn would log that the app answered nothing
            # These are not used again, and are a fifth of an idle connection's memory.
            self.request = self.response = None  # type: ignore[assignment]
            self.scope["headers"].clear()
            self.parse()
        elif message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True  # uvicorn forgets it, and would log that the app answered nothing

    async def receive(self) -> Any:
        """Returns the next event for the app."""
        event = await self.queue.get()
        if not self.queue:
            self.parse()
        return event

    def data_received(self, data: bytes) -> None:
        """Parses what came, or keeps it until it can be parsed: one read at most, because reading pauses then."""
        self.unparsed += data
        self.parse()

    def parse(self) -> None:
        """Parses in chunks, so that a flood is noticed before all of it has cost its time.

        Pauses after the request, because a frame before the handshake is answered breaks websockets' parser, and while
        the app has enough to do. Drops what is left at the end of the connection.
        """
        data, at = self.unparsed, 0
        while at < len(data) and not (self.discarding or self.transport.is_closing()):
            awaits_answer = self.handshake_initiated and not self.handshake_complete
            if awaits_answer or (len(self.queue) >= MAX_EVENTS and not self.close_sent):
                break
            super().data_received(data[at : at + PARSE_CHUNK])
            at += PARSE_CHUNK
        self.unparsed = b"" if self.discarding or self.transport.is_closing() else data[at:]
        self.pause_or_resume_reading()

    def pause_or_resume_reading(self) -> None:
        """Reads only while all input is parsed and, from the handshake to the close frame, taken by the app.

        What arrives meanwhile waits in the kernel, whose TCP window holds the peer back.
        """
        events_wait = bool(self.queue) and self.handshake_complete and not self.close_sent
        pause = self.discarding or bool(self.unparsed) or events_wait
        if pause and not self.read_paused:
            self.transport.pause_reading()
        elif not pause and self.read_paused:
            self.transport.resume_reading()
        self.read_paused = pause

    def send_receive_event_to_app(self) -> None:
        """Queues a whole message for the app. Text that is no UTF-8 ends the connection (RFC 6455, section 8.1).

        Replaces uvicorn's, which would log that with a traceback.
        """
        data = b"".join(self.frames)
        self.frames = []
        if self.close_sent:
            self.count_unseen_frame()
        elif self.curr_msg_data_type == "bytes":
            self.queue.put_nowait({"type": "websocket.receive", "bytes": data})
        else:
            try:
                self.queue.put_nowait({"type": "websocket.receive", "text": data.decode()})
            except UnicodeDecodeError:
                self.close(INVALID_UTF8, "invalid UTF-8")

    def handle_ping(self) -> None:
        """Counts a ping, which the parser has answered."""
        super().handle_ping()
        self.count_unseen_frame()

    def handle_pong(self, event: Frame) -> None:
        """Counts a pong: unasked ones cost as much as pings."""
        super().handle_pong(event)
        self.count_unseen_frame()

    def handle_cont(self, event: Frame) -> None:
        """Counts a continuation frame: empty ones would pile up without ever reaching the size limit."""
        super().handle_cont(event)
        self.count_unseen_frame()

    def count_unseen_frame(self) -> None:
        """Ends a peer that floods with frames that the app does not see: after our close frame, that is any frame."""
        now = self.loop.time()
        if now > self.flood_until:
            self.flood_until, self.flood_count = now + FLOOD_SECONDS, 0
        self.flood_count += 1
        if self.flood_count > FLOOD_FRAMES:
            self.close(CloseCode.FLOOD, "too many frames")
            self.discard_input()  # `close` does not if the connection was closing already

    def discard_input(self) -> None:
        """Neither reads nor keeps anything from now on: the peer has sent too much."""
        self.discarding = True
        self.frames.clear()
        self.abort_later(SHORT_CLOSE_TIMEOUT)

    def close(self, code: int, reason: str) -> None:
        """Writes a close frame after everything that is buffered. Safe to call again."""
        if self.close_sent or self.transport.is_closing() or self.conn.state is not State.OPEN:
            return
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.abort_later()
        if code == CloseCode.FLOOD:
            self.discard_input()
        self.pause_or_resume_reading()  # the peer's answer may come after frames that the app has not taken

    def abort_later(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Aborts the connection after `timeout` seconds: closing alone waits for ever for a peer that does not read."""
        if self.close_timer:
            self.close_timer.cancel()
        self.close_timer = self.loop.call_later(timeout, self.transport.abort)

    def handle_close(self, event: Frame) -> None:
        """Ends the connection on the peer's close frame, whether it reads our answer or not."""
        super().handle_close(event)
        if not self.disconnected:
            self.abort_later()

    def handle_parser_exception(self) -> None:
        """Ends the connection after a frame that breaks the protocol or the size limit."""
        super().handle_parser_exception()
        self.abort_later()

    def eof_received(self) -> None:
        """Ends the connection of a peer that sends nothing more. Closing waits for all output, maybe for ever."""
        self.queue.put_nowait({"type": "websocket.disconnect", "code": 1006})
        self.abort_later()

    def shutdown(self) -> None:
        """Ends the connection when the server stops. A peer may answer first: a reset would lose the close frame."""
        if self.handshake_complete:
            self.close(CloseCode.RESTART, CloseCode.RESTART.reason)
        self.loop.call_later(SHORT_CLOSE_TIMEOUT if self.handshake_complete else 0, self.transport.abort)
