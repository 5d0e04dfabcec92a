"""A busy room for as long as one likes, after which nothing may be left of it: `make soak`, or `make soak MINUTES=60`.

Visitors come, go, write, stop reading or drop dead; the owner deletes, bans, pauses. The same is done for a short time
first; then, and at the end, everybody has left and what is remembered of them has run out. Memory, descriptors, tasks
and the length of every table must be at the end what they were after the first time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx2
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.support.running import Client, RunningServer

OWNER = "a-token-of-the-owner-for-the-soak-test"
# So small that the first time fills whatever keeps a fixed number of something.
LIMITS = {"HISTORY_LIMIT": "20", "RECOVERY_LIMIT": "50", "MAX_STORED_MESSAGES": "2000", "OWNER_TOKEN": OWNER}
VISITORS = 40  # at a time
WARM_UP = 60.0  # seconds
FORGETTING = 150.0  # seconds, after which no name is held any more, and no rate remembered
SPARE_MEMORY = 8 * 2**20  # bytes that the allocator may keep


class Soak:
    """The visitors and the owner of one server."""

    def __init__(self, server: RunningServer, http: httpx2.AsyncClient) -> None:
        self.server, self.http = server, http
        self.ends = 0.0
        self.lives = self.posts = 0

    async def run(self, seconds: float) -> None:
        """A busy room for so long."""
        self.ends = time.monotonic() + seconds
        await asyncio.gather(self.moderate(), *(self.visit() for _ in range(VISITORS)))

    async def visit(self) -> None:
        """One visitor after another."""
        while time.monotonic() < self.ends:
            self.lives += 1
            with contextlib.suppress(ConnectionClosed, OSError, TimeoutError):
                await self.live(f"user{random.randrange(10_000)}")

    async def live(self, name: str) -> None:
        """One visitor's life, from an address of its own."""
        address = ".".join(str(random.randrange(1, 255)) for _ in range(4))
        offered = random.choice([None, [Subprotocol("chat.v1")]])
        options: dict[str, Any] = {"additional_headers": {"X-Forwarded-For": address}, "subprotocols": offered}
        async with self.server.connect(name, **options) as client:
            reading = asyncio.create_task(client.read_all(lambda _: None))
            try:
                for _ in range(random.randrange(6)):
                    await client.say(random.choice(["Hello", "x" * 900, "<b>&</b>", ""]), nonce=f"{random.random()}")
                    self.posts += 1
                    await asyncio.sleep(random.random())
                await self.end(client, reading)
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def end(self, client: Client, reading: asyncio.Task[int | None]) -> None:
        """However a visitor ends: properly, without a word, after garbage, or after having read nothing for a while."""
        way = random.randrange(4)
        if way == 1:
            client.socket.transport.abort()
        elif way == 2:
            await client.socket.send("no JSON")
        elif way == 3:
            reading.cancel()
            await asyncio.sleep(3)

    async def moderate(self) -> None:
        """The owner at work."""
        while time.monotonic() < self.ends:
            name = f"user{random.randrange(10_000)}"
            messages = (await self.ask("GET", "/api/messages?last=100"))["messages"]
            if messages:
                await self.ask("DELETE", f"/api/messages/{random.choice(messages)['id']}")
                await self.ask("DELETE", f"/api/messages?username={random.choice(messages)['username']}")
                name = messages[-1]["username"]
            await self.ask("PUT", f"/api/bans/{name}", {"seconds": 2, "address": True})
            room = {"slow_mode": random.choice([0, 0.2]), "paused": random.random() < 0.1}
            await self.ask("PATCH", "/api/room", room)
            await self.ask("POST", "/api/messages", {"content": "The owner is here."})
            await asyncio.sleep(0.5)
        await self.ask("PATCH", "/api/room", {"slow_mode": 0, "paused": False})

    async def fill(self) -> None:
        """More deletions than are remembered, so that whatever keeps a fixed number of something is full both times."""
        await self.ask("PATCH", "/api/room", {"slow_mode": 0, "paused": False})
        for number in range(11):
            headers = {"X-Forwarded-For": f"203.0.113.{number}"}
            async with self.server.connect(f"filler{number}", additional_headers=headers) as client:
                for post in range(100):
                    await client.say(f"{post}", nonce=f"{number}-{post}")
                for _ in range(100):
                    await client.read("message")
            await self.ask("DELETE", f"/api/messages?username=filler{number}")

    async def ask(self, method: str, path: str, body: object = None) -> dict[str, list[dict[str, str]]]:
        answer = await self.http.request(method, path, json=body)
        found: dict[str, list[dict[str, str]]] = answer.json() if answer.status_code < 300 else {"messages": []}
        return found


async def holdings(server: RunningServer, path: Path) -> dict[str, int]:
    """What the server holds now."""
    path.unlink(missing_ok=True)
    server.process.send_signal(signal.SIGUSR1)
    while not path.exists():
        await asyncio.sleep(0.02)
    found: dict[str, int] = json.loads(path.read_text())
    return found


def grown(before: dict[str, int], after: dict[str, int]) -> list[str]:
    """What there is more of, in words."""
    return [f"{name}: {before.get(name, 0)} -> {count}" for name, count in after.items() if count > before.get(name, 0)]


async def soak(minutes: float, folder: Path) -> list[str]:
    """What has grown."""
    path = folder / "holdings.json"
    variables = {**LIMITS, "WATCHED": str(path), "LOG_LEVEL": "WARNING", "RATE_LIMIT_ADDRESS": "100"}
    command = ["-m", "tests.support.watched"]
    headers = {"Authorization": f"Bearer {OWNER}"}
    with RunningServer(command, folder, variables) as server:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", headers=headers, timeout=20) as http:
            work = Soak(server, http)
            print(f"Warming up for {WARM_UP:g} s.")
            await work.run(WARM_UP)
            await work.fill()
            print(f"Waiting for {FORGETTING:g} s until what is remembered has run out.")
            await asyncio.sleep(FORGETTING)
            before, memory = await holdings(server, path), server.memory()
            print(f"{memory / 2**20:.1f} MiB, {before['descriptors']} descriptors, {before['tasks']} tasks.")
            print(f"A busy room for {minutes:g} minutes.")
            await work.run(60 * minutes)
            await work.fill()
            print(f"{work.lives} visits, {work.posts} posts. Waiting for {FORGETTING:g} s.")
            await asyncio.sleep(FORGETTING)
            after, memory_after = await holdings(server, path), server.memory()
            print(f"{memory_after / 2**20:.1f} MiB, {after['descriptors']} descriptors, {after['tasks']} tasks.")
        faults = grown(before, after)
        if memory_after > memory + SPARE_MEMORY:
            faults.append(f"memory: {memory / 2**20:.1f} -> {memory_after / 2**20:.1f} MiB")
        if lines := server.log():
            faults.append(f"log lines above INFO: {lines[:2000]}")
        return faults


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="A busy room that must leave nothing.")
    parser.add_argument("--minutes", type=float, default=10.0)
    with tempfile.TemporaryDirectory() as folder:
        faults = asyncio.run(soak(parser.parse_args().minutes, Path(folder)))
    print("\n".join(["These have grown:", *faults]) if faults else "Nothing has grown.")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
