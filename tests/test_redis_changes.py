"""Changes of a room in Redis: workers that come or lag meanwhile, changes that a failover lost, what is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from app.engines import LAST
from app.engines import redis as redis_module
from app.engines.redis import RedisEngine
from app.engines.redis_room import PREFIX, RedisRoom
from app.exceptions import StoreError
from app.message import Draft, Message
from tests.fakes import draft
from tests.running import RunningRedis, until
from tests.test_engines import Room

pytestmark = pytest.mark.anyio


class Worker(Room):
    """One worker."""

    engine: RedisEngine


Start = Callable[[], Awaitable[Worker]]


@pytest.fixture
async def worker(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    """`await worker()`: one more worker in the room, whose clocks all go fast."""
    monkeypatch.setattr("app.engines.redis_room.READ_SECONDS", 0.05)
    monkeypatch.setattr(redis_module, "READ_SECONDS", 0.05)
    monkeypatch.setattr(redis_module, "RETRY", 0.001)
    workers: list[Worker] = []

    async def start() -> Worker:
        workers.append(Worker(RedisEngine(RedisRoom(redis_url), 100, 500_000)))
        await workers[-1].engine.start(workers[-1])
        return workers[-1]

    yield start
    for one in workers:
        await one.engine.stop()


async def test_message_that_was_hidden_before_its_worker_delivered_it_is_answered(
    worker: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await worker(), await worker()
    busy, flowing = two.hold(monkeypatch)
    one.publish(draft("before"))
    await busy.wait()
    two.publish(draft("hidden", "n"), draft("stays", "m", session="other"))
    await one.until(delivered=3)
    assert await one.engine.hide("id", one.delivered[1].id) == 1
    flowing.set()
    await two.until(delivered=2, answered=1)
    answer = two.answers[0]
    assert isinstance(answer, Message)
    assert (answer.gone, answer.id, answer.nonce) == (True, one.delivered[1].id, "n")
    assert (two.texts, len(two.answers)) == (["before", "stays"], 1)


async def test_message_of_which_a_new_room_told_is_not_called_hidden(
    worker: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply is lost; before it is asked again, the room has another epoch, in which the message is."""
    one = await worker()
    one.publish(draft("first"))
    await one.until(delivered=1)
    store, tries = one.engine.room.store, []

    async def lose(epoch: str, drafts: list[Draft], seq: int) -> Any:
        messages = await store(epoch, drafts, seq)
        tries.append(epoch)
        if len(tries) == 1:
            await one.engine.room.open(epoch, "", 99, "", 0, "")
            raise StoreError("the reply was lost")
        return messages

    gone = asyncio.Event()

    async def away(*_: object) -> Any:
        gone.set()
        raise StoreError("away")

    with monkeypatch.context() as patch:
        patch.setattr(one.engine.room, "read", away)
        await gone.wait()
        patch.setattr(one.engine.room, "store", lose)
        one.publish(draft("mine", "n"))
        await until(lambda: one.renewed == 2)
        await until(lambda: len(tries) > 1 or bool(one.answers))
    await one.engine.flush()
    assert one.texts == ["first", "mine"]
    assert not [answer for answer in one.answers if isinstance(answer, Message) and answer.gone]


async def test_newest_message_counts_also_where_it_was_hidden_before_it_was_seen(
    worker: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await worker()
    await one.engine.room.store(one.engine.epoch, [draft("1")], 0)
    await one.until(delivered=1)
    away, flowing = asyncio.Event(), one.engine.room.read

    async def nothing(*_: object) -> Any:
        away.set()
        raise StoreError("away")

    monkeypatch.setattr(one.engine.room, "read", nothing)
    await away.wait()
    two = await worker()
    two.publish(draft("2"))
    await two.until(delivered=2)
    await two.engine.hide("id", two.delivered[1].id)
    monkeypatch.setattr(one.engine.room, "read", flowing)
    await until(lambda: bool(one.changes))
    assert (one.texts, one.engine.seq) == (["1"], 2)


async def test_change_while_a_worker_comes_is_heard(worker: Start, redis_url: str) -> None:
    one = await worker()
    one.publish(*[draft(f"{number}") for number in range(10)])
    await one.until(delivered=10)

    class Slow(RedisRoom):
        """Between its first look at the room and its first look at the messages, both change."""

        async def open(self, *arguments: Any) -> Any:
            found = await super().open(*arguments)
            if arguments[0] == "":
                assert await one.engine.amend("", "rules")
                await one.engine.prune(5)
            return found

    two = Worker(RedisEngine(Slow(redis_url), 100, 500_000))
    await two.engine.start(two)
    await until(lambda: (two.engine.rules, two.engine.pruned) == ("rules", 5))
    assert (two.changes[-1].rules, two.changes[-1].pruned) == ("rules", 5)
    assert await two.engine.amend("rules", "more")
    await two.engine.stop()


async def test_room_that_lost_a_change_is_another_one(worker: Start, shared_redis: RunningRedis) -> None:
    one, two = await worker(), await worker()
    one.publish(draft("1"), draft("2"))
    await two.until(delivered=2)
    assert await one.engine.amend("", "first")
    await until(lambda: two.engine.rules == "first")
    client = one.engine.room._client
    before = {key: await client.dump(PREFIX + key) or b"" for key in ("room", one.engine.epoch)}
    epoch = one.engine.epoch
    assert await one.engine.amend("first", "second")
    await until(lambda: two.engine.rules == "second")
    for key, dump in before.items():
        await client.restore(PREFIX + key, 0, dump, replace=True)
    await until(lambda: one.renewed == two.renewed == 2)
    assert one.engine.epoch == two.engine.epoch != epoch
    assert one.engine.rules == two.engine.rules == "first"
    assert await two.engine.hide("id", one.delivered[0].id) == 1
    await until(lambda: bool(one.changes and one.changes[-1].hidden))


async def test_only_the_newest_rules_are_kept(worker: Start, shared_redis: RunningRedis) -> None:
    one = await worker()
    one.publish(draft("1"))
    await one.until(delivered=1)
    for number in range(50):
        assert await one.engine.amend(one.engine.rules, f"{number}")
    await one.engine.hide("id", one.delivered[0].id)
    assert shared_redis.ask(f"XLEN {PREFIX}{one.engine.epoch}") == b":2"
    late = await worker()
    assert late.engine.rules == "49"


async def test_worker_that_starts_first_after_an_emptying_lifts_no_ban(
    worker: Start, shared_redis: RunningRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await worker()
    assert await one.engine.amend("", "rules")
    monkeypatch.setattr(redis_module, "READ_SECONDS", 60.0)
    monkeypatch.setattr("app.engines.redis_room.READ_SECONDS", 60.0)
    await one.engine.room._client.xadd(PREFIX + "events", {"version": 0, "count": 0, "owner": 0, "news": "{}"})
    shared_redis.ask("FLUSHALL")
    two = await worker()
    assert two.engine.rules == ""
    monkeypatch.setattr(redis_module, "READ_SECONDS", 0.05)
    monkeypatch.setattr("app.engines.redis_room.READ_SECONDS", 0.05)
    two.publish(draft("1"))  # which wakes the readers
    await until(lambda: one.engine.rules == two.engine.rules == "rules", 10)


async def test_search_ends_in_time_and_leaves_the_loop_to_others(
    worker: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.engines.redis_room.PAGE", 2)
    monkeypatch.setattr(redis_module, "PAGE", 2)
    one = await worker()
    one.publish(*[draft(f"session {number}", session=f"S{number % 3}") for number in range(9)])
    await one.until(delivered=9)
    found = await asyncio.gather(*(one.engine.find("session", f"s{number}", 9) for number in range(4)))
    assert [[message.seq for message in each] for each in found] == [[7, 4, 1], [8, 5, 2], [9, 6, 3], []]
    monkeypatch.setattr(redis_module, "SEARCH_PATIENCE", -1.0)
    with pytest.raises(StoreError, match="too much to look through"):
        await one.engine.find("id", "nobody's", 1)


@pytest.mark.parametrize("count", [3, 4])
async def test_search_never_asks_for_what_is_older_than_the_oldest(
    worker: Start, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Backwards from there, Redis would look through the whole stream, and answer nobody meanwhile."""
    monkeypatch.setattr(redis_module, "PAGE", 2)
    one = await worker()
    one.publish(*[draft(f"{number}") for number in range(count)])
    await one.until(delivered=count)
    reads: list[str] = []
    client = one.engine.room._client
    read = client.xrevrange

    def noted(key: str, **bounds: Any) -> Any:
        reads.append(bounds["max"])
        return read(key, **bounds)

    monkeypatch.setattr(client, "xrevrange", noted)
    assert await one.engine.find("id", "nobody's", 1) == []
    assert await one.engine.before(1, 10) == []
    assert reads == [f"({LAST}-0", f"({count - 1}-0"]
