"""What becomes of the room when Redis ends, stands still or forgets."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections import Counter

import pytest

from app.client.client import ChatClient, Frame, State
from tests.conftest import Start
from tests.support.running import RunningRedis, RunningServer, until
from tests.support.visitor import Visitor, past, visit
from tests.support.visitor import post_until_stored as post
from tests.support.workers import NOTICED, agree, is_healthy, start_workers

pytestmark = pytest.mark.anyio

POSTS = 400  # of each writer
AHEAD = 10  # posts that a writer has under way
REFUSED = 7.0  # seconds within which a post is refused: 5 s and a reserve
ROOMY = {"HISTORY_LIMIT": "10000", "RECOVERY_LIMIT": "10000", "WS_SEND_BUFFER": "16777216"}


class Writer:
    """A client that posts until all is acknowledged, and remembers each message once."""

    def __init__(self, server: RunningServer, name: str) -> None:
        self.name = name
        self.seen: list[Frame] = []
        self.refusals: list[str] = []
        url = f"ws://127.0.0.1:{server.port}/ws/chat"
        self.client = ChatClient(url, name, on_message=self.seen.append, on_frame=self.note, sleep=soon)

    def note(self, frame: Frame) -> None:
        if frame["type"] == "error":
            self.refusals.append(frame["data"]["code"])

    async def write(self) -> None:
        for number in range(POSTS):
            self.client.post(f"{self.name} {number}")
            await self.client.settle(AHEAD)
        assert await self.client.settle() == 0


async def soon(_: float) -> None:
    await asyncio.sleep(0.05)


async def test_killed_redis_comes_back_and_everything_goes_on(start: Start, redis: RunningRedis) -> None:
    a, b = servers = start_workers(start, redis)
    async with visit(a, "ada") as ada, visit(b, "bob") as bob:
        await post(ada, "before", "n1")
        redis.kill()
        await ada.client.say("meanwhile", nonce="n2")
        await until(lambda: "unavailable" in ada.errors, REFUSED)
        assert ada.datas("error")[0]["nonce"] == "n2"
        await until(lambda: not any(map(is_healthy, servers)), NOTICED)
        await until(lambda: "unavailable" in bob.errors)  # who only reads learns that nothing comes
        async with visit(a, "cyd") as cyd:
            assert [data["content"] for data in cyd.frames[0]["data"]] == ["before"]
            query = f"&epoch={ada.session['epoch']}&since=0"
            assert await past(b, query) == (ada.datas("message"), True)
            redis.start()
            await until(lambda: all(map(is_healthy, servers)), NOTICED)
            await post(ada, "meanwhile", "n2")
            await post(bob, "after", "n3")
            await until(lambda: ada.seqs == bob.seqs == [1, 2, 3])
            await until(lambda: cyd.seqs == [2, 3])
            await until(lambda: agree(servers, 3, 3))
            await until(lambda: ada.count == bob.count == cyd.count == 3)
        assert ada.code is bob.code is None
    assert "Traceback" not in a.log() + b.log()


@pytest.mark.parametrize(
    ("begin", "end", "brief"),
    [("kill", "start", True), ("kill", "start", False), ("pause", "go_on", False)],
    ids=["killed and started at once", "killed", "paused"],
)
async def test_writers_lose_and_double_nothing_over_an_outage(
    start: Start, redis: RunningRedis, begin: str, end: str, brief: bool
) -> None:
    servers = start_workers(start, redis, 2, **ROOMY)
    writers = [Writer(servers[number % 2], name) for number, name in enumerate(("ada", "bob", "cyd", "dan"))]
    async with contextlib.AsyncExitStack() as stack:
        for writer in writers:
            await stack.enter_async_context(writer.client)
        await until(lambda: all(writer.client.state is State.ONLINE for writer in writers))
        writing = asyncio.gather(*(writer.write() for writer in writers))
        await until(lambda: len(writers[0].seen) > POSTS)
        getattr(redis, begin)()
        if not brief:
            await until(lambda: all("unavailable" in writer.refusals for writer in writers))
        await asyncio.to_thread(getattr(redis, end))
        await asyncio.wait_for(writing, 60)
        await until(lambda: all(len(writer.seen) >= POSTS * len(writers) for writer in writers))
    truth, _ = await past(servers[0])
    assert truth == (await past(servers[1]))[0]
    assert [data["seq"] for data in truth] == list(range(1, len(truth) + 1))
    assert Counter(data["content"] for data in truth) == {f"{w.name} {n}": 1 for w in writers for n in range(POSTS)}
    assert len({data["id"] for data in truth}) == len(truth)
    for writer in writers:
        assert writer.seen == truth
    assert not any("Traceback" in server.log() for server in servers)


async def check_new_epoch(servers: list[RunningServer], visitors: list[Visitor], kept: int) -> None:
    """Everybody is sent back to the door of another room, in which `kept` messages are left and seq goes on."""
    seq, epoch = visitors[0].seqs[-1], visitors[0].session["epoch"]
    await until(lambda: [visitor.code for visitor in visitors] == [1012] * len(visitors), NOTICED)
    a, b = servers
    query = f"&epoch={epoch}&since={seq}"
    async with visit(b, "ada", visitors[0].session["token"], query) as ada, visit(a, "bob", query=query) as bob:
        for visitor in (ada, bob):
            assert visitor.frames[0] == {
                "type": "history",
                "data": visitors[0].datas("message")[:kept],
                "recovered": False,
            }
            assert visitor.session["epoch"] != epoch
            assert visitor.session["seq"] == seq
        assert ada.session["epoch"] == bob.session["epoch"]
        await post(ada, "again", "again")
        await post(bob, "and again", "and-again")
        await until(lambda: ada.seqs == bob.seqs == [seq + 1, seq + 2])
        await until(lambda: agree(servers, 2, seq + 2))
        query = f"&epoch={ada.session['epoch']}&since={seq}"
        assert [await past(server, query) for server in servers] == [(ada.datas("message"), True)] * 2
    assert not any("Traceback" in server.log() for server in servers)


async def test_emptied_redis_is_another_room_that_counts_on(start: Start, redis: RunningRedis) -> None:
    a, b = servers = start_workers(start, redis)
    async with visit(a, "ada") as ada, visit(b, "cyd") as cyd:
        for number in range(5):
            await post(ada, f"number {number}", f"n{number}")
        await until(lambda: len(cyd.seqs) == 5)
        redis.ask("FLUSHALL")
        await check_new_epoch(servers, [ada, cyd], kept=0)


async def test_redis_with_an_older_state_is_another_room_that_counts_on(start: Start, redis: RunningRedis) -> None:
    a, b = servers = start_workers(start, redis)
    kept, earlier = redis.folder / "appendonlydir", redis.folder / "earlier"
    async with visit(a, "ada") as ada, visit(b, "cyd") as cyd:
        for number in range(6):
            if number == 3:
                redis.pause()
                shutil.copytree(kept, earlier)
                redis.go_on()
            await post(ada, f"number {number}", f"n{number}")
        await until(lambda: len(cyd.seqs) == 6)
        redis.kill()
        shutil.rmtree(kept)
        earlier.rename(kept)
        redis.start()
        await check_new_epoch(servers, [ada, cyd], kept=3)


async def test_visit_during_a_pause_of_redis_leaves_nothing_behind(start: Start, redis: RunningRedis) -> None:
    a, b = servers = start_workers(start, redis)
    async with visit(b, "ada", subprotocols=None) as ada:
        redis.pause()
        async with visit(a, "ada", subprotocols=None) as tab:  # let in on the worker's own word
            await tab.client.say("Hello", nonce="n")
        await ada.client.say("Hello", nonce="n")
        await until(lambda: "unavailable" in ada.errors, REFUSED)
        redis.go_on()
        await post(ada, "Hello", "m")
    await until(lambda: agree(servers, 0, b.stats()["total_messages"]))
