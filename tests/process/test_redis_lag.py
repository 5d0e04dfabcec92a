"""A worker that stands still while the others prune what it has not read: its clients learn that they missed it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from tests.conftest import Start
from tests.support.running import Client, RunningRedis, RunningServer, until

pytestmark = pytest.mark.anyio

TOKEN = "0123456789abcdef0123456789abcdef"
CROWD = 20  # clients of the worker that stands still: sent away one by one, they would take 0.4 s


class Guest:
    """A client that remembers what it is told. `code`: the close code, once the connection has ended."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.frames: list[dict[str, Any]] = []
        self.code: int | None = None

    async def listen(self) -> None:
        self.code = await self.client.read_all(self.frames.append)

    @property
    def seqs(self) -> list[int]:
        """Of the messages that came live."""
        return [frame["data"]["seq"] for frame in self.frames if frame["type"] == "message"]

    async def post(self, number: int) -> None:
        """Posts a message, which is to get that seq, and waits until it comes back."""
        await self.client.say(f"number {number}", nonce=f"n{number}")
        await until(lambda: number in self.seqs)


@contextlib.asynccontextmanager
async def enter(server: RunningServer, name: str, query: str = "") -> AsyncIterator[Guest]:
    async with server.connect(name, query) as client:
        guest = Guest(client)
        listening = asyncio.create_task(guest.listen())
        await until(lambda: any(frame["type"] == "user_count" for frame in guest.frames))
        yield guest
        await client.socket.close()
        await listening


def api(server: RunningServer, method: str, path: str) -> Any:
    """The owner's API."""
    url, headers = f"http://127.0.0.1:{server.port}/api/messages{path}", {"Authorization": f"Bearer {TOKEN}"}
    return httpx2.request(method, url, headers=headers, timeout=20).raise_for_status().json()


async def test_clients_of_a_worker_that_lagged_behind_the_pruning_recover_nothing(
    start: Start, redis: RunningRedis
) -> None:
    shared = {"ENGINE_URL": redis.url, "OWNER_TOKEN": TOKEN}
    slow, quick = start(**shared), start(**shared)
    async with contextlib.AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(enter(slow, f"guest{number}")) for number in range(CROWD)]
        bob = await stack.enter_async_context(enter(quick, "bob"))
        for number in range(1, 6):
            await bob.post(number)
        await until(lambda: all(guest.seqs == [1, 2, 3, 4, 5] for guest in crowd))
        slow.process.send_signal(signal.SIGSTOP)
        await bob.post(6)  # which answers the read that the worker waits for, if it does, so that it gets nothing else
        (deleted,) = [message["id"] for message in api(quick, "GET", "?after=4&limit=1")["messages"]]
        assert api(quick, "DELETE", f"/{deleted}") == {"hidden": 1}
        for number in range(7, 21):
            await bob.post(number)
        start(**shared, MAX_STORED_MESSAGES="5")
        await until(lambda: api(quick, "GET", "?limit=1")["messages"][0]["seq"] == 16)
        slow.process.send_signal(signal.SIGCONT)
        number = 20
        while not all(guest.code for guest in crowd):
            number += 1
            await bob.post(number)
        for guest in crowd:
            assert (guest.code, guest.seqs) in ((1012, [1, 2, 3, 4, 5]), (1012, [1, 2, 3, 4, 5, 6]))
        (session,) = [frame["data"] for frame in crowd[0].frames if frame["type"] == "session"]
        async with enter(slow, "again", f"&epoch={session['epoch']}&since=6") as again:
            assert not again.frames[0]["recovered"]
            assert again.frames[0]["data"][0]["seq"] == 16
    assert "Traceback" not in slow.log() + quick.log()
