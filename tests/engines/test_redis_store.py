"""The engine on Redis, beyond the contract of all engines: several workers, lost replies, lost and older stores."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from redis.exceptions import NoPermissionError

from app.engines import writer
from app.engines.redis import store as redis_module
from app.engines.redis.client import PREFIX, RedisRoom
from app.engines.redis.store import RedisEngine
from app.exceptions import StoreError, Unavailable
from app.message import Draft
from tests.engines.test_engine import Room
from tests.support.fakes import draft
from tests.support.running import RunningRedis, until

pytestmark = pytest.mark.anyio

Start = Callable[..., Awaitable[Room]]


@pytest.fixture
async def worker(redis_url: str) -> AsyncIterator[Start]:
    """`await worker()`: one more worker in the room."""
    rooms: list[Room] = []

    async def start(url: str = redis_url, keep: int = 100) -> Room:
        room = Room(RedisEngine(RedisRoom(url), keep, 500_000))
        rooms.append(room)
        await room.engine.start(room)
        return room

    yield start
    for room in rooms:
        await room.engine.stop()


async def test_all_workers_deliver_the_same_in_the_same_order(worker: Start) -> None:
    one, two = await worker(), await worker()
    for number in range(100):
        one.publish(draft(f"one {number}"))
        two.publish(draft(f"two {number}"))
    await one.until(delivered=200)
    await two.until(delivered=200)
    assert one.delivered == two.delivered
    assert one.seqs == list(range(1, 201))
    late = await worker(keep=3)
    assert (late.delivered, late.engine.seq) == (one.delivered[-3:], 200)
    assert (one.engine.epoch, one.engine.secret) == (late.engine.epoch, late.engine.secret)


async def test_nonce_is_known_to_all_workers(worker: Start) -> None:
    one, two = await worker(), await worker()
    one.publish(draft("hello", "n"))
    await two.until(delivered=1)
    two.publish(draft("hello", "n"))
    await two.until(answered=1)
    assert two.answers == one.delivered
    assert two.engine.seq == 1


async def test_stored_message_is_answered_only_when_all_before_it_are_delivered(
    worker: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await worker(), await worker()
    _, flowing = two.hold(monkeypatch)
    one.publish(draft("before"), draft("hello", "n"))
    await one.until(delivered=2)
    two.publish(draft("hello", "n"))
    for _ in range(20):
        await asyncio.sleep(0.005)
    assert two.answers == []
    flowing.set()
    await two.until(delivered=2, answered=1)


@pytest.mark.parametrize("nonce", [None, "n"])
async def test_lost_reply_is_asked_again_and_nothing_is_stored_twice(
    worker: Start, monkeypatch: pytest.MonkeyPatch, nonce: str | None
) -> None:
    one = await worker()
    assert isinstance(one.engine, RedisEngine)
    store, asked = one.engine.room.store, []

    async def lose(epoch: str, drafts: list[Draft], seq: int) -> Any:
        asked.append(len(drafts))
        stored = await store(epoch, drafts, seq)
        if len(asked) < 3:
            raise StoreError("the reply was lost")
        return stored

    monkeypatch.setattr(redis_module, "RETRY", 0.001)
    monkeypatch.setattr(one.engine.room, "store", lose)
    one.publish(draft("hello", nonce))
    await one.until(delivered=1)
    await one.engine.flush()
    one.publish(draft("next"))
    await one.until(delivered=2)
    assert (one.seqs, one.texts, one.answers) == ([1, 2], ["hello", "next"], [])
    assert asked == [1, 1, 1, 1]


@pytest.mark.parametrize("loss", ["all", "tail", "other"])
async def test_store_that_lost_what_was_seen_is_another_one(
    worker: Start, shared_redis: RunningRedis, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    """It was emptied; it is back without its newest messages; or another message stands where one was seen."""
    monkeypatch.setattr("app.engines.redis.client.READ_SECONDS", 0.05)
    monkeypatch.setattr(redis_module, "READ_SECONDS", 0.05)
    monkeypatch.setattr(redis_module, "RETRY", 0.001)
    one, two = await worker(), await worker()
    one.publish(draft("1"), draft("2"), draft("3"))
    await two.until(delivered=3)
    await one.until(delivered=3)
    epoch = one.engine.epoch
    stream = PREFIX + epoch
    if loss == "all":
        shared_redis.ask("FLUSHALL")
    elif loss == "tail":
        lose_tail(shared_redis, stream)
    else:
        shared_redis.ask(f"XDEL {stream} 3-0")
        shared_redis.ask(f"XTRIM {stream} MAXLEN 0")
        shared_redis.ask(f"DEL {stream}")
        shared_redis.ask(f'XADD {stream} 3-0 m "[\\"x\\",\\"s\\",\\"eve\\",null,\\"other\\",0,null,\\"visitor\\"]"')
    await until(lambda: one.renewed == two.renewed == 2)
    assert one.engine.epoch == two.engine.epoch != epoch
    assert one.engine.seq == two.engine.seq == 3
    two.publish(draft("new"))
    await one.until(delivered=len(one.delivered) + 1)
    assert (one.delivered[-1].seq, one.delivered[-1].text) == (4, "new")


def lose_tail(redis: RunningRedis, stream: str) -> None:
    """As a replica that had not heard the last two messages when it took over."""
    redis.ask(f"DEL {stream}")
    redis.ask(f'XADD {stream} 1-0 m "[\\"x\\",\\"s\\",\\"ada\\",null,\\"1\\",0,null,\\"visitor\\"]"')
    redis.ask(f"HSET {PREFIX}room seq 1")


async def test_emptied_store_gets_the_rules_that_a_worker_knows(
    worker: Start, shared_redis: RunningRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.engines.redis.client.READ_SECONDS", 0.05)
    monkeypatch.setattr(redis_module, "READ_SECONDS", 0.05)
    one = await worker()
    assert await one.engine.amend("", "rules")
    shared_redis.ask("FLUSHALL")
    await until(lambda: one.renewed == 2)
    two = await worker()
    assert one.engine.rules == two.engine.rules == "rules"


async def test_worker_that_missed_pruned_messages_starts_anew(worker: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.engines.redis.client.READ_SECONDS", 0.05)
    monkeypatch.setattr(redis_module, "READ_SECONDS", 0.05)
    monkeypatch.setattr(redis_module, "RETRY", 0.001)
    one, two = await worker(), await worker()
    assert isinstance(two.engine, RedisEngine)
    read = two.engine.room.read

    async def away(*_: object) -> Any:
        raise StoreError("away")

    monkeypatch.setattr(two.engine.room, "read", away)
    one.publish(*[draft(f"{number}") for number in range(10)])
    await one.until(delivered=10)
    await one.engine.prune(7)
    monkeypatch.setattr(two.engine.room, "read", read)
    await until(lambda: two.engine.seq == 10)
    assert (two.renewed, two.texts) == (2, ["7", "8", "9"])
    assert two.engine.epoch == one.engine.epoch


async def test_outage_is_told_once_and_found_out_to_be_over(
    worker: Start, redis: RunningRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_module, "RETRY", 0.01)
    monkeypatch.setattr(redis_module, "PATIENCE", 0.05)
    one = await worker(redis.url)
    redis.kill()
    await until(lambda: one.troubles == 1 and not one.healthy())
    for _ in range(10):
        await asyncio.sleep(0.02)
    assert one.troubles == 1
    redis.start()
    await until(one.healthy)
    one.publish(draft("hello"))
    await one.until(delivered=1)


async def test_start_without_redis_says_what_to_check_and_no_password() -> None:
    engine = RedisEngine(RedisRoom("redis://ada:secret@127.0.0.1:1/0"), 10, 500_000)
    with pytest.raises(StoreError, match="Check that Redis runs") as caught:
        await engine.start(Room(engine))
    await engine.stop()
    assert "127.0.0.1:1/0" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ({"redis_version": "7.0.15", "aof_enabled": 1}, None),
        ({"redis_version": "7.0.15", "aof_enabled": 0}, "loses messages"),
        ({"redis_version": "7.0.15", "aof_enabled": 1, "maxmemory_policy": "allkeys-lru"}, "may drop messages"),
        (NoPermissionError("no"), None),
    ],
)
async def test_owner_is_warned_of_a_forgetful_redis(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, info: Any, said: str | None
) -> None:
    room = RedisRoom(redis_url)

    async def answer() -> Any:
        if isinstance(info, Exception):
            raise info
        return info

    monkeypatch.setattr(room._client, "info", answer)
    warning = await room.check()
    assert said in (warning or "") if said else warning is None
    await room.close()


async def test_old_redis_is_refused(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    room = RedisRoom(redis_url)

    async def answer() -> Any:
        return {"redis_version": "6.0.16", "aof_enabled": 1}

    monkeypatch.setattr(room._client, "info", answer)
    with pytest.raises(StoreError, match=r"Redis 6\.0\.16\. Use Redis 6\.2 or later"):
        await room.check()
    await room.close()


async def test_full_redis_is_unhealthy_until_there_is_room(
    worker: Start, redis: RunningRedis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "app")
    monkeypatch.setattr(writer, "PROBE_IDLE", 0.01)
    monkeypatch.setattr(writer, "PROBE_BROKEN", 0.01)
    one = await worker(redis.url)
    redis.ask("CONFIG SET maxmemory 1")
    await until(lambda: not one.healthy())
    redis.ask("CONFIG SET maxmemory 0")
    await until(one.healthy)
    assert "maxmemory" in caplog.text


async def test_writer_goes_on_when_redis_loses_what_it_had_just_stored(
    worker: Start, shared_redis: RunningRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply came, but the reader was still busy with the message before."""
    monkeypatch.setattr(redis_module, "READ_SECONDS", 0.05)
    monkeypatch.setattr("app.engines.redis.client.READ_SECONDS", 0.05)
    one, two = await worker(), await worker()
    busy, flowing = two.hold(monkeypatch)
    one.publish(draft("before"))
    await busy.wait()
    two.publish(draft("lost"))
    await until(lambda: isinstance(two.engine, RedisEngine) and two.engine._acknowledged == 2)
    shared_redis.ask("FLUSHALL")
    flowing.set()
    await two.until(answered=1)
    assert two.refusals == [Unavailable]
    await until(lambda: two.renewed == 2)
    two.publish(draft("after"))
    await two.until(delivered=len(two.delivered) + 1)
    assert two.delivered[-1].seq == 3


async def test_coming_and_going_does_not_keep_the_reader_from_finding_another_room(
    worker: Start, shared_redis: RunningRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_module, "READ_SECONDS", 0.1)
    one = await worker()
    shared_redis.ask("FLUSHALL")
    for _ in range(1000):
        shared_redis.ask(f"XADD {PREFIX}events * version 1 count 1 news {{}}")
        if one.renewed == 2:
            return
        await asyncio.sleep(0.005)
    raise AssertionError("the reader never looked")


async def test_gap_in_which_nothing_is_missing_is_passed_over(worker: Start, shared_redis: RunningRedis) -> None:
    """Another worker came back from another room, and saw to it that none of its numbers is given twice."""
    one = await worker()
    one.publish(draft("1"))
    await one.until(delivered=1)
    shared_redis.ask(f"HSET {PREFIX}room seq 100")
    one.publish(draft("2"))
    await one.until(delivered=2)
    assert (one.seqs, one.renewed) == ([1, 101], 1)
