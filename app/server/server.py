"""Our uvicorn: listens, keeps within the limits of the machine, and drains when it is told to stop.

Knows of the chat only that it can be drained.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import multiprocessing
import os
import resource
import signal
import socket
import sys
import threading
import time
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import ChangeReload, Multiprocess
from uvicorn.supervisors import multiprocess as supervisor

from app import log, main, metrics
from app.config import Settings, load_settings
from app.server.request_protocol import RequestProtocol
from app.server.socket_protocol import SocketProtocol
from app.wire.client_frames import MAX_FRAME

GC_THRESHOLD = 20_000  # objects, about 300 connections' worth
SPARE_FILES = 256  # for the store, the log, and peers that are being refused
ANY = ("0.0.0.0", "::")

logger = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """Drains on the first signal: who is here is told to come back, spread over time. The second ends it at once."""

    def __init__(self, config: uvicorn.Config, settings: Settings, spread: float) -> None:
        super().__init__(config)
        self.settings = settings
        self.spread = spread
        self.out_of_files = False
        self.gone_by = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Starts the drain, and the watchdog that ends the process when something hangs."""
        if self.should_exit and multiprocessing.parent_process():
            return  # which passes on what the terminal sent already
        if self.should_exit:
            os._exit(128 + sig)
        watchdog = threading.Timer(self.settings.shutdown_timeout, os._exit, (1,))
        watchdog.daemon = True
        watchdog.start()
        self.gone_by = time.monotonic() + self.settings.shutdown_timeout
        # At its end uvicorn raises again what it got, and a worker that ends by SIGINT does so with a traceback.
        super().handle_exit(signal.SIGTERM if multiprocessing.parent_process() else sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts listening, says where, and leaves what was loaded to no garbage collection."""
        await super().startup(sockets)
        host, port = sockets[0].getsockname()[:2] if sockets else (self.settings.host, self.settings.port)
        logger.info("Listening on http://%s:%d (Ctrl-C to stop)", "localhost" if host in ANY else host, port)
        # What is here now stays, and a connection leaves no cycles: looking at all of it for each few new ones took a
        # sixth of the time that a connection costs.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second. Says once that files have run out, for libuv then turns peers away without a word.

        Ends a worker whose parent was killed, which would keep the port from the next one.
        """
        parent = multiprocessing.parent_process()
        if parent and not parent.is_alive():
            metrics.orphaned()
            self.handle_exit(signal.SIGTERM, None)
        if not self.out_of_files and counter % 10 == 0:
            try:
                socket.socket().close()
            except OSError:
                self.out_of_files = True
                logger.error("Out of file descriptors: new connections fail. Raise the limit: ulimit -n, LimitNOFILE=")
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drains the chat while still listening, so that whoever comes now hears 503 and not silence."""
        logger.info("Draining: everybody is told to come back")
        await main.app.state.room.drain(self.spread)
        # What hangs is cancelled a moment before the watchdog, so that the store is closed all the same.
        self.config.timeout_graceful_shutdown = max(1, int(self.gone_by - time.monotonic() - 1))
        await super().shutdown(sockets)


class Worker(supervisor.Process):
    """One of several processes that serve."""

    any_started = False

    def _healthcheck(self, timeout: float) -> bool | None:
        started = super()._healthcheck(timeout)
        Worker.any_started |= bool(started)
        return started

    @property
    def exitcode(self) -> int | None:
        """As the supervisor shall see it. Once the room was open, who can't start (Redis is away) is tried again,

        where uvicorn would end all the others with it.
        """
        code = super().exitcode
        return 1 if code == STARTUP_FAILURE and Worker.any_started else code

    def join(self) -> None:
        """Waits for its end, after which its connections are in nobody's count."""
        super().join()
        if self.pid:
            metrics.forget(self.pid)

    def target(self, sockets: list[socket.socket] | None = None) -> None:
        """Serves, on our server. Made before the thread that answers the parent could ask for another one."""
        settings = load_settings()
        self._server = Server(self.config, settings, settings.shutdown_spread)
        super().target(sockets)


def raise_file_limit(connections: int) -> None:
    """Raises the soft limit of open files to what so many connections need, or says that it can't be."""
    needed = connections + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(needed, hard), hard))
    if hard < needed:
        logger.warning("Only %d files may be open, WS_MAX_CONNECTIONS=%d needs %d", hard, connections, needed)


def run(settings: Settings, listener: socket.socket, reload: bool, log_config: dict[str, Any]) -> None:
    """Serves on a bound socket until a signal ends it; for `reload` always with one worker."""
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
        forwarded_allow_ips=list(settings.forwarded_allow_ips),
        reload=reload,
        workers=1 if reload else settings.workers,
        reload_dirs=["app"] if reload else None,
    )
    log.configure(settings.level)
    raise_file_limit(settings.ws_max_connections)
    with contextlib.suppress(KeyboardInterrupt):
        if config.workers > 1:
            _run_workers(config, listener)
            return
        server = Server(config, settings, spread=0.0 if reload else settings.shutdown_spread)
        if reload:
            ChangeReload(config, target=server.run, sockets=[listener]).run()
        else:
            server.run(sockets=[listener])


def _run_workers(config: uvicorn.Config, listener: socket.socket) -> None:
    supervisor.Process = Worker  # type: ignore[misc] # it has no other way to name the server
    parent = Multiprocess(config, sockets=[listener])
    with metrics.shared():
        parent.run()
    if any(worker.exitcode == STARTUP_FAILURE for worker in parent.processes):
        sys.exit(STARTUP_FAILURE)  # it would end as if all were well
