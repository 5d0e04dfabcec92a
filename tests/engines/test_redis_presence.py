"""The presence over several workers on a real Redis: one count, workers that die, and outages.

The rules of names are in test_presence.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from app.engines.presence import PresenceTiming
from app.engines.redis.claim import RedisClaim
from app.engines.redis.presence import RedisPresence
from app.engines.redis.store import RedisStore
from app.exceptions import UsernameTaken
from tests.support.fakes import draft
from tests.support.presence import RedisLine, Visitors
from tests.support.running import RunningRedis

pytestmark = pytest.mark.anyio

LEASE = 1.0  # seconds; a worker that a busy machine stops for longer counts as dead


class Worker(Visitors):
    """The visitors of one worker."""

    def __init__(self, url: str, leave_delay: float, hold: float) -> None:
        self.line = RedisLine(url)
        timing = PresenceTiming(leave_delay, hold, LEASE, refresh=0.05, retry=0.01, claim_timeout=0.1)
        super().__init__(RedisPresence(self.line, "owner", 10, timing))

    async def next_exchange(self) -> None:
        """Returns when Redis knows all that this worker has to tell it now."""
        for _ in range(2):
            await self.line.next_call()


Start = Callable[..., Awaitable[Worker]]


@pytest.fixture
async def worker(redis_url: str) -> AsyncIterator[Start]:
    """`await worker()`: one more worker in the room, whose clocks all go fast."""
    workers: list[Worker] = []

    async def start(leave_delay: float = 0.1, hold: float = 0.5, url: str = redis_url) -> Worker:
        workers.append(Worker(url, leave_delay, hold))
        await workers[-1].presence.start(workers[-1])
        return workers[-1]

    yield start
    for one in workers:
        one.line.cut = False
        await one.presence.stop()
        await one.line.close()


async def counted(users: int, *workers: Worker) -> None:
    """Returns when all workers count so many users."""
    for one in workers:
        await one.until_counted(users)


# One room


async def test_what_was_said_before_the_owner_came_or_left_needs_no_notification(worker: Start) -> None:
    one, two = await worker(), await worker()
    store, claim, answers = RedisStore(one.line), RedisClaim(one.line, 60), []
    await store.open()
    await store.append([draft("one")])
    owner = await one.come("owner")
    await two.until(lambda: two.presence.owner_online)
    answers.append(await claim(1))
    await store.append([draft("two")])
    one.presence.release(owner)
    await two.until(lambda: not two.presence.owner_online)
    answers.append(await claim(2))
    answers.append(await claim(3))
    assert answers == [(0.0, 1), (0.0, 2), (0.0, 2)]


async def test_owner_who_leaves_as_a_visitor_returns_leaves_on_the_other_workers(worker: Start) -> None:
    """The number of users stays, and nobody is announced: a visitor returns within a moment."""
    one, two = await worker(leave_delay=60.0), await worker(leave_delay=60.0)
    owner = await one.come("owner")
    one.presence.release(await one.come("ada"))
    await two.until_announced("owner joined", "ada joined")
    await counted(1, two)
    one.presence.release(owner)
    await one.come("ada")
    await two.until(lambda: not two.presence.owner_online)
    assert two.presence.users == 1


async def test_user_on_two_workers_counts_once_and_stays_until_the_last_goes(worker: Start) -> None:
    one, two = await worker(), await worker()
    first, second = await one.come("Ada"), await two.come("aDA")
    assert (second.username, second.id) == ("Ada", first.id)
    await two.come("bob")
    await counted(2, one, two)
    one.presence.release(first)
    await one.come("eve")
    await counted(3, one, two)
    two.presence.release(second)
    await counted(2, one, two)


async def test_name_is_refused_on_every_worker(worker: Start) -> None:
    one, two = await worker(), await worker()
    await one.come("ada")
    for here in (one, two):
        with pytest.raises(UsernameTaken):
            await here.come("ADA", "b")
    assert await two.come("bob", "b")
    await counted(2, one, two)


async def test_user_is_found_on_every_worker(worker: Start) -> None:
    one, two = await worker(), await worker()
    await one.come("ada", token="hers", limit_key="net")
    assert await two.presence.find("ADA") == ("hers", "net")


async def test_each_worker_announces_once_who_comes_and_goes(worker: Start) -> None:
    one, two = await worker(), await worker()
    ada = await one.come("ada")
    await two.come("ada")
    bob = await two.come("bob")
    two.presence.release(bob)
    for here in (one, two):
        await here.until_announced("ada joined", "bob joined", "bob left")
    one.presence.release(ada)
    await one.come("eve")
    for here in (one, two):
        await here.until_announced("ada joined", "bob joined", "bob left", "eve joined")


async def test_worker_that_begins_announces_nothing_of_the_past(worker: Start) -> None:
    one = await worker()
    await one.come("ada")
    two = await worker()
    assert two.presence.users == 1
    await one.come("bob")
    await two.until_announced("bob joined")


async def test_client_that_knows_tokens_shares_a_session_without_one_on_another_worker(worker: Start) -> None:
    one, two = await worker(), await worker()
    first = await one.come("ada")
    assert (await two.come("ada", token="hers")).id == first.id
    await counted(1, one, two)


async def test_session_that_comes_back_to_another_worker_neither_left_nor_joined(worker: Start) -> None:
    one, two = await worker(leave_delay=60.0), await worker(leave_delay=60.0)
    for _ in range(3):
        one.presence.release(await one.come("ada", token="hers"))
        await one.next_exchange()
        two.presence.release(await two.come("ada", "b", token="hers"))
        await two.next_exchange()
    await one.come("bob")
    await one.until_announced("ada joined", "bob joined")


async def test_held_name_is_held_on_every_worker(worker: Start) -> None:
    one, two = await worker(hold=60.0), await worker(hold=60.0)
    one.presence.release(await one.come("ada", token="hers"))
    for here in (one, two):
        await here.until_announced("ada joined", "ada left")
    with pytest.raises(UsernameTaken):
        await two.come("ada", token="mine")
    await two.come("ada", token="hers")


async def test_held_name_comes_free_on_every_worker(worker: Start) -> None:
    one, two = await worker(), await worker()
    one.presence.release(await one.come("ada", token="hers"))
    await two.until_announced("ada joined", "ada left")
    async with asyncio.timeout(10):
        while not two.presence.users:
            with contextlib.suppress(UsernameTaken):
                await two.come("ada", token="mine")
            await two.next_exchange()
            for session in two.evicted:  # Redis was so slow that the worker decided by itself
                two.presence.release(session)
            two.evicted.clear()


async def test_client_that_knows_tokens_does_not_take_over_from_another_worker_either(worker: Start) -> None:
    one, two = await worker(), await worker()
    one.presence.release(await one.come("ada"))
    await one.next_exchange()
    assert (await two.come("ada", token="hers")).id == "hers"
    await one.until_announced("ada joined", "ada left", "ada joined")
    with pytest.raises(UsernameTaken):
        await one.come("ada")


async def test_crowd_comes_and_goes_and_the_count_is_right(worker: Start) -> None:
    one, two = await worker(), await worker()
    crowd = [await (one if number % 2 else two).come(f"user{number}") for number in range(30)]
    await counted(30, one, two)
    for number, session in enumerate(crowd[:29]):
        (one if number % 2 else two).presence.release(session)
    await counted(1, one, two)
    assert len([event for event in one.announced if event.endswith("joined")]) == 10  # more would be noise


# Leases


async def test_users_of_a_dead_worker_leave(worker: Start) -> None:
    one, two = await worker(), await worker()
    await one.come("ada")
    await two.come("bob")
    await counted(2, one, two)
    one.line.cut = True
    await counted(1, two)
    await two.until_announced("ada joined", "bob joined", "ada left")


async def test_worker_that_was_taken_for_dead_brings_its_users_back(worker: Start) -> None:
    one, two = await worker(), await worker()
    ada, bob = await one.come("ada"), await one.come("bob")
    one.line.cut = True
    await counted(0, two)
    one.presence.release(bob)
    one.line.cut = False
    await counted(1, one, two)
    assert (ada.connections, one.evicted) == (1, [])


async def test_worker_that_ends_takes_its_users_along_at_once(worker: Start) -> None:
    one, two = await worker(), await worker()
    await one.come("ada")
    await counted(1, two)
    await one.presence.stop()
    await counted(0, two)


async def test_worker_that_ends_without_redis_says_when_its_users_leave(
    worker: Start, caplog: pytest.LogCaptureFixture
) -> None:
    one = await worker()
    one.line.cut = True
    await one.presence.stop()
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ["Redis does not answer, so the users of this worker leave the count in 1 s"]


# Outages


async def test_cut_off_worker_lets_people_in_on_its_own_word(worker: Start) -> None:
    one, two = await worker(), await worker()
    one.line.cut = True
    ada = await one.come("ada")
    with pytest.raises(UsernameTaken):
        await one.come("ada", "b")
    one.line.cut = False
    await counted(1, one, two)
    assert (one.evicted, ada.connections) == ([], 1)


async def test_name_given_twice_during_an_outage_stays_with_one_of_the_two(worker: Start) -> None:
    one, two = await worker(), await worker()
    one.line.cut = True
    mine, hers = await one.come("ada", "a"), await two.come("ada", "b")
    one.line.cut = False
    await one.until(lambda: one.evicted == [mine])
    assert (mine.refused, two.evicted) == (True, [])
    with pytest.raises(UsernameTaken):
        await one.come("ada", "a")
    one.presence.release(mine)
    await counted(1, one, two)
    assert hers.connections == 1


async def test_newcomer_that_gives_up_while_it_waits_leaves_nothing(worker: Start) -> None:
    one, two = await worker(), await worker()
    one.line.cut = True
    coming = asyncio.create_task(one.come("ada"))
    await asyncio.sleep(0)
    coming.cancel()
    await asyncio.wait({coming})
    one.line.cut = False
    await one.next_exchange()
    assert (one.presence.users, two.presence.users) == (0, 0)
    await two.come("ada", "b")


async def test_late_copy_of_a_call_changes_nothing(worker: Start) -> None:
    """It was given up and sent again, and reached Redis after all that followed."""
    one, two = await worker(), await worker()
    one.presence.release(await one.come("ghost"))
    await one.next_exchange()
    (claim,) = [call for call in one.line.calls if "claim" in verbs(call)]
    assert not await one.line.run("presence", *claim)
    await two.until_announced("ghost joined", "ghost left")
    await counted(0, one, two)


def verbs(call: tuple[Any, Any]) -> list[str]:
    return [operation[0] for operation in json.loads(call[1][2])]


async def test_older_presence_is_put_right(worker: Start, shared_redis: RunningRedis) -> None:
    """Redis is back with the messages, but with less of who came and left than it had acknowledged."""
    one, two = await worker(), await worker()
    ada, bob = await one.come("ada"), await one.come("bob")
    await counted(2, one, two)
    shared_redis.ask("SREM {portfolio-chat}:online bob")
    shared_redis.ask("HSET {portfolio-chat}:room version 1")
    await one.next_exchange()
    await counted(2, one, two)
    one.presence.release(ada)
    await counted(1, one, two)
    assert bob.connections == 1


async def test_visit_within_an_outage_leaves_nothing(worker: Start) -> None:
    """Under a name that the same address has on another worker, so that it joins that session and leaves in one go."""
    one, two = await worker(), await worker()
    ada = await two.come("ada")
    one.line.cut = True
    one.presence.release(await one.come("ada"))
    one.line.cut = False
    await one.next_exchange()
    two.presence.release(ada)
    await counted(0, one, two)


async def test_what_was_announced_during_an_outage_is_heard_after_it(worker: Start) -> None:
    one, two = await worker(), await worker()
    await one.come("ada")
    await two.until_announced("ada joined")
    two.line.cut = True
    for name in ("bob", "eve"):
        await one.come(name)
    two.line.cut = False
    await two.until_announced("ada joined", "bob joined", "eve joined")
    await counted(3, two)


async def test_presence_goes_on_when_redis_is_back(worker: Start, redis: RunningRedis) -> None:
    one, two = await worker(url=redis.url), await worker(url=redis.url)
    await one.come("ada")
    await two.until_announced("ada joined")
    redis.kill()
    bob = await one.come("bob")
    redis.start()
    for here in (one, two):
        await here.until(lambda here=here: here.announced == ["ada joined", "bob joined"])  # type: ignore[misc] # a default
    await counted(2, one, two)
    assert (bob.refused, one.evicted) == (False, [])


async def test_faulty_event_is_logged_and_passed_over(
    worker: Start, shared_redis: RunningRedis, caplog: pytest.LogCaptureFixture
) -> None:
    one = await worker()
    shared_redis.ask("XADD {portfolio-chat}:events * version none")
    await one.come("ada")
    await one.until_announced("ada joined")
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == ["The presence failed"]
