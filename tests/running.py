"""A real server process, and a real client of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import httpx2
from websockets.asyncio.client import ClientConnection, connect

ROOT = Path(__file__).parent.parent
COMMANDS = {
    "app": ["-m", "app"],
    "uvicorn": ["-m", "uvicorn", "app.main:app", "--host", "127.0.0.1", "--port", "{port}"],
}


class RunningServer:
    """One server process. Leaving the context ends it, whatever state it is in."""

    def __init__(self, command: list[str], folder: Path, variables: Mapping[str, str]) -> None:
        self.port = free_port()
        self.folder = folder
        self.command = [sys.executable, *(part.format(port=self.port) for part in command)]
        database = folder / "chat.db"
        self.variables = {"HOST": "127.0.0.1", "PORT": str(self.port), "ENGINE_URL": f"sqlite:///{database}"}
        self.variables |= variables
        self.log_file = folder / f"{self.port}.log"
        self.process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()

    def start(self, wait: bool = True) -> None:
        """Starts the process, again if it had ended, and waits until it answers."""
        environment = {key: value for key, value in os.environ.items() if key not in self.variables}
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=ROOT, env={**environment, **self.variables}, stdout=log, stderr=log
            )
        if wait:
            self._wait_until_it_answers()

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                self.get("/health")
                return
            except httpx2.HTTPError:
                time.sleep(0.02)
        raise AssertionError(f"the server did not start:\n{self.log()}")

    def log(self) -> str:
        """All that it has logged."""
        return self.log_file.read_text()

    def get(self, path: str) -> httpx2.Response:
        """A GET request."""
        return httpx2.get(f"http://127.0.0.1:{self.port}{path}", timeout=5)

    def terminate(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)

    def kill(self) -> None:
        """SIGKILL: no chance to tidy up."""
        self.process.kill()
        self.process.wait(timeout=20)

    @asynccontextmanager
    async def connect(self, username: str, query: str = "", **options: Any) -> AsyncIterator[Client]:
        """A client in the room, which has not read anything yet."""
        url = f"ws://127.0.0.1:{self.port}/ws/chat?username={username}{query}"
        async with connect(url, **options) as socket:
            yield Client(socket)


class Client:
    """A client that speaks frames."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def read(self, *types: str) -> dict[str, Any]:
        """The next frame, or the next of these types. Answers pings."""
        while True:
            frame: dict[str, Any] = json.loads(await self.socket.recv())
            if frame["type"] == "ping" and "ping" not in types:
                await self.send(type="pong")
            elif not types or frame["type"] in types:
                return frame

    async def send(self, **frame: Any) -> None:
        """Sends one frame."""
        await self.socket.send(json.dumps(frame))

    async def say(self, content: str, **more: Any) -> None:
        """Posts a message."""
        await self.send(type="message", content=content, **more)


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
