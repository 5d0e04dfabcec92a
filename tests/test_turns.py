"""Expensive work: how much of the event loop it gets, and whose turn is next."""

from __future__ import annotations

import asyncio

import pytest

from app.turns import BURST, BUSY_PATIENCE, SHARE, Turns

pytestmark = pytest.mark.anyio

COST = 0.01  # seconds


class Clock:
    """Time that passes when it is told to, and a little with every look at it."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 0.0001
        return self.now


async def work(turns: Turns, key: str, done: list[str], clock: Clock, cost: float = COST) -> None:
    async with turns.take(key):
        done.append(key)
        clock.now += cost


async def pass_time(clock: Clock) -> None:
    while True:
        await asyncio.sleep(0)
        clock.now += 0.001


async def test_expensive_work_gets_no_more_than_its_share() -> None:
    clock, done = Clock(), list[str]()
    turns = Turns(lambda: False, clock)
    passing = asyncio.create_task(pass_time(clock))
    await asyncio.gather(*(work(turns, str(number), done, clock) for number in range(5)))
    passing.cancel()
    assert clock.now >= 4 * (SHARE * COST - BURST) + COST


async def test_one_key_has_one_turn_at_a_time() -> None:
    clock, done = Clock(), list[str]()
    turns = Turns(lambda: False, clock)
    passing = asyncio.create_task(pass_time(clock))
    await asyncio.gather(*(work(turns, key, done, clock) for key in [*["greedy"] * 10, "modest"]))
    passing.cancel()
    assert len(done) == 11
    assert done.index("modest") <= 2


async def test_turns_of_one_key_come_in_order() -> None:
    clock, done = Clock(), list[int]()
    turns = Turns(lambda: False, clock)
    passing = asyncio.create_task(pass_time(clock))

    async def note(number: int) -> None:
        async with turns.take("ada"):
            done.append(number)
            clock.now += COST

    await asyncio.gather(*map(note, range(10)))
    passing.cancel()
    assert done == list(range(10))


async def test_cheap_work_waits_for_nothing() -> None:
    clock = Clock()
    turns = Turns(lambda: False, clock)
    for _ in range(100):
        clock.now += 0.01
        with pytest.raises(StopIteration):  # it ended without having waited
            work(turns, "ada", [], clock, cost=0.0).send(None)


async def test_busy_store_holds_up_for_a_while_only() -> None:
    clock, done = Clock(), list[str]()
    turns = Turns(lambda: True, clock)
    waiting = asyncio.create_task(work(turns, "ada", done, clock))
    await asyncio.sleep(0.01)
    assert not done
    clock.now += BUSY_PATIENCE
    await asyncio.wait_for(waiting, 5)
    assert done == ["ada"]


async def test_one_that_gives_up_lets_the_others_have_their_turn() -> None:
    clock, done = Clock(), list[str]()
    turns = Turns(lambda: True, clock)
    tasks = [asyncio.create_task(work(turns, key, done, clock)) for key in ("ada", "ada", "bob")]
    await asyncio.sleep(0.01)
    for task in tasks[:2]:
        task.cancel()
    clock.now += BUSY_PATIENCE
    await asyncio.wait_for(tasks[2], 5)
    assert done == ["bob"]


async def test_work_that_fails_ends_its_turn() -> None:
    turns = Turns(lambda: False)
    with pytest.raises(ZeroDivisionError):
        async with turns.take("ada"):
            raise ZeroDivisionError
    async with turns.take("ada"):
        pass


async def test_nothing_is_kept_of_a_key() -> None:
    turns = Turns(lambda: False)
    for number in range(10):
        async with turns.take(str(number)):
            pass
    assert not len(turns._queues)
