"""What anybody has seen outlives the server, however it ends: real traffic, a real kill, the same file again."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.conftest import Start
from tests.support.running import Client, RunningServer, until

pytestmark = pytest.mark.anyio

ROUNDS = 3
ROOMY = {"HISTORY_LIMIT": "10000", "RECOVERY_LIMIT": "10000", "WS_SEND_BUFFER": "16777216"}
WINDOW = 20  # messages that a talker posts ahead of its acknowledgements
UNLIMITED: dict[str, Any] = {"max_size": None}  # the library's own limit is smaller than these histories

Seen = dict[int, dict[str, Any]]  # message data by seq


class Talker:
    """A client that posts without a pause and remembers all that it sees, until the connection ends."""

    def __init__(self, client: Client, name: str) -> None:
        self.client = client
        self.name = name
        self.seen: Seen = {}
        self.live = 0  # messages of this connection
        self.code: int | None = None
        self.window = asyncio.Semaphore(WINDOW)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            posting = group.create_task(self.post())
            self.code = await self.client.read_all(self.take)
            posting.cancel()

    async def post(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while await self.window.acquire():
                await self.client.say(f"{self.name} has so far seen {self.live}")

    def take(self, frame: dict[str, Any]) -> None:
        if frame["type"] != "message":
            return
        data = frame["data"]
        assert data["seq"] not in self.seen
        self.seen[data["seq"]] = data
        self.live += 1
        if data["username"] == self.name:
            self.window.release()


async def history(server: RunningServer, query: str = "") -> dict[str, Any]:
    """The history frame, with the session's data under `session`."""
    async with server.connect("reader", query, **UNLIMITED) as client:
        frame = await client.read("history")
        return {**frame, "session": (await client.read("session"))["data"]}


async def talk_until_the_end(server: RunningServer, how: str, after: int) -> list[Seen]:
    """Four clients talk, and when one has seen `after` messages the server is ended. What each has seen."""
    async with contextlib.AsyncExitStack() as stack:
        names = ("ada", "bob", "cyd", "dan")
        talkers = [Talker(await stack.enter_async_context(server.connect(n, **UNLIMITED)), n) for n in names]
        async with asyncio.TaskGroup() as group:
            for talker in talkers:
                group.create_task(talker.run())
            await until(lambda: max(talker.live for talker in talkers) >= after)
            await asyncio.to_thread(getattr(server, how))
    return [talker.seen for talker in talkers]


@pytest.mark.parametrize("how", ["kill", "terminate"])
async def test_everything_seen_survives_the_end_of_the_server(start: Start, how: str) -> None:
    dice = random.Random(how)
    server = start(**ROOMY)
    known: list[dict[str, Any]] = []
    for _ in range(ROUNDS):
        seen = await talk_until_the_end(server, how, after=dice.randint(20, 300))
        server.start()
        frame = await history(server)
        assert [data["seq"] for data in frame["data"]] == list(range(1, len(frame["data"]) + 1))
        assert frame["data"][: len(known)] == known
        known = frame["data"]
        assert len({data["id"] for data in known}) == len(known)
        for messages in seen:
            assert [known[seq - 1] for seq in messages] == list(messages.values())
            assert list(messages) == sorted(messages)
        assert server.stats()["total_messages"] == frame["session"]["seq"] == len(known)
    assert "Traceback" not in server.log()


@pytest.mark.parametrize("how", ["kill", "terminate"])
async def test_a_returning_client_gets_exactly_what_it_missed(start: Start, how: str) -> None:
    server = start(**ROOMY)
    epoch = (await history(server))["session"]["epoch"]
    seen = await talk_until_the_end(server, how, after=100)
    server.start()
    everything = (await history(server))["data"]
    newest = len(everything)
    for since in (0, 1, 50, *(max(messages) for messages in seen), newest - 1, newest):
        frame = await history(server, f"&epoch={epoch}&since={since}")
        assert frame["recovered"] is True
        assert frame["data"] == everything[since:]
        assert (frame["session"]["epoch"], frame["session"]["seq"]) == (epoch, newest)
    for query in (f"&epoch={epoch}&since={newest + 1}", f"&epoch=another&since={newest}"):
        frame = await history(server, query)
        assert frame["recovered"] is False
        assert frame["data"] == everything


async def test_everybody_is_asked_to_come_back_when_the_server_stops(start: Start) -> None:
    server = start()
    frames: list[dict[str, Any]] = []
    async with server.connect("ada") as ada:
        reading = asyncio.create_task(ada.read_all(frames.append))
        await until(lambda: len(frames) >= 3)
        assert await asyncio.to_thread(server.terminate) in (0, -15)
        assert await reading == 1012
    assert "Traceback" not in server.log()
