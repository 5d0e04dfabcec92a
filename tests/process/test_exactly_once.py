"""Exactly once: clients post through a network that breaks all the time, to a server that is killed and restarted."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections import Counter
from contextlib import AsyncExitStack, closing
from functools import partial

import pytest

from app.client.client import ChatClient, Frame, State
from tests.conftest import Start
from tests.support.proxy import CuttingProxy
from tests.support.running import RunningServer, until

pytestmark = pytest.mark.anyio

NAMES = ("ada", "bob", "cyd", "dan", "eve")
POSTS = 200  # of each client
AHEAD = 10  # posts that a client has under way
ENDS = ("kill", "terminate", "kill", "terminate")  # of the server, in between
LONGEST = 200_000  # bytes that a connection may live for, about what is written in all
DEADLINE = 60.0  # seconds, of which a run takes about a tenth
ROOMY = {"HISTORY_LIMIT": "10000", "RECOVERY_LIMIT": "10000", "WS_SEND_BUFFER": "16777216"}
TIGHT = {"HISTORY_LIMIT": "5", "RECOVERY_LIMIT": "10"}
QUICK = {"WS_HEARTBEAT_INTERVAL": "0.25", "WS_HEARTBEAT_TIMEOUT": "0.6", "SHUTDOWN_SPREAD": "0"}

Mark = tuple[int, str]  # seq and id of a message
Visit = tuple[int | None, list[Frame]]  # what a connection asked for (`since`), and the frames that it got


class Witness:
    """A client that comes back quickly, and all that it saw: each message once, and every connection as it was."""

    def __init__(self, port: int, name: str, dice: random.Random) -> None:
        self.name = name
        self.view: list[Mark] = []
        self.visits: list[Visit] = []
        self.refusals: list[str] = []
        self.client = ChatClient(
            f"ws://127.0.0.1:{port}/ws/chat",
            name,
            on_message=lambda data: self.view.append(mark(data)),
            on_frame=self.note,
            jitter=dice.random,
            sleep=lambda seconds: asyncio.sleep(min(seconds, 1.0) / 20),
        )

    def note(self, frame: Frame) -> None:
        if frame["type"] == "history":
            self.visits.append((self.client.seq, []))
        if frame["type"] == "error":
            self.refusals.append(frame["data"]["code"])
        else:
            self.visits[-1][1].append(frame)

    async def write(self) -> None:
        """Posts numbered messages, and returns when all of them are acknowledged."""
        for number in range(POSTS):
            self.client.post(f"{self.name} {number}")
            await self.client.settle(AHEAD)
        await self.client.settle()

    @property
    def recovered(self) -> list[bool]:
        """What each return was told."""
        return [frames[0]["recovered"] for since, frames in self.visits if since is not None]


def mark(data: Frame) -> Mark:
    return data["seq"], data["id"]


def somebody_saw(witnesses: list[Witness], seq: int) -> bool:
    """By `seq`, for with a small history nobody may have seen so many messages."""
    return any(witness.view and witness.view[-1][0] >= seq for witness in witnesses)


async def restart_now_and_then(server: RunningServer, witnesses: list[Witness]) -> None:
    """Ends the server each time that a further share of all messages was seen by somebody."""
    for turn, how in enumerate(ENDS, 1):
        share = turn * POSTS * len(NAMES) // (len(ENDS) + 1)
        await until(partial(somebody_saw, witnesses, share), DEADLINE)
        await asyncio.to_thread(getattr(server, how))
        await asyncio.to_thread(server.start)


async def write_through(server: RunningServer, proxy: CuttingProxy, dice: random.Random) -> list[Witness]:
    """Everybody writes until all is acknowledged and seen; afterwards nobody is connected any more."""
    witnesses = [Witness(proxy.port, name, random.Random(dice.random())) for name in NAMES]
    async with AsyncExitStack() as stack:
        for witness in witnesses:
            await stack.enter_async_context(witness.client)
        # Who is cut off before the first session frame has no token, and the name is then held against it.
        await until(lambda: all(witness.client.state is State.ONLINE for witness in witnesses))
        proxy.cutting = True
        async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
            group.create_task(restart_now_and_then(server, witnesses))
            for witness in witnesses:
                group.create_task(witness.write())
        proxy.cutting = False
        newest = server.stats()["total_messages"]
        await until(lambda: all(newest in dict(witness.view) for witness in witnesses))
    return witnesses


def all_messages(server: RunningServer) -> list[Frame]:
    """What the server's file holds, in order."""
    with closing(sqlite3.connect(server.folder / "chat.db")) as database:
        rows = database.execute("SELECT seq, id, username, text FROM message ORDER BY seq").fetchall()
    return [dict(zip(("seq", "id", "username", "text"), row, strict=True)) for row in rows]


def check_visit(visit: Visit, truth: list[Mark]) -> None:
    """One connection: a recovery is all that was missed, and what comes live goes on from there without a gap."""
    since, (history, *frames) = visit
    past = [mark(data) for data in history["data"]]
    newest = past[-1][0] if past else since or 0
    assert past == truth[newest - len(past) : newest]
    if history["recovered"]:
        assert since is not None
        assert newest - len(past) == since
    sessions = [frame["data"]["seq"] for frame in frames if frame["type"] == "session"]
    assert sessions in ([], [newest])
    live = [mark(frame["data"]) for frame in frames if frame["type"] == "message"]
    new = list(dict.fromkeys((seq, identity) for seq, identity in live if seq > newest))  # a late answer repeats one
    assert new == truth[newest : newest + len(new)]
    assert set(live) <= set(truth)


async def read_history(server: RunningServer) -> list[Mark]:
    """What a newcomer sees."""
    async with server.connect("reader", max_size=None) as client:
        return [mark(data) for data in (await client.read("history"))["data"]]


@pytest.mark.parametrize(("limits", "seed"), [(ROOMY, 1), (TIGHT, 2)], ids=["roomy", "tight"])
async def test_every_post_is_in_the_room_once_and_recovered_never_lies(
    start: Start, limits: dict[str, str], seed: int
) -> None:
    dice = random.Random(seed)
    server = start(**limits, **QUICK)
    async with CuttingProxy(server.port, seed, LONGEST) as proxy:
        witnesses = await write_through(server, proxy, dice)
    messages = all_messages(server)
    truth = [mark(message) for message in messages]
    assert [seq for seq, _ in truth] == list(range(1, len(truth) + 1))
    assert Counter(message["text"] for message in messages) == {
        f"{name} {number}": 1 for name in NAMES for number in range(POSTS)
    }
    assert await read_history(server) == truth[-int(limits["HISTORY_LIMIT"]) :]
    assert min(proxy.cuts.values()) > 0
    assert "Traceback" not in server.log()
    for witness in witnesses:
        assert set(witness.refusals) <= {"unavailable"}  # while the server drained
        assert len(set(witness.view)) == len(witness.view)
        for visit in witness.visits:
            check_visit(visit, truth)
        if limits is ROOMY:
            assert all(witness.recovered)
            assert witness.view == truth
        else:
            assert set(witness.view) <= set(truth)
    told = Counter(answer for witness in witnesses for answer in witness.recovered)
    assert told[True] > 0
    assert bool(told[False]) is (limits is TIGHT)
