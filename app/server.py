"""Our uvicorn: a direct way to the socket, limits on what a hostile network can hold open, and a shutdown that drains.

Knows HTTP and WebSocket below ASGI, and of the chat only that it can be drained.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import resource
import socket
import threading
from types import FrameType
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.supervisors import ChangeReload
from websockets.frames import Frame
from websockets.http11 import Request

from app import main
from app.config import Settings
from app.exceptions import CloseCode
from app.outbox import DIRECT
from app.websocket import MAX_FRAME

HEADER_TIMEOUT = 10.0  # seconds in which a connection must have sent a whole request
HEADER_LIMIT = 65_536  # bytes
CLOSE_TIMEOUT = 5.0  # seconds that a peer may take to read up to its close frame, before it is cut off
SLICE = 4096  # bytes that are parsed before the flood limit is looked at again
FLOOD_FRAMES = 200  # pings, pongs and continuation frames that a peer may send in
FLOOD_SECONDS = 10.0
SPARE_FILES = 256  # for the store, the log, and peers that are being refused

logger = logging.getLogger(__name__)


class SocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket. Offers itself to the app as the extension DIRECT: `waiting`, `write_frames` and `close`."""

    flood_until = 0.0
    flood_count = 0
    deaf = False

    def handle_connect(self, event: Request) -> None:
        """Adds the extension before the app sees the scope."""
        super().handle_connect(event)
        if self.response.status_code == 101:
            cast(dict[str, object], self.scope["extensions"])[DIRECT] = self

    # For the app

    def waiting(self) -> int:
        """Bytes that the peer has not taken yet, beyond what the kernel holds."""
        return self.transport.get_write_buffer_size()

    def write_frames(self, frames: bytes) -> None:
        """Writes ready-made frames, unless a close frame went before them."""
        if not self.close_sent and not self.transport.is_closing():
            self.transport.write(frames)

    def close(self, code: int, reason: str) -> None:
        """Writes a close frame after what waits, and cuts off a peer that does not read up to it."""
        if self.close_sent or self.transport.is_closing():
            return
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.cut_off_later()

    def cut_off_later(self) -> None:
        """Closing alone would wait for ever for a peer that does not read."""
        if self.close_timer:
            self.close_timer.cancel()
        self.close_timer = self.loop.call_later(CLOSE_TIMEOUT, self.transport.abort)

    # Below the app

    def data_received(self, data: bytes) -> None:
        """Parses in slices, so that a flood is noticed before all of it has cost its time."""
        for start in range(0, len(data), SLICE):
            if self.deaf:
                return
            super().data_received(data[start : start + SLICE] if len(data) > SLICE else data)

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
        self.loop.call_later(0.5, self.transport.abort)


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


class Server(uvicorn.Server):
    """Drains on the first signal: who is here is told to come back, spread over time. The second ends it at once."""

    def __init__(self, config: uvicorn.Config, settings: Settings, spread: float) -> None:
        super().__init__(config)
        self.settings = settings
        self.spread = spread

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Starts the drain, and the watchdog that ends the process when something hangs."""
        if self.should_exit and not self.config.reload:  # the reloader passes on what the terminal sent already
            os._exit(128 + sig)
        watchdog = threading.Timer(self.settings.shutdown_timeout, os._exit, (1,))
        watchdog.daemon = True
        watchdog.start()
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts listening, and says so once when it can't accept any more."""
        asyncio.get_running_loop().set_exception_handler(_LoopFaults())
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drains the chat while still listening, so that whoever comes now hears 503 and not silence."""
        logger.info("Draining: everybody is told to come back")
        await main.app.state.chat.drain(self.spread)
        await super().shutdown(sockets)


class _LoopFaults:
    """What the event loop reports. Running out of file descriptors is said once, not once for each refused peer."""

    said = False

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in (errno.EMFILE, errno.ENFILE):
            loop.default_exception_handler(context)
        elif not self.said:
            self.said = True
            logger.error("Out of file descriptors: new connections fail. Raise the limit (ulimit -n, LimitNOFILE=).")


def raise_file_limit(connections: int) -> None:
    """Raises the soft limit of open files to what so many connections need, or says that it can't be."""
    needed = connections + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(needed, hard), hard))
    if hard < needed:
        logger.warning("Only %d files may be open, WS_MAX_CONNECTIONS=%d needs %d", hard, connections, needed)


def run(settings: Settings, listener: socket.socket, reload: bool, log_config: dict[str, Any]) -> None:
    """Serves on a bound socket until a signal ends it."""
    raise_file_limit(settings.ws_max_connections)
    config = uvicorn.Config(
        "app.main:app",
        http=RequestProtocol,
        ws=SocketProtocol,
        ws_max_size=MAX_FRAME,
        ws_per_message_deflate=False,
        ws_ping_interval=None,
        server_header=False,
        log_config=log_config,
        backlog=4096,
        timeout_graceful_shutdown=int(settings.shutdown_timeout),
        forwarded_allow_ips=list(settings.forwarded_allow_ips),
        reload=reload,
        reload_dirs=["app"] if reload else None,
    )
    server = Server(config, settings, spread=0.0 if reload else settings.shutdown_spread)
    with contextlib.suppress(KeyboardInterrupt):
        if reload:
            ChangeReload(config, target=server.run, sockets=[listener]).run()
        else:
            server.run(sockets=[listener])
