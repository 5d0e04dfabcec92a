"""HTTP below ASGI: limits on the time and the size of requests, and on the time that a peer takes to read an answer."""

from __future__ import annotations

import asyncio
import fcntl
import sys
import termios

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.server.socket_protocol import SocketProtocol
from app.wire.sender import CLOSE_TIMEOUT

MAX_HEADERS = 65_536  # bytes
MAX_PIPELINED = 8  # requests that may wait for earlier ones to be answered
ERROR_HEADERS = (
    b"content-type: application/json\r\nx-content-type-options: nosniff\r\ncache-control: no-store\r\n"
    b"connection: close\r\ncontent-length: %d\r\n\r\n"
)


class RequestProtocol(HttpToolsProtocol):
    """One HTTP connection, with limits on the time and size of a request's headers and on how long a transfer stalls.

    A timer checks two deadlines once a second, and cuts the connection off past one of them. `idle_deadline` is for the
    next request's headers. `stall_deadline` is for a request's body and for an answer: each KiB that moves puts it off
    by a second, up to `stall_timeout`, so that a transfer of at least `minimum_rate` is never cut off.
    """

    header_timeout = 10.0  # seconds from the start of the connection, or from the end of the last answer
    stall_timeout = 30.0  # seconds
    minimum_rate = 1024  # bytes a second
    check_interval = 1.0  # seconds

    running: RequestResponseCycle | None = None
    timer: asyncio.TimerHandle | None = None
    idle_deadline = stall_deadline = 0.0  # on the loop's clock
    received = unsent = 0  # bytes received since the last check, and left to send at that time
    header_bytes = 0
    in_headers = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Starts the timer."""
        super().connection_made(transport)
        self.idle_deadline = self.loop.time() + self.header_timeout
        self.check_deadlines()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the timer, and tells the app, which would write to a closed transport."""
        self.stop_timer()
        if self.running:  # uvicorn tells the newest request alone, whose app may not have started
            self.running.disconnected = True
            self.running.message_event.set()
        super().connection_lost(exc)

    def check_deadlines(self) -> None:
        """Cuts the connection off past a deadline, else moves the deadlines and checks them again a little later."""
        now, unsent = self.loop.time(), self.count_unsent()
        latest = now + self.stall_timeout + self.check_interval  # because progress is seen up to that much later
        if unsent or self.awaits_body():
            moved = max(0, self.unsent - unsent) if unsent else self.received
            self.stall_deadline = min(latest, self.stall_deadline + moved / self.minimum_rate)
        else:
            self.stall_deadline = latest
        if unsent or not self.awaits_request():
            self.idle_deadline = now + self.header_timeout
        self.unsent, self.received = unsent, 0
        left = min(self.idle_deadline, self.stall_deadline) - now
        if left > 0:
            self.timer = self.loop.call_later(min(left, self.check_interval), self.check_deadlines)
        else:
            self.transport.abort()

    def stop_timer(self) -> None:
        """Stops the timer when the connection ends, or is no longer HTTP. Safe to call again."""
        if self.timer:
            self.timer.cancel()
            self.timer = None

    def awaits_request(self) -> bool:
        """Returns whether every request whose headers came is answered."""
        return self.cycle is None or self.cycle.response_complete

    def awaits_body(self) -> bool:
        """Returns whether the rest of a request is still to come from the peer, and is read."""
        return not self.awaits_request() and self.cycle.more_body and not self.flow.read_paused

    def count_unsent(self) -> int:
        """Returns how many bytes the peer has not acknowledged, in our buffer and, on Linux, in the kernel's.

        The kernel alone would hold up to 4 MiB (`tcp_wmem`), and take more only when a third of it is free.
        """
        buffered = self.transport.get_write_buffer_size()
        try:
            queued = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
        except OSError:  # macOS has this for terminals alone
            return buffered
        return buffered + int.from_bytes(queued, sys.byteorder)

    def data_received(self, data: bytes) -> None:
        """Refuses headers over MAX_HEADERS before they are parsed (RFC 6585, section 5). Upgrades to WebSocket."""
        self.received += len(data)
        if self.in_headers:
            end = data.find(b"\r\n\r\n")
            self.header_bytes += end if end >= 0 else len(data)
            if self.header_bytes > MAX_HEADERS:
                self.refuse(431, "request_header_fields_too_large", "The headers have more than 64 KiB.")
                return
        super().data_received(data)
        if isinstance(upgraded := self.transport.get_protocol(), SocketProtocol):
            self.stop_timer()
            # Parser and protocol refer to each other, and without this would stay until the next garbage collection.
            self.parser = self.scope = self.headers = self.running = None  # type: ignore[assignment]
            if not upgraded.handshake_initiated:  # the WebSocket parser found no request at all
                self.refuse(400, "bad_request", "This is no WebSocket handshake.")

    def send_400_response(self, msg: str) -> None:
        """Refuses input that is no HTTP."""
        self.refuse(400, "bad_request", msg)

    def refuse(self, status: int, code: str, message: str) -> None:
        """Answers in JSON, as every error is answered, and ends the connection."""
        body = b'{"error":{"code":"%b","message":"%b"}}' % (code.encode(), message.encode())
        self.transport.write(STATUS_LINE[status] + ERROR_HEADERS % len(body) + body)
        self.transport.close()
        self.loop.call_later(CLOSE_TIMEOUT, self.transport.abort)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Remembers which one of several pipelined requests is being answered."""
        self.running = cycle
        super()._start_asgi_task(cycle, app)

    def handle_websocket_upgrade(self) -> None:
        """Upgrades. Aborts a connection with an earlier request that is not answered."""
        if not self.awaits_request():
            self.transport.abort()
        elif not self.transport.is_closing():
            super().handle_websocket_upgrade()

    def on_headers_complete(self) -> None:
        """Starts the app, which reads the body. Aborts a connection with too many requests at once."""
        if self.transport.is_closing():
            return
        self.in_headers = False
        self.header_bytes = 0
        super().on_headers_complete()
        if len(self.pipeline) > MAX_PIPELINED:
            self.pipeline.clear()
            self.transport.abort()

    def on_response_complete(self) -> None:
        """Gives the next request on this connection as long as the first."""
        self.in_headers = True
        self.idle_deadline = self.loop.time() + self.header_timeout
        super().on_response_complete()
        self._unset_keepalive_if_required()  # which would count from here, not from when the answer has been sent
