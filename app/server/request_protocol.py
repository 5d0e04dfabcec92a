"""HTTP below ASGI: limits on the time and the size of requests, and on the time that a peer takes to read an answer.

Knows nothing of the chat.
"""

from __future__ import annotations

import asyncio
import fcntl
import sys
import termios

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.server.socket_protocol import CLOSE_TIMEOUT, SocketProtocol

HEADER_LIMIT = 65_536  # bytes
PIPELINE_LIMIT = 8  # requests that may wait for the answers to those before them
ERROR_HEADERS = (
    b"content-type: application/json\r\nx-content-type-options: nosniff\r\ncache-control: no-store\r\n"
    b"connection: close\r\ncontent-length: %d\r\n\r\n"
)


class RequestProtocol(HttpToolsProtocol):
    """One HTTP connection: bounded in the time and the size of a request's headers, and in how long a transfer stalls.

    One timer looks at the connection once a second and cuts it off past one of two deadlines. `idle_until` is for the
    next request's headers. `stalled_until` is for a request's body and for an answer: each KiB that moves puts it off
    by a second, up to `stall_timeout`, so that a transfer of at least `minimum_rate` is never cut off.
    """

    header_timeout = 10.0  # seconds from the start, or from when the answer before has been sent
    stall_timeout = 30.0  # seconds
    minimum_rate = 1024  # bytes a second
    check_interval = 1.0  # seconds

    running: RequestResponseCycle | None = None
    timer: asyncio.TimerHandle | None = None
    idle_until = stalled_until = 0.0  # on the loop's clock
    received = unsent = 0  # bytes: received since the last look, and left to send then
    header_bytes = 0
    in_headers = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Starts the clock."""
        super().connection_made(transport)
        self.idle_until = self.loop.time() + self.header_timeout
        self.check()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the clock, and tells the app, which would write to a closed transport."""
        self.stop_checking()
        if self.running:  # uvicorn tells the newest request alone, whose app may not have started
            self.running.disconnected = True
            self.running.message_event.set()
        super().connection_lost(exc)

    def check(self) -> None:
        """Cuts the connection off past a deadline, else sets the deadlines and looks again a little later."""
        now, unsent = self.loop.time(), self.left_to_send()
        limit = now + self.stall_timeout + self.check_interval  # for progress is seen up to so much later
        if unsent or self.awaits_body():
            moved = max(0, self.unsent - unsent) if unsent else self.received
            self.stalled_until = min(limit, self.stalled_until + moved / self.minimum_rate)
        else:
            self.stalled_until = limit
        if unsent or not self.awaits_request():
            self.idle_until = now + self.header_timeout
        self.unsent, self.received = unsent, 0
        left = min(self.idle_until, self.stalled_until) - now
        if left > 0:
            self.timer = self.loop.call_later(min(left, self.check_interval), self.check)
        else:
            self.transport.abort()

    def stop_checking(self) -> None:
        """The connection ended, or is no longer HTTP."""
        if self.timer:
            self.timer.cancel()
            self.timer = None

    def awaits_request(self) -> bool:
        """Whether every request whose headers came is answered."""
        return self.cycle is None or self.cycle.response_complete

    def awaits_body(self) -> bool:
        """Whether it is up to the peer that a request is not whole."""
        return not self.awaits_request() and self.cycle.more_body and not self.flow.read_paused

    def left_to_send(self) -> int:
        """Bytes that the peer has not acknowledged, in our buffer and, on Linux, in the kernel's.

        The kernel alone would hold up to 4 MiB (`tcp_wmem`), and take more only when a third of it is free.
        """
        waiting = self.transport.get_write_buffer_size()
        try:
            queued = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
        except OSError:  # not a socket's on macOS
            return waiting
        return waiting + int.from_bytes(queued, sys.byteorder)

    def data_received(self, data: bytes) -> None:
        """Refuses headers over HEADER_LIMIT before they are parsed (RFC 6585, section 5)."""
        self.received += len(data)
        if self.in_headers:
            end = data.find(b"\r\n\r\n")
            self.header_bytes += end if end >= 0 else len(data)
            if self.header_bytes > HEADER_LIMIT:
                self.refuse(431, "request_header_fields_too_large", "The headers have more than 64 KiB.")
                return
        super().data_received(data)
        if isinstance(upgraded := self.transport.get_protocol(), SocketProtocol):
            self.forget_request()
            if not upgraded.handshake_initiated:  # the WebSocket parser took it for no request at all
                self.refuse(400, "bad_request", "This is no WebSocket handshake.")

    def send_400_response(self, msg: str) -> None:
        """The answer to what is no HTTP."""
        self.refuse(400, "bad_request", msg)

    def refuse(self, status: int, code: str, message: str) -> None:
        """Answers below ASGI, as every error is answered, and ends the connection."""
        body = b'{"error":{"code":"%b","message":"%b"}}' % (code.encode(), message.encode())
        self.transport.write(STATUS_LINE[status] + ERROR_HEADERS % len(body) + body)
        self.transport.close()
        self.loop.call_later(CLOSE_TIMEOUT, self.transport.abort)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Remembers which of several pipelined requests is being answered."""
        self.running = cycle
        super()._start_asgi_task(cycle, app)

    def handle_websocket_upgrade(self) -> None:
        """Upgrades, unless an earlier request is not answered, or the connection ends."""
        if not self.awaits_request():
            self.transport.abort()
        elif not self.transport.is_closing():
            super().handle_websocket_upgrade()

    def forget_request(self) -> None:
        """After the upgrade to WebSocket: parser and protocol refer to each other, and would stay for a while."""
        self.stop_checking()
        self.parser = self.scope = self.headers = self.running = None  # type: ignore[assignment] # never looked at again

    def on_headers_complete(self) -> None:
        """Starts the app, which reads the body. Ends a peer that has sent too many requests at once."""
        if self.transport.is_closing():
            return
        self.in_headers = False
        self.header_bytes = 0
        super().on_headers_complete()
        if len(self.pipeline) > PIPELINE_LIMIT:
            self.pipeline.clear()
            self.transport.abort()

    def on_response_complete(self) -> None:
        """The next request on this connection gets as long as the first."""
        self.in_headers = True
        self.idle_until = self.loop.time() + self.header_timeout
        super().on_response_complete()
        self._unset_keepalive_if_required()  # which would count from here, not from when the answer has been sent
