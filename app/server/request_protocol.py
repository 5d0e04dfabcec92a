"""HTTP below ASGI: limits on what a hostile peer can hold open before it has asked for anything.

Knows nothing of the chat.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.server.socket_protocol import CLOSE_TIMEOUT, SocketProtocol

HEADER_TIMEOUT = 10.0  # seconds in which a connection must have sent a whole request
HEADER_LIMIT = 65_536  # bytes
PIPELINE_LIMIT = 8  # requests that may wait for the answers to those before them
ERROR_HEADERS = (
    b"content-type: application/json\r\nx-content-type-options: nosniff\r\ncache-control: no-store\r\n"
    b"connection: close\r\ncontent-length: %d\r\n\r\n"
)


class RequestProtocol(HttpToolsProtocol):
    """One HTTP connection: bounded in the time and the size of a request's headers."""

    deadline: asyncio.TimerHandle | None = None
    header_bytes = 0
    in_headers = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
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

    def eof_received(self) -> None:
        """See SocketProtocol.eof_received."""
        self.loop.call_later(CLOSE_TIMEOUT, self.transport.abort)

    def forget_request(self) -> None:
        """After the upgrade to WebSocket: parser and protocol refer to each other, and would stay for a while."""
        self.stop_waiting()
        self.parser = self.scope = self.headers = None  # type: ignore[assignment] # never looked at again

    def on_headers_complete(self) -> None:
        """The request is whole as far as it can be waited for; a body is read by whom it is meant for."""
        if self.transport.is_closing():
            return
        self.in_headers = False
        self.header_bytes = 0
        self.stop_waiting()
        super().on_headers_complete()
        if len(self.pipeline) > PIPELINE_LIMIT:
            self.pipeline.clear()
            self.transport.abort()

    def on_response_complete(self) -> None:
        """The next request on this connection gets as long as the first."""
        self.in_headers = True
        if not self.transport.is_closing():
            self.await_request()
        super().on_response_complete()
