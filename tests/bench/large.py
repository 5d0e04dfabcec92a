"""How a large store is to those who are in the room while the owner searches, deletes and exports.

`python -m tests.bench.large --messages 1000000 [--redis]`. Server and export share the first core; clients, and Redis,
have the second. Prints how long the start took, and for each operation p99 and worst of posting, /health and joining.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import httpx2
from redis import Redis

from app.composer import message_id
from app.engines.redis_room import PREFIX, _body
from app.message import Draft
from tests.running import COMMANDS, ROOT, Client, RunningRedis, RunningServer

OWNER = "a-token-of-the-owner-for-the-benchmark"
NAMES = 1000
NONE = {"MAX_STORED_MESSAGES": "0", "RETENTION_DAYS": "0", "LOG_LEVEL": "WARNING", "OWNER_TOKEN": OWNER}
INSERT = "INSERT INTO message (id, session, username, content, text, timestamp, nonce, role) VALUES (?,?,?,?,?,?,?,?)"
Work = Callable[[], Awaitable[object]]


def drafts(count: int) -> Iterable[Draft]:
    """Messages of NAMES visitors within the last 30 days, oldest first."""
    now, step = time.time(), 30 * 86_400.0 / count
    for number in range(count):
        name, text = random.randrange(NAMES), f"{number} " + "x" * random.randrange(20, 180)
        stamp, nonce = now - (count - number) * step, f"{random.getrandbits(128):032x}"
        yield Draft(message_id(stamp), f"session-{name:028}", f"Name{name:03}", text, text, stamp, nonce)


def fill(server: RunningServer, count: int) -> list[str]:
    """Fills the store that the server has made; ids, of which some can be deleted."""
    ids = []
    with contextlib.closing(sqlite3.connect(server.folder / "chat.db")) as db:
        for one in drafts(count):
            columns = (one.id, one.session, one.username, one.content, one.text, one.timestamp, one.nonce, one.role)
            db.execute(INSERT, columns)
            ids.append(one.id)
        db.commit()
    return ids


def fill_redis(redis: RunningRedis, count: int) -> list[str]:
    """The same in Redis."""
    ids = []
    with Redis.from_url(redis.url) as client, client.pipeline(transaction=False) as pipe:
        epoch = client.hget(PREFIX + "room", "epoch").decode()
        for seq, one in enumerate(drafts(count), 1):
            pipe.xadd(PREFIX + epoch, {"m": _body(one)}, f"{seq}-0")
            ids.append(one.id)
            if seq % 1000 == 0:
                pipe.execute()
        client.hset(PREFIX + "room", "seq", count)
    return ids


class Load:
    """Visitors: one posts, some join, /health is asked, each at a steady rate whatever the server does."""

    def __init__(self, server: RunningServer, http: httpx2.AsyncClient) -> None:
        self.server, self.http, self.refused, self.posted = server, http, 0, 0
        self.delays: dict[str, list[float]] = {"post": [], "health": [], "join": []}

    async def run(self, seconds: float) -> None:
        """All of it, for so long."""
        async with self.server.connect("poster") as poster, asyncio.TaskGroup() as group:
            reader = group.create_task(self._read(poster))
            works = ((self._post(poster), 50), (self._health, 20), (self._join, 10))
            loads = [group.create_task(self._steadily(work, rate, seconds)) for work, rate in works]
            await asyncio.wait(loads)
            await asyncio.sleep(1)
            reader.cancel()

    async def _steadily(self, work: Work, rate: int, seconds: float) -> None:
        began, running = time.monotonic(), set()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            running.add(asyncio.ensure_future(work()))
        await asyncio.wait(running, timeout=10)

    def _post(self, poster: Client) -> Work:
        async def post() -> None:
            self.posted += 1
            await poster.say(f"t={time.monotonic()}")

        return post

    async def _read(self, poster: Client) -> None:
        while True:
            frame = await poster.read("message", "error")
            if frame["type"] == "error":
                self.refused += 1
            elif frame["data"]["username"] == "poster":
                self.delays["post"].append(time.monotonic() - float(frame["data"]["content"][2:]))

    async def _health(self) -> None:
        began = time.monotonic()
        self.refused += (await self.http.get("/health")).status_code != 200
        self.delays["health"].append(time.monotonic() - began)

    async def _join(self) -> None:
        began = time.monotonic()
        async with self.server.connect(f"guest{random.getrandbits(40)}") as guest:
            await guest.read("user_count")
            self.delays["join"].append(time.monotonic() - began)


def operations(http: httpx2.AsyncClient, ids: list[str], environment: dict[str, str]) -> dict[str, Work]:
    """What is done again and again while the visitors are there."""

    async def known() -> object:
        return await http.delete(f"/api/messages/{ids.pop(random.randrange(len(ids)))}")

    async def export() -> object:
        command = [sys.executable, "-m", "app", "export"]
        out = asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=environment, stdout=out)
        try:
            return await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    names = iter(random.sample(range(NAMES), NAMES))
    return {
        "nothing": lambda: asyncio.sleep(1),
        "DELETE a known id": known,
        "DELETE an unknown id": lambda: http.delete("/api/messages/00000000-0000-4000-8000-000000000000"),
        "DELETE ?username=": lambda: http.delete(f"/api/messages?username=name{next(names):03}"),
        "GET ?after=&limit=1000": lambda: http.get(f"/api/messages?after={random.randrange(len(ids))}&limit=1000"),
        "export": export,
    }


def show(what: str, load: Load, times: list[float]) -> None:
    """One row: p99 and worst of each, and how often and how fast the operation was done meanwhile."""
    row = [f"{what:24}"]
    for delays in map(sorted, load.delays.values()):
        row.append(f"{delays[len(delays) * 99 // 100] * 1000:7.1f} {delays[-1] * 1000:7.1f}")
    lost = load.posted - len(load.delays["post"])
    took = (
        f"{len(times):5} times, {1000 * sum(times) / len(times):8.1f} ms, {1000 * max(times):8.1f} ms" if times else ""
    )
    print(" | ".join(row), f"| {load.refused} refused, {lost} lost | {took}", flush=True)


async def beside(what: str, work: Work, server: RunningServer, seconds: float) -> None:
    """Measures the visitors while the work is done, over and over."""
    times: list[float] = []

    async def again() -> None:
        while True:
            began = time.monotonic()
            done = await work()
            assert not isinstance(done, httpx2.Response) or done.status_code in (200, 404), done.text
            times.append(time.monotonic() - began)

    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=30) as http:
        load, busy = Load(server, http), asyncio.create_task(again())
        try:
            await load.run(seconds)
        finally:
            if busy.done():
                print(f"{what}: {busy.exception()!r}")
            busy.cancel()
            await asyncio.wait({busy})
    show(what, load, times)


async def measure(server: RunningServer, ids: list[str], seconds: float) -> None:
    """All operations, one after the other."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **server.variables}
    headers = {"Authorization": f"Bearer {OWNER}"}
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", headers=headers, timeout=30) as http:
        for what, work in operations(http, ids, environment).items():
            await beside(what, work, server, seconds)


def started(server: RunningServer, **variables: str) -> None:
    """Starts it, on the first core, and says how long that took."""
    began = time.monotonic()
    server.variables |= variables
    server.start()
    os.sched_setaffinity(server.process.pid, {0})
    print(f"Started in {time.monotonic() - began:.2f} s", flush=True)


def main() -> None:
    """Fills a store, measures, prunes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--redis", action="store_true")
    parser.add_argument("--seconds", type=float, default=8, help="for each operation")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        redis = stack.enter_context(RunningRedis(Path(folder))) if arguments.redis else None
        engine = {"ENGINE_URL": redis.url} if redis else {}
        server = stack.enter_context(RunningServer(COMMANDS["app"], Path(folder), {**NONE, **engine}))
        server.terminate()
        ids = fill_redis(redis, arguments.messages) if redis else fill(server, arguments.messages)
        started(server)
        os.sched_setaffinity(0, {1})
        print(f"{'p99 and worst, ms':24} |            post |          health |            join |")
        asyncio.run(measure(server, ids, arguments.seconds))
        server.terminate()
        started(server, MAX_STORED_MESSAGES=str(max(1, arguments.messages // 2)))
        asyncio.run(beside("pruning", lambda: asyncio.sleep(1), server, arguments.seconds))
        print(server.log(), end="")


if __name__ == "__main__":
    main()
