"""One contract, every store: pages, searches, deletion, pruning, rules, and a store that fails meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from app.engines.engine import EngineTiming
from app.engines.redis.client import RedisClient
from app.engines.redis.store import RedisStore
from app.engines.store import Query
from app.exceptions import NonceReused, StoreError
from app.message import Change, Deletion, Message
from tests.support.engines import Recorder, by, make_store
from tests.support.running import until

pytestmark = pytest.mark.anyio

SHORT = EngineTiming(store_timeout=0.1, search_timeout=0.1)


@pytest.fixture
def timing() -> EngineTiming:
    return EngineTiming()


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def room(request: pytest.FixtureRequest, tmp_path: Path, timing: EngineTiming) -> AsyncIterator[Recorder]:
    room = await Recorder(make_store(request.param, request, tmp_path), timing).start()
    yield room
    room.store.flowing.set()
    await room.stop()


async def test_page_has_the_oldest_messages_and_a_search_the_newest(room: Recorder) -> None:
    assert (await room.page(), await room.find("username", "ada")) == ([], [])
    posted = await room.fill(30)
    assert await room.engine.find(Query(limit=1000)) == posted
    assert [await room.page(after, 7) for after in (0, 7, 28, 30, 2**53)] == [
        list(range(1, 8)),
        list(range(8, 15)),
        [29, 30],
        [],
        [],
    ]
    for name in ("ada", "ADA"):
        assert [message.seq for message in await room.find("username", name, 3)] == [29, 27, 25]
    assert await room.find("session", "bob", 1) == [posted[29]]
    assert await room.find("id", posted[4].id, 5) == [posted[4]]
    for nothing in ("", "ad", "%", "ada' OR 1=1 --", "*"):
        assert await room.find("username", nothing, 5) == []


async def test_deleted_messages_are_in_no_page_and_announced_once_in_order(room: Recorder) -> None:
    posted = await room.fill(5)
    assert await room.delete("id", posted[2].id) == 1
    room.publish(by("Ada", "6"))
    await room.until(delivered=6)
    assert await room.delete("username", "BOB") == 2
    assert await room.delete("session", "ada") == 3
    assert [await room.delete("id", posted[2].id), await room.delete("username", "ada")] == [0, 0]
    assert room.order == [1, 2, 3, 4, 5, -3, 6, -4, -2, -6, -5, -1]
    assert room.changes[0].deletions == (Deletion(3, posted[2].id, 5),)
    assert (await room.page(), await room.find("username", "ada", 9), room.engine.seq) == ([], [], 6)


async def test_deletions_at_the_same_time_delete_each_message_once(room: Recorder) -> None:
    posted = await room.fill(6)
    acts = [room.delete("id", message.id) for message in posted for _ in range(3)]
    counts = await asyncio.gather(*acts, room.delete("username", "ada"))
    assert sorted(room.order[6:]) == [-6, -5, -4, -3, -2, -1]
    assert sum(counts) == 6


async def test_deletion_is_delivered_after_its_message(room: Recorder) -> None:
    """Acts and posts in a random order: nothing is hidden before it was told, and all that was hidden is gone."""
    dice, acts = random.Random(7), []
    for number in range(1, 201):
        room.publish(by("Ada", f"{number}"))
        if dice.random() < 0.2:
            await room.until(delivered=dice.randint(1, number))
            acts.append(asyncio.create_task(room.delete("id", dice.choice(room.delivered).id)))
    hidden = sum(await asyncio.gather(*acts))
    await room.until(delivered=200)
    gone = [-told for told in room.order if told < 0]
    assert len(gone) == len(set(gone)) == hidden
    assert [told for told in room.order if told > 0] == list(range(1, 201))
    assert all(room.order.index(seq) < room.order.index(-seq) for seq in gone)
    assert await room.page() == sorted(set(range(1, 201)) - set(gone))


async def test_pruned_messages_never_come_back(room: Recorder) -> None:
    await room.fill(10)
    for seq in (4, 7, 2, 7):
        await room.prune(seq)
    assert (room.engine.pruned, room.engine.seq, await room.page()) == (7, 10, [8, 9, 10])
    assert [change.pruned for change in room.changes][:2] == [4, 7]
    await room.delete("username", "ada")
    assert room.order[10:] == [-9]
    await room.prune(10)
    assert await room.page() == []
    room.publish(by("Ada", "next"))
    await room.until(delivered=11)
    assert await room.page() == [11]


async def test_nonce_of_a_deleted_message_is_answered_with_what_is_left(room: Recorder) -> None:
    posted = await room.fill(6)
    await room.delete("id", posted[4].id)
    await room.prune(2)
    room.publish(by("bob", "2", "n2"), by("Ada", "5", "n5"), by("Ada", "other", "n5"), by("Ada", "other", "n3"))
    await room.until(answered=4)
    left = [cast(Message, answer) for answer in room.answers[:3]]
    assert [(message.deleted, message.id, message.nonce) for message in left] == [
        (True, posted[1].id, "n2"),
        (True, posted[4].id, "n5"),
        (True, posted[4].id, "n5"),
    ]
    assert isinstance(room.answers[3], NonceReused)
    room.publish(by("bob", "other session", "n5"))
    await room.until(delivered=7)


async def test_rules_are_replaced_only_if_the_old_ones_are_current(room: Recorder) -> None:
    assert room.engine.rules == ""
    assert await room.replace_rules("", "{}")
    assert [await room.replace_rules("", "mine"), await room.replace_rules("others", "mine")] == [False, False]
    assert (room.engine.rules, [change.rules for change in room.changes]) == ("{}", ["{}"])
    outcomes = await asyncio.gather(*(room.replace_rules("{}", f"{number}") for number in range(10)))
    assert outcomes.count(True) == 1
    assert room.engine.rules == f"{outcomes.index(True)}"
    assert len(room.changes) == 2


async def test_failed_change_says_so_and_the_next_one_is_made(room: Recorder) -> None:
    await room.fill(3)
    room.store.fault = StoreError("the disk is full")
    for change in (Change((Deletion(1, room.delivered[0].id),)), Change(pruned=2), Change(rules="{}")):
        with pytest.raises(StoreError, match="the disk is full"):
            await room.engine.apply(change)
    assert (room.changes, room.engine.pruned, room.engine.rules) == ([], 0, "")
    room.store.fault = None
    assert await room.delete("username", "ada") == 2
    room.publish(by("Ada", "4"))
    await room.until(delivered=4)
    assert room.order == [1, 2, 3, -3, -1, 4]


@pytest.mark.parametrize("timing", [SHORT])
async def test_hanging_store_refuses_changes_in_time_and_makes_them_late(room: Recorder) -> None:
    await room.fill(3)
    room.answers.clear()  # a slow disk may have been given up, too, within a time as short as this
    room.store.flowing.clear()
    change = asyncio.create_task(room.replace_rules("", "late"))
    room.publish(by("Ada", "behind"))
    with pytest.raises(StoreError, match="does not answer"):
        await change
    await room.until(answered=1)
    assert (len(room.answers), len(room.delivered), room.healthy()) == (1, 3, False)
    room.store.flowing.set()
    await until(room.healthy)
    room.publish(by("Ada", "next"))
    await room.until(delivered=5)
    assert await room.page() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("timing", [SHORT])
async def test_search_in_a_hanging_store_is_given_up_in_time(room: Recorder) -> None:
    await room.fill(3)
    room.store.flowing.clear()
    async with asyncio.timeout(5):
        with pytest.raises(StoreError, match="does not answer"):
            await room.find("id", "x")


@pytest.mark.parametrize("timing", [EngineTiming(change_limit=2)])
async def test_too_many_changes_at_once_are_refused(room: Recorder) -> None:
    changes = [asyncio.create_task(room.replace_rules("", f"{number}")) for number in range(3)]
    with pytest.raises(StoreError, match="too much"):
        await changes[2]
    assert sorted([await change for change in changes[:2]]) == [False, True]


async def test_stop_waits_for_a_change_and_refuses_the_next(room: Recorder) -> None:
    change = asyncio.create_task(room.replace_rules("", "the last"))
    await asyncio.sleep(0)
    await room.stop()
    assert await change
    with pytest.raises(StoreError):
        await room.prune(1)


async def test_workers_deliver_changes_in_the_same_order_and_replace_rules_in_turn(redis_url: str) -> None:
    one, two = workers = [await Recorder(RedisStore(RedisClient(redis_url), 100)).start() for _ in range(2)]
    for number in range(1, 101):
        workers[number % 2].publish(by("Ada" if number % 3 else "bob", f"{number}"))
    for worker in workers:
        await worker.until(delivered=100)
    deletions = [worker.delete("username", "ada") for worker in workers]
    rules = [worker.replace_rules("", f"{number}") for number, worker in enumerate(workers * 5)]
    outcomes = await asyncio.gather(*rules, *deletions)
    assert outcomes[:10].count(True) == 1
    await one.delete("username", "bob")
    await two.prune(50)
    await until(lambda: one.engine.pruned == two.engine.pruned == 50 and len(one.changes) == len(two.changes))
    assert (one.order, one.changes) == (two.order, two.changes)
    assert one.engine.rules == two.engine.rules == f"{outcomes.index(True)}"
    late = await Recorder(RedisStore(RedisClient(redis_url), 100)).start()
    assert (late.engine.seq, late.engine.pruned, late.engine.rules) == (100, 50, one.engine.rules)
    deleted = [deletion for change in one.changes for deletion in change.deletions]
    assert late.opened[0].deletions == [deletion for deletion in deleted if deletion.at >= 50]
    for worker in (*workers, late):
        await worker.engine.stop()
