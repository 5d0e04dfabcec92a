"""The room under load: whoever comes and goes, nobody misses a message or gets one twice, and the cap is exact."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any, Self

import pytest
from websockets.exceptions import ConnectionClosed

from tests.conftest import Start
from tests.support.running import Client, RunningServer, until

pytestmark = pytest.mark.anyio

VISITORS = 30
VISITS = 5  # of each visitor
MESSAGES = 300  # at least

both = pytest.mark.parametrize("command", ["app", "uvicorn"])
Seen = list[tuple[int, str]]  # seq and id, in the order in which they came


def mark(data: dict[str, Any]) -> tuple[int, str]:
    return data["seq"], data["id"]


class Observer:
    """A client that is here all the time and sees every message."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.seen: Seen = []

    def take(self, frame: dict[str, Any]) -> None:
        if frame["type"] == "message":
            self.seen.append(mark(frame["data"]))

    @contextlib.asynccontextmanager
    async def observing(self) -> AsyncIterator[Self]:
        reading = asyncio.create_task(self.client.read_all(self.take))
        yield self
        await self.client.socket.close()
        assert await reading == 1000


async def visit(server: RunningServer, name: str, query: str, stay: int, seen: Seen) -> str:
    """Sees the history and some live messages. Returns the room's epoch."""
    async with server.connect(name, query) as client:
        history = await client.read()
        assert history["type"] == "history"
        assert history["recovered"] is bool(query)
        seen += map(mark, history["data"])
        session = (await client.read("session"))["data"]
        assert session["seq"] == (seen[-1][0] if seen else 0)
        for _ in range(stay):
            seen.append(mark((await client.read("message"))["data"]))
        if stay % 3 == 0:
            client.socket.transport.abort()
        return str(session["epoch"])


async def come_and_go(server: RunningServer, name: str, forgetful: bool) -> list[Seen]:
    """What a visitor saw without a break: of each visit for itself when forgetful, else of all together."""
    dice = random.Random(name)
    runs: list[Seen] = [[]]
    epoch = ""
    for _ in range(VISITS):
        if forgetful:
            runs.append([])
        query = f"&epoch={epoch}&since={runs[-1][-1][0]}" if runs[-1] else ""
        epoch = await visit(server, name, query, dice.randint(0, 12), runs[-1])
    return runs


async def write(server: RunningServer, name: str, done: asyncio.Event) -> None:
    """Posts MESSAGES / 3 messages, then goes on until everybody else is done."""
    async with server.connect(name) as client:
        number = 0
        while number < MESSAGES / 3 or not done.is_set():
            number += 1
            await client.say(f"{name} {number}", nonce=f"{name}-{number}")
            while (await client.read("message"))["data"].get("nonce") != f"{name}-{number}":
                pass


@both
async def test_nobody_who_comes_and_goes_misses_a_message(start: Start, command: str) -> None:
    server = start(command, HISTORY_LIMIT="20")
    done = asyncio.Event()
    async with server.connect("observer") as client, Observer(client).observing() as observer:
        async with asyncio.TaskGroup() as group:
            for name in ("ada", "bob", "cyd"):
                group.create_task(write(server, name, done))
            visitors = (come_and_go(server, f"visitor-{n}", forgetful=n % 2 == 0) for n in range(VISITORS))
            runs = await asyncio.gather(*visitors)
            done.set()
        total = server.stats()["total_messages"]
        await until(lambda: len(observer.seen) >= total)
    truth = observer.seen
    assert total >= MESSAGES
    assert [seq for seq, _ in truth] == list(range(1, total + 1))
    assert len({identity for _, identity in truth}) == total
    for run in (run for visitor in runs for run in visitor if run):
        first = run[0][0]
        assert run == truth[first - 1 : first - 1 + len(run)]
    await until(lambda: server.stats()["active_users"] == 0)
    assert "Traceback" not in server.log()


async def read_seqs(client: Client, count: int) -> list[int]:
    return [(await client.read("message"))["data"]["seq"] for _ in range(count)]


@both
async def test_a_burst_with_the_smallest_buffer_costs_no_reader_its_connection(start: Start, command: str) -> None:
    server = start(command, WS_SEND_BUFFER="65536", MAX_MESSAGE_LENGTH="1000")
    async with server.connect("ada") as ada, server.connect("bob") as bob:
        reading = asyncio.gather(read_seqs(ada, 40), read_seqs(bob, 40))
        for _ in range(40):
            await ada.say("\N{SLIGHTLY SMILING FACE}" * 1000)
        assert list(await reading) == [list(range(1, 41))] * 2


async def knock(server: RunningServer, number: int, stay: asyncio.Event) -> tuple[str, int | None]:
    """The first frame's type or error code, and the close code of who was not let in."""
    async with server.connect(f"visitor-{number}", open_timeout=30) as client:
        frame = await client.read()
        if frame["type"] == "error":
            return frame["data"]["code"], await client.read_all(lambda frame: pytest.fail(f"{frame} after the refusal"))
        await stay.wait()
        return frame["type"], None


@both
async def test_the_cap_is_exact_under_simultaneous_handshakes(start: Start, command: str) -> None:
    server = start(command, WS_MAX_CONNECTIONS="10")
    stay = asyncio.Event()
    knocking = [asyncio.create_task(knock(server, number, stay)) for number in range(100)]
    await until(lambda: sum(task.done() for task in knocking) >= 90)
    assert server.stats()["active_users"] == 10
    stay.set()
    outcomes = await asyncio.gather(*knocking)
    assert outcomes.count(("history", None)) == 10
    assert outcomes.count(("server_full", 1013)) == 90
    await until(lambda: server.stats()["active_users"] == 0)
    async with server.connect("late") as late:
        assert (await late.read())["type"] == "history"


async def test_a_refused_client_that_stays_and_talks_is_not_heard(start: Start) -> None:
    server = start(WS_MAX_CONNECTIONS="1")
    async with server.connect("ada") as ada, server.connect("bob") as bob:
        with contextlib.suppress(ConnectionClosed):
            for _ in range(20):
                await bob.say("Let me in")
        assert await bob.read_all(lambda frame: frame) in (1013, None)
        await ada.say("Hello")
        assert (await ada.read("message"))["data"]["seq"] == 1
