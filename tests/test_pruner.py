"""The pruner: how much it takes at once, when it goes on, and that nothing ends it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from app.engines.memory import MemoryEngine
from app.exceptions import StoreError
from app.pruner import DAY, INTERVAL, PAUSE, Pruner
from tests.fakes import draft
from tests.test_engines import BATCH, Room, opened

pytestmark = pytest.mark.anyio

NOW = 1e9


class Sleeper:
    """Sleeps in no time, `times` times, and then stops the pruner."""

    def __init__(self, times: int) -> None:
        self.slept: list[float] = []
        self._times = times

    async def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)
        if len(self.slept) == self._times:
            raise asyncio.CancelledError


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    room = await opened(MemoryEngine(100, BATCH))
    yield room
    await room.engine.stop()


async def fill(room: Room, *ages: float) -> None:
    """Messages so many days old."""
    before = len(room.delivered)
    room.publish(*[draft("x", timestamp=NOW - age * DAY) for age in ages])
    await room.until(delivered=before + len(ages))


async def prune(room: Room, days: float, limit: int, looks: int = 1) -> list[float]:
    """How long it slept after each look."""
    sleeper = Sleeper(looks)
    with pytest.raises(asyncio.CancelledError):
        await Pruner(room.engine, days, limit, lambda: NOW, sleeper).run()
    return sleeper.slept


async def left(room: Room) -> list[int]:
    return [message.seq for message in await room.engine.page(0, 10_000)]


async def test_what_is_too_old_goes_up_to_the_first_that_is_not(room: Room) -> None:
    await fill(room, 9, 8, 7.01, 7, 8, 1)
    assert await prune(room, 7, 0) == [INTERVAL]
    assert await left(room) == [4, 5, 6]
    assert await prune(room, 6, 0) == [INTERVAL]
    assert await left(room) == [6]
    assert (room.engine.pruned, len(room.changes)) == (5, 2)


async def test_what_is_too_much_goes_whatever_its_age(room: Room) -> None:
    await fill(room, *[0.0] * 12)
    assert await prune(room, 0, 10) == [INTERVAL]
    assert await left(room) == list(range(3, 13))
    assert await prune(room, 0, 1) == [INTERVAL]
    assert await left(room) == [12]


async def test_what_is_too_old_goes_also_while_there_is_too_much(room: Room) -> None:
    await fill(room, *[9.0] * 5, *[1.0] * 5)
    assert await prune(room, 7, 8) == [INTERVAL]
    assert await left(room) == [6, 7, 8, 9, 10]


async def test_without_limits_everything_stays(room: Room) -> None:
    await fill(room, 10_000, 1)
    assert await prune(room, 0, 0) == [INTERVAL]
    assert (await left(room), room.changes) == ([1, 2], [])


@pytest.mark.parametrize(("days", "limit"), [(7.0, 0), (0.0, 500)])
async def test_much_goes_in_steps_with_pauses(room: Room, days: float, limit: int) -> None:
    step = room.engine.prune_step
    await fill(room, *[8.0] * (2 * step + 10), *[1.0] * 500)
    assert await prune(room, days, limit, looks=4) == [PAUSE, PAUSE, INTERVAL, INTERVAL]
    assert await left(room) == list(range(2 * step + 11, 2 * step + 511))
    assert [change.pruned for change in room.changes] == [step, 2 * step, 2 * step + 10]


async def test_what_is_kept_for_nonces_goes_in_steps_with_pauses(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    left = iter([True, True, False])

    async def tidy() -> bool:
        return next(left)

    monkeypatch.setattr(room.engine, "tidy", tidy)
    assert await prune(room, 7, 0, looks=3) == [PAUSE, PAUSE, INTERVAL]


async def test_hidden_messages_are_no_hindrance(room: Room) -> None:
    await fill(room, 9, 9, 1, 9)
    await room.engine.hide("id", room.delivered[2].id)
    await prune(room, 7, 0)
    assert await left(room) == []
    await fill(room, 1)
    await prune(room, 7, 0)
    assert await left(room) == [5]


async def test_store_that_fails_is_tried_again_and_our_own_faults_are_logged(
    room: Room, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await fill(room, 9, 1)
    for fault, logged in ((StoreError("away"), 0), (RuntimeError("a bug"), 1)):

        async def fail(after: int, limit: int, fault: Exception = fault) -> object:
            raise fault

        with monkeypatch.context() as patch:
            patch.setattr(room.engine, "page", fail)
            assert await prune(room, 7, 0) == [INTERVAL]
        assert len(caplog.records) == logged
    await prune(room, 7, 0)
    assert await left(room) == [2]
