"""Changes of a room in Redis: workers that come or lag meanwhile, changes that a failover lost, what is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from app.engines.redis.client import PREFIX
from app.engines.store import LAST, Query
from app.exceptions import StoreError
from app.message import Message
from tests.support.engines import Recorder, redis_worker
from tests.support.fakes import draft
from tests.support.running import RunningRedis, until

pytestmark = pytest.mark.anyio

Start = Callable[..., Awaitable[Recorder]]


@pytest.fixture
async def worker(redis_url: str) -> AsyncIterator[Start]:
    """`await worker()`: one more worker in the room."""
    workers: list[Recorder] = []

    async def start(**options: Any) -> Recorder:
        workers.append(redis_worker(redis_url, **options))
        return await workers[-1].start()

    yield start
    for one in workers:
        await one.stop()


async def test_message_that_was_deleted_before_its_worker_delivered_it_is_answered(
    worker: Start,
) -> None:
    one, two = await worker(), await worker()
    two.flowing.clear()
    one.publish(draft("before"))
    await two.busy.wait()
    two.publish(draft("hidden", "n"), draft("stays", "m", session="other"))
    await one.until(delivered=3)
    assert await one.delete("id", one.delivered[1].id) == 1
    two.flowing.set()
    await two.until(delivered=2, answered=1)
    answer = two.answers[0]
    assert isinstance(answer, Message)
    assert (answer.deleted, answer.id, answer.nonce) == (True, one.delivered[1].id, "n")
    assert (two.texts, len(two.answers)) == (["before", "stays"], 1)


async def test_message_that_a_new_room_has_is_not_answered_as_deleted(
    worker: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply is lost; before it is asked again, the room has another epoch, in which the message is."""
    one = await worker()
    one.publish(draft("first"))
    await one.until(delivered=1)
    run, xread, tries = one.client.run, one.client.reader.xread, []

    async def lose(script: str, *arguments: Any) -> Any:
        reply = await run(script, *arguments)
        if script == "store":
            tries.append(script)
            if len(tries) == 1:
                await run("open", ["room"], [PREFIX, "fresh", "", one.epoch, 99, "", "", 0])
                raise StoreError("the reply was lost")
        return reply

    gone = asyncio.Event()

    async def away(*_: object, **__: object) -> Any:
        gone.set()
        raise StoreError("away")

    monkeypatch.setattr(one.client.reader, "xread", away)
    await gone.wait()
    monkeypatch.setattr(one.client, "run", lose)
    one.publish(draft("mine", "n"))
    await until(lambda: len(one.opened) == 2)
    await until(lambda: len(tries) > 1 or bool(one.answers))
    monkeypatch.setattr(one.client.reader, "xread", xread)
    await one.engine.flush()
    assert one.texts == ["first", "mine"]
    assert not [answer for answer in one.answers if isinstance(answer, Message) and answer.deleted]


async def test_newest_seq_counts_a_message_that_was_deleted_unseen(
    worker: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await worker(), await worker()
    two.publish(draft("1"))
    await one.until(delivered=1)
    away, xread = asyncio.Event(), one.client.reader.xread

    async def nothing(*_: object, **__: object) -> Any:
        away.set()
        raise StoreError("away")

    monkeypatch.setattr(one.client.reader, "xread", nothing)
    await away.wait()
    two.publish(draft("2"))
    await two.until(delivered=2)
    await two.delete("id", two.delivered[1].id)
    monkeypatch.setattr(one.client.reader, "xread", xread)
    await until(lambda: bool(one.changes))
    assert (one.texts, one.engine.seq) == (["1"], 2)


async def test_change_while_a_worker_comes_is_delivered(
    worker: Start, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await worker()
    one.publish(*[draft(f"{number}") for number in range(10)])
    await one.until(delivered=10)

    two = redis_worker(redis_url)
    run = two.client.run

    async def slow(script: str, *arguments: Any) -> Any:
        """Between the worker's look at the room and its look at the messages, both change."""
        reply = await run(script, *arguments)
        if script == "open" and not two.opened:
            assert await one.replace_rules("", "rules")
            await one.prune(5)
        return reply

    monkeypatch.setattr(two.client, "run", slow)
    await two.start()
    await until(lambda: (two.engine.rules, two.engine.pruned) == ("rules", 5))
    assert (two.changes[-1].rules, two.changes[-1].pruned) == ("rules", 5)
    assert await two.replace_rules("rules", "more")
    await two.engine.stop()


async def test_room_that_lost_a_change_is_another_one(worker: Start, shared_redis: RunningRedis) -> None:
    one, two = await worker(), await worker()
    one.publish(draft("1"), draft("2"))
    await two.until(delivered=2)
    assert await one.replace_rules("", "first")
    await until(lambda: two.engine.rules == "first")
    client = one.client.commands
    before = {key: await client.dump(PREFIX + key) or b"" for key in ("room", one.epoch)}
    epoch = one.epoch
    assert await one.replace_rules("first", "second")
    await until(lambda: two.engine.rules == "second")
    for key, dump in before.items():
        await client.restore(PREFIX + key, 0, dump, replace=True)
    await until(lambda: len(one.opened) == len(two.opened) == 2)
    assert one.epoch == two.epoch != epoch
    assert one.engine.rules == two.engine.rules == "first"
    assert await two.delete("id", one.delivered[0].id) == 1
    await until(lambda: bool(one.changes and one.changes[-1].deletions))


async def test_room_that_lost_a_change_which_its_stream_still_has_is_another_one_once(worker: Start) -> None:
    one, two = await worker(), await worker()
    one.publish(draft("1"))
    await two.until(delivered=1)
    room = await one.client.commands.dump(PREFIX + "room") or b""
    assert await one.replace_rules("", "rules")
    await until(lambda: two.engine.rules == "rules")
    await one.client.commands.restore(PREFIX + "room", 0, room, replace=True)
    await until(lambda: len(one.opened) > 1 and len(two.opened) > 1)
    assert await two.replace_rules(two.engine.rules, "other rules")
    await until(lambda: one.engine.rules == "other rules")
    one.publish(draft("2"))
    await two.until(delivered=2)
    assert len(one.opened) == len(two.opened) == 2


async def test_only_the_newest_rules_are_kept(worker: Start, shared_redis: RunningRedis) -> None:
    one = await worker()
    one.publish(draft("1"))
    await one.until(delivered=1)
    for number in range(50):
        assert await one.replace_rules(one.engine.rules, f"{number}")
    await one.delete("id", one.delivered[0].id)
    assert shared_redis.ask(f"XLEN {PREFIX}{one.epoch}") == b":2"
    late = await worker()
    assert late.engine.rules == "49"


async def test_worker_that_starts_first_after_an_emptying_lifts_no_ban(
    worker: Start, shared_redis: RunningRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await worker()
    assert await one.replace_rules("", "rules")
    paused, flowing, xread = asyncio.Event(), asyncio.Event(), one.client.reader.xread

    async def wait(*arguments: Any, **options: Any) -> Any:
        paused.set()
        await flowing.wait()
        return await xread(*arguments, **options)

    monkeypatch.setattr(one.client.reader, "xread", wait)
    await paused.wait()
    shared_redis.ask("FLUSHALL")
    two = await worker()
    assert two.engine.rules == ""
    flowing.set()
    await until(lambda: one.engine.rules == two.engine.rules == "rules", 10)


async def test_searches_side_by_side_find_their_own(worker: Start) -> None:
    one = await worker(page=2)
    one.publish(*[draft(f"session {number}", session=f"S{number % 3}") for number in range(9)])
    await one.until(delivered=9)
    found = await asyncio.gather(*(one.find("session", f"s{number}", 9) for number in range(4)))
    assert [[message.seq for message in each] for each in found] == [[7, 4, 1], [8, 5, 2], [9, 6, 3], []]


async def test_search_that_takes_too_long_is_given_up(worker: Start) -> None:
    one = await worker(search_timeout=-1.0)
    one.publish(draft("1"))
    await one.until(delivered=1)
    with pytest.raises(StoreError, match="too much to look through"):
        await one.find("id", "nobody's", 1)


@pytest.mark.parametrize("count", [3, 4])
async def test_search_never_asks_for_entries_older_than_the_oldest(
    worker: Start, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Backwards from there, Redis would look through the whole stream, and answer nobody meanwhile."""
    one = await worker(page=2)
    one.publish(*[draft(f"{number}") for number in range(count)])
    await one.until(delivered=count)
    reads: list[str] = []
    read = one.client.commands.xrevrange

    def noted(key: str, **bounds: Any) -> Any:
        reads.append(bounds["max"])
        return read(key, **bounds)

    monkeypatch.setattr(one.client.commands, "xrevrange", noted)
    assert await one.find("id", "nobody's", 1) == []
    assert await one.engine.find(Query(before=1, limit=10, newest=True)) == []
    assert reads == [f"({LAST}-0", f"({count - 1}-0"]
