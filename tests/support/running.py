"""A real server process, and a real client of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import httpx2
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

ROOT = Path(__file__).parent.parent.parent
# All clients of a test come from one address, and write as fast as they can.
UNLIMITED = dict.fromkeys(
    ("WS_MAX_CONNECTIONS_PER_IP", "RATE_LIMIT_MESSAGES", "RATE_LIMIT_ADDRESS", "RATE_LIMIT_JOINS"), "0"
)
COMMANDS = {
    "app": ["-m", "app"],
    "short timeouts": ["-m", "tests.support.short_timeouts"],
    "traced": ["-m", "tests.support.traced"],
    "uvicorn": ["-m", "uvicorn", "app.main:app", "--host", "127.0.0.1", "--port", "{port}"],
}
HANDSHAKE = (
    "GET /ws/chat?username={username} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


class Running:
    """A process that a test starts, kills and starts again. Leaving the context ends it, whatever state it is in."""

    process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()

    def start(self) -> None:
        """Starts the process, again if it had ended, and waits until it answers."""
        raise NotImplementedError

    def kill(self) -> None:
        """SIGKILL: no chance to tidy up."""
        self.process.kill()
        self.process.wait(timeout=20)


class RunningServer(Running):
    """One server process, at work in `folder`."""

    def __init__(self, command: list[str], folder: Path, variables: Mapping[str, str]) -> None:
        self.port = free_port()
        self.folder = folder
        self.command = [sys.executable, *(part.format(port=self.port) for part in command)]
        database = folder / "chat.db"
        self.variables = {"HOST": "127.0.0.1", "PORT": str(self.port), "ENGINE_URL": f"sqlite:///{database}"}
        self.variables |= {**UNLIMITED, **variables}
        self.log_file = folder / f"{self.port}.log"

    def start(self, wait: bool = True) -> None:
        """Starts the process, again if it had ended, and waits until it answers."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **self.variables}
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(self.command, cwd=self.folder, env=environment, stdout=log, stderr=log)
        if wait:
            self.wait_until_it_answers()

    def wait_until_it_answers(self) -> None:
        """Returns once the server is up, and fails when it does not come."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self.process.poll() is None:
            if self._answers():
                return
            time.sleep(0.02)
        raise AssertionError(f"the server did not start:\n{self.log()}")

    def _answers(self) -> bool:
        """Asks, and reads to the very end, so that the server has freed the connection before anybody counts files."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as probe:
                probe.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                answer = probe.recv(4096)
                while probe.recv(4096):
                    pass
                return answer.startswith(b"HTTP/1.1 ")
        except OSError:
            return False

    def log(self) -> str:
        """All that it has logged."""
        return self.log_file.read_text()

    def get(self, path: str) -> httpx2.Response:
        """A GET request."""
        return httpx2.get(f"http://127.0.0.1:{self.port}{path}", timeout=5)

    def open_files(self) -> int:
        """How many files and sockets it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def memory(self) -> int:
        """Its resident memory, in bytes."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    def cpu_time(self) -> float:
        """The seconds that it has computed, however busy the machine is."""
        user, system = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def stats(self) -> dict[str, int]:
        """Users and messages, as the server counts them."""
        counts: dict[str, int] = self.get("/api/stats").json()
        return counts

    def failure(self) -> str:
        """Waits until the process ends by itself with an error; all that it has logged."""
        assert self.process.wait(timeout=20) > 0
        return self.log()

    def terminate(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)

    @asynccontextmanager
    async def connect(self, username: str, query: str = "", **options: Any) -> AsyncIterator[Client]:
        """A client in the room, which has not read anything yet."""
        url = f"ws://127.0.0.1:{self.port}/ws/chat?username={username}{query}"
        # With a bounded queue, a client that leaves frames unread takes ten seconds to close.
        async with connect(url, **{"max_queue": None, **options}) as socket:
            yield Client(socket)

    def raw(self, username: str, receive_buffer: int = 0) -> socket.socket:
        """A bare socket in the room, of which nobody reads a frame. `receive_buffer`: bytes, 0 for the usual."""
        bare = socket.socket()
        if receive_buffer:
            bare.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        bare.settimeout(20)
        bare.connect(("127.0.0.1", self.port))
        bare.sendall(HANDSHAKE.format(username=username).encode())
        assert bare.recv(12) == b"HTTP/1.1 101"
        return bare


class RunningRedis(Running):
    """One Redis process, which keeps what it acknowledged in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.folder = folder

    def start(self) -> None:
        """Starts the process, again if it had ended, and waits until it answers."""
        options = {"port": self.port, "dir": self.folder, "appendonly": "yes", "appendfsync": "always", "save": ""}
        command = ["redis-server", *(part for name, value in options.items() for part in (f"--{name}", str(value)))]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while self.ask("PING") != b"+PONG":
            assert self.process.poll() is None, "Redis ended"
            assert time.monotonic() < deadline, "Redis did not start"
            time.sleep(0.02)

    def pause(self) -> None:
        """Stops it where it is, until `go_on`: it takes connections, and answers nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Ends a pause."""
        self.process.send_signal(signal.SIGCONT)

    def ask(self, command: str) -> bytes:
        """The first line of the answer to a command; nothing while it does not answer."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as line:
                line.sendall(command.encode() + b"\r\n")
                return line.makefile("rb").readline().strip()
        except OSError:
            return b""


class Client:
    """A client that speaks frames."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def read(self, *types: str) -> dict[str, Any]:
        """The next frame, or the next of these types. Answers pings, and fails when none comes in a minute."""
        async with asyncio.timeout(60):
            while True:
                frame: dict[str, Any] = json.loads(await self.socket.recv())
                if frame["type"] == "ping" and "ping" not in types:
                    await self.send(type="pong")
                elif not types or frame["type"] in types:
                    return frame

    async def read_all(self, take: Callable[[dict[str, Any]], object]) -> int | None:
        """Hands over every frame until the connection ends; the close code, None where there was none."""
        try:
            while True:
                take(await self.read())
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else None

    async def send(self, **frame: Any) -> None:
        """Sends one frame."""
        await self.socket.send(json.dumps(frame))

    async def say(self, content: str, **more: Any) -> None:
        """Posts a message."""
        await self.send(type="message", content=content, **more)


async def until(condition: Callable[[], bool], timeout: float = 20.0) -> None:
    """Waits until a condition holds, and fails when it does not in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        await asyncio.sleep(0.02)


def free_port() -> int:
    """A port that nobody listens on at the moment.

    It is below those that the system gives to clients, and each process that runs tests has a range of its own: else
    another could take it before the server does.
    """
    first = 20_000 + 1000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw9").removeprefix("gw"))
    while True:
        port = random.randrange(first, first + 1000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
            probe.bind(("127.0.0.1", port))
            return port
