"""Expensive work: how much of the event loop it gets, and whose turn is next."""

from __future__ import annotations

import asyncio

import pytest

from app.chat.throttle import LOOP_SHARE, TOLERANCE, FairThrottle

pytestmark = pytest.mark.anyio

COST = 0.01  # seconds


class Clock:
    """Time that passes when work is done, and when everybody sleeps."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def work(throttle: FairThrottle, key: str, done: list[str], clock: Clock, cost: float = COST) -> None:
    async with throttle.turn(key):
        done.append(key)
        clock.now += cost


async def test_expensive_work_gets_no_more_than_its_share(clock: Clock) -> None:
    throttle = FairThrottle(clock, clock.sleep)
    await asyncio.gather(*(work(throttle, str(number), [], clock) for number in range(5)))
    assert clock.now == pytest.approx(4 * COST / LOOP_SHARE + COST)


async def test_cheap_work_waits_for_nothing(clock: Clock) -> None:
    throttle = FairThrottle(clock, clock.sleep)
    for _ in range(10):
        with pytest.raises(StopIteration):  # it ended without having waited
            work(throttle, "ada", [], clock, cost=TOLERANCE * LOOP_SHARE / 10).send(None)


async def test_one_key_has_one_turn_at_a_time(clock: Clock) -> None:
    done: list[str] = []
    throttle = FairThrottle(clock, clock.sleep)
    await asyncio.gather(*(work(throttle, key, done, clock) for key in [*["greedy"] * 10, "modest"]))
    assert done.index("modest") == 2  # one turn was over when it came, one had begun


async def test_turns_of_one_key_come_in_order(clock: Clock) -> None:
    done: list[int] = []
    throttle = FairThrottle(clock, clock.sleep)

    async def note(number: int) -> None:
        async with throttle.turn("ada"):
            done.append(number)
            clock.now += COST

    await asyncio.gather(*map(note, range(10)))
    assert done == list(range(10))


async def test_one_that_gives_up_lets_the_others_have_their_turn(clock: Clock) -> None:
    done: list[str] = []
    throttle = FairThrottle(clock, clock.sleep)
    tasks = [asyncio.create_task(work(throttle, key, done, clock)) for key in ("first", "ada", "ada", "bob")]
    await asyncio.sleep(0)
    tasks[1].cancel()
    tasks[2].cancel()
    await tasks[3]
    assert done == ["first", "bob"]


async def test_work_that_fails_ends_its_turn() -> None:
    throttle = FairThrottle()
    with pytest.raises(ZeroDivisionError):
        async with throttle.turn("ada"):
            raise ZeroDivisionError
    async with throttle.turn("ada"):
        pass


async def test_nothing_is_kept_of_a_key() -> None:
    throttle = FairThrottle()
    for number in range(10):
        async with throttle.turn(str(number)):
            pass
    assert not len(throttle._queues)
