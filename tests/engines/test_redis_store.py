"""The store in Redis, beyond the contract of all stores: several workers, lost replies, lost and older rooms."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from app.engines.engine import EngineTiming
from app.engines.redis.client import PREFIX, RedisClient
from app.engines.redis.store import RedisStore
from app.exceptions import StoreError, Unavailable
from tests.support.engines import Recorder, redis_worker
from tests.support.fakes import draft
from tests.support.running import RunningRedis, until

pytestmark = pytest.mark.anyio

Start = Callable[..., Awaitable[Recorder]]


@pytest.fixture
async def worker(redis_url: str) -> AsyncIterator[Start]:
    """`await worker()`: one more worker in the room."""
    workers: list[Recorder] = []

    async def start(url: str = redis_url, **options: Any) -> Recorder:
        workers.append(redis_worker(url, **options))
        return await workers[-1].start()

    yield start
    for one in workers:
        await one.stop()


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
    assert one.opened[0][:2] == late.opened[0][:2]  # epoch and secret


async def test_nonce_is_known_to_all_workers(worker: Start) -> None:
    one, two = await worker(), await worker()
    one.publish(draft("hello", "n"))
    await two.until(delivered=1)
    two.publish(draft("hello", "n"))
    await two.until(answered=1)
    assert two.answers == one.delivered
    assert two.engine.seq == 1


async def test_stored_message_is_answered_only_when_all_before_it_are_delivered(
    worker: Start,
) -> None:
    one, two = await worker(), await worker()
    two.flowing.clear()
    one.publish(draft("before"), draft("hello", "n"))
    await one.until(delivered=2)
    two.publish(draft("hello", "n"))
    for _ in range(20):
        await asyncio.sleep(0.005)
    assert two.answers == []
    two.flowing.set()
    await two.until(delivered=2, answered=1)


@pytest.mark.parametrize("nonce", [None, "n"])
async def test_lost_reply_is_asked_again_and_nothing_is_stored_twice(
    worker: Start, monkeypatch: pytest.MonkeyPatch, nonce: str | None
) -> None:
    one = await worker()
    run, asked = one.client.run, []

    async def lose(script: str, *arguments: Any) -> Any:
        reply = await run(script, *arguments)
        if script == "store":
            asked.append(len(reply))
            if len(asked) < 3:
                raise StoreError("the reply was lost")
        return reply

    monkeypatch.setattr(one.client, "run", lose)
    one.publish(draft("hello", nonce))
    await one.until(delivered=1)
    await one.engine.flush()
    one.publish(draft("next"))
    await one.until(delivered=2)
    await one.engine.flush()  # what is delivered may come before the reply
    assert (one.seqs, one.texts, one.answers) == ([1, 2], ["hello", "next"], [])
    assert asked == [1, 1, 1, 1]


async def test_draft_that_is_tried_again_while_the_room_becomes_another_one_is_stored_there(
    worker: Start, shared_redis: RunningRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await worker()
    run, epoch = one.client.run, one.epoch
    shared_redis.ask("FLUSHALL")

    async def fail_in_the_old_room(script: str, keys: Any, arguments: Any) -> Any:
        if script == "store" and arguments[0] == epoch:
            await until(lambda: len(one.opened) == 2)
            raise StoreError("the connection broke")
        return await run(script, keys, arguments)

    monkeypatch.setattr(one.client, "run", fail_in_the_old_room)
    one.publish(draft("hello"))
    await one.until(delivered=1)
    await one.engine.flush()
    assert (one.texts, one.answers, one.engine.healthy) == (["hello"], [], True)


@pytest.mark.parametrize("loss", ["all", "tail", "other"])
async def test_store_that_lost_what_was_seen_is_another_one(
    worker: Start, shared_redis: RunningRedis, loss: str
) -> None:
    """It was emptied; it is back without its newest messages; or another message stands where one was seen."""
    one, two = await worker(), await worker()
    one.publish(draft("1"), draft("2"), draft("3"))
    await two.until(delivered=3)
    await one.until(delivered=3)
    epoch = one.epoch
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
    await until(lambda: len(one.opened) == len(two.opened) == 2)
    assert one.epoch == two.epoch != epoch
    assert one.engine.seq == two.engine.seq == 3
    two.publish(draft("new"))
    await one.until(delivered=len(one.delivered) + 1)
    assert (one.delivered[-1].seq, one.delivered[-1].text) == (4, "new")


def lose_tail(redis: RunningRedis, stream: str) -> None:
    """As a replica that had not heard the last two messages when it took over."""
    redis.ask(f"DEL {stream}")
    redis.ask(f'XADD {stream} 1-0 m "[\\"x\\",\\"s\\",\\"ada\\",null,\\"1\\",0,null,\\"visitor\\"]"')
    redis.ask(f"HSET {PREFIX}room seq 1")


async def test_emptied_store_gets_the_rules_that_a_worker_knows(worker: Start, shared_redis: RunningRedis) -> None:
    one = await worker()
    assert await one.replace_rules("", "rules")
    shared_redis.ask("FLUSHALL")
    await until(lambda: len(one.opened) == 2)
    two = await worker()
    assert one.engine.rules == two.engine.rules == "rules"


async def test_worker_that_missed_pruned_messages_starts_anew(worker: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = await worker(), await worker()
    read = two.client.reader.xread

    async def away(*_: object, **__: object) -> Any:
        raise StoreError("away")

    monkeypatch.setattr(two.client.reader, "xread", away)
    one.publish(*[draft(f"{number}") for number in range(10)])
    await one.until(delivered=10)
    await one.prune(7)
    monkeypatch.setattr(two.client.reader, "xread", read)
    await until(lambda: two.engine.seq == 10)
    assert (len(two.opened), two.texts) == (2, ["7", "8", "9"])
    assert two.epoch == one.epoch


async def test_outage_is_logged_once_and_so_is_its_end(worker: Start, redis: RunningRedis) -> None:
    one = await worker(redis.url, timing=EngineTiming(store_timeout=0.1))
    redis.kill()
    await until(lambda: one.outages == 1 and not one.healthy())
    for _ in range(10):
        await asyncio.sleep(0.02)
    assert one.outages == 1
    redis.start()
    await until(one.healthy)
    one.publish(draft("hello"))
    await one.until(delivered=1)


async def test_start_without_redis_says_what_to_check_and_no_password() -> None:
    store = RedisStore(RedisClient("redis://ada:secret@127.0.0.1:1/0"))
    with pytest.raises(StoreError, match="Check that Redis runs") as caught:
        await store.open()
    await store.close()
    assert "127.0.0.1:1/0" in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_full_redis_is_unhealthy_until_there_is_room(
    worker: Start, redis: RunningRedis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "app")
    one = await worker(redis.url, timing=EngineTiming(probe_idle=0.01, probe_broken=0.01))
    redis.ask("CONFIG SET maxmemory 1")
    await until(lambda: not one.healthy())
    redis.ask("CONFIG SET maxmemory 0")
    await until(one.healthy)
    assert "maxmemory" in caplog.text


async def test_writer_goes_on_when_redis_loses_what_it_had_just_stored(
    worker: Start, shared_redis: RunningRedis
) -> None:
    """The reply came, but the reader was still busy with the message before."""
    one, two = await worker(), await worker()
    two.flowing.clear()
    one.publish(draft("before"))
    await two.busy.wait()
    two.publish(draft("lost"))
    await until(lambda: shared_redis.ask(f"XLEN {PREFIX}{two.epoch}") == b":2")
    shared_redis.ask("FLUSHALL")
    two.flowing.set()
    await two.until(answered=1)
    assert two.refusals == [Unavailable]
    await until(lambda: len(two.opened) == 2)
    two.publish(draft("after"))
    await two.until(delivered=len(two.delivered) + 1)
    assert two.delivered[-1].seq == 3


async def test_gap_in_which_nothing_is_missing_is_passed_over(worker: Start, shared_redis: RunningRedis) -> None:
    """Another worker came back from another room, and saw to it that none of its numbers is given twice."""
    one = await worker()
    one.publish(draft("1"))
    await one.until(delivered=1)
    shared_redis.ask(f"HSET {PREFIX}room seq 100")
    one.publish(draft("2"))
    await one.until(delivered=2)
    assert (one.seqs, len(one.opened)) == ([1, 101], 1)
