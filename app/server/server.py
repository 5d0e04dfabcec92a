"""Our uvicorn: one process or several that listen, stay within the machine's limits, and drain when told to stop."""

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
from app.wire.limits import MAX_FRAME

GC_THRESHOLD = 20_000  # objects, those of about 300 connections
SPARE_FILES = 256  # for the store, the log, and peers that are being refused
WILDCARDS = ("0.0.0.0", "::")

logger = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """A server that drains on the first signal, and ends at once on the second."""

    def __init__(self, config: uvicorn.Config, settings: Settings) -> None:
        super().__init__(config)
        self.settings = settings
        self.out_of_files = False
        self.exit_deadline = 0.0  # of the process, once it has begun to drain

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Starts the drain, and the watchdog that ends the process when something hangs."""
        if self.should_exit:
            if multiprocessing.parent_process():
                return  # the parent repeats a signal that the terminal sent to all processes
            os._exit(128 + sig)
        watchdog = threading.Timer(self.settings.shutdown_timeout, os._exit, (1,))
        watchdog.daemon = True
        watchdog.start()
        self.exit_deadline = time.monotonic() + self.settings.shutdown_timeout
        # uvicorn raises the signal again at its end, and a worker that ends by SIGINT does so with a traceback.
        super().handle_exit(signal.SIGTERM if multiprocessing.parent_process() else sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts listening, logs where, and takes everything loaded so far out of garbage collection."""
        await super().startup(sockets)
        host, port = sockets[0].getsockname()[:2] if sockets else (self.settings.host, self.settings.port)
        logger.info("Listening on http://%s:%d (Ctrl-C to stop)", "localhost" if host in WILDCARDS else host, port)
        # Everything loaded now stays, and a connection leaves no cycles. Collections took a sixth of the time of
        # connecting, because they looked at all of it again for every few connections.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)

    async def on_tick(self, counter: int) -> bool:
        """Runs ten times a second. Ends a worker whose parent was killed, because it would keep the port.

        Logs once that file descriptors have run out, because libuv then turns peers away silently.
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
        """Drains the chat while still listening, so that newcomers get a 503 instead of no answer."""
        logger.info("Draining: everybody is told to come back")
        await main.app.state.room.drain(0.0 if self.config.reload else self.settings.shutdown_spread)
        # Tasks that hang are cancelled a moment before the watchdog acts, so that the store is closed all the same.
        self.config.timeout_graceful_shutdown = max(1, int(self.exit_deadline - time.monotonic() - 1))
        await super().shutdown(sockets)


class Worker(supervisor.Process):
    """One of several processes that serve, as the supervisor sees it."""

    any_started = False

    def _healthcheck(self, timeout: float) -> bool | None:
        """Remembers whether any worker has ever started."""
        started = super()._healthcheck(timeout)
        Worker.any_started |= bool(started)
        return started

    @property
    def exitcode(self) -> int | None:
        """Returns 1 for a worker that could not start although another one had, so that it is tried again.

        Redis may be away for a while. uvicorn would end all workers at STARTUP_FAILURE.
        """
        code = super().exitcode
        return 1 if code == STARTUP_FAILURE and Worker.any_started else code

    def join(self) -> None:
        """Waits for its end, and takes its connections out of the metrics."""
        super().join()
        if self.pid:
            metrics.forget(self.pid)

    def target(self, sockets: list[socket.socket] | None = None) -> None:
        """Serves with our Server, which must exist before the thread that answers the parent makes one of uvicorn's."""
        self._server = Server(self.config, load_settings())
        super().target(sockets)


def raise_file_limit(connections: int) -> None:
    """Raises the soft limit of open files to what that many connections need, or logs that the hard limit is lower."""
    needed = connections + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(needed, hard), hard))
    if hard < needed:
        logger.warning("Only %d files may be open, WS_MAX_CONNECTIONS=%d needs %d", hard, connections, needed)


def run(settings: Settings, listener: socket.socket, reload: bool, log_config: dict[str, Any]) -> None:
    """Serves on a bound socket until a signal ends it. With `reload` there is one worker, whatever the settings say."""
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
        server = Server(config, settings)
        if reload:
            ChangeReload(config, target=server.run, sockets=[listener]).run()
        else:
            server.run(sockets=[listener])


def _run_workers(config: uvicorn.Config, listener: socket.socket) -> None:
    supervisor.Process = Worker  # type: ignore[misc] # there is no other way to choose the class
    parent = Multiprocess(config, sockets=[listener])
    with metrics.shared():
        parent.run()
    if any(worker.exitcode == STARTUP_FAILURE for worker in parent.processes):
        sys.exit(STARTUP_FAILURE)  # the supervisor would end with 0
