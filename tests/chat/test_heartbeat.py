"""The heartbeat, on a clock of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from app.chat.heartbeat import Heartbeat
from app.chat.registry import Connection, ConnectionRegistry
from app.exceptions import CloseCode
from tests.support.fakes import Clock, FakeSender, add

pytestmark = pytest.mark.anyio


class Ended(Exception):
    """The time that a test looks at is over."""


class Pinged(FakeSender):
    """Notes when it was pinged and closed, in seconds since the start."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.pings: list[float] = []
        self.ended: float | None = None

    def write(self, prepared: object) -> None:
        self.pings.append(round(self.clock.now - 1000, 3))

    def close(self, code: CloseCode) -> None:
        if self.ended is None:
            self.code, self.ended = code, round(self.clock.now - 1000, 3)


class Beating:
    """One silent client and one that answers every beat, and a clock that sleeping moves."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.registry = ConnectionRegistry(10, clock=self.clock)
        self.silent, self.talkative = self.join("silent")[1], self.join("talkative")[1]

    def join(self, name: str) -> tuple[Connection, Pinged]:
        connection, sender = add(self.registry, name), Pinged(self.clock)
        self.registry.open(connection, sender)
        return connection, sender

    async def beat(
        self, interval: float, timeout: float, until: float, stall: Callable[[float], float] = lambda _: 0.0
    ) -> None:
        """Runs the heartbeat for `until` seconds; `stall` adds to a sleep that begins at a given second."""

        async def sleep(seconds: float) -> None:
            self.clock.now += seconds + stall(self.clock.now - 1000)
            if self.clock.now - 1000 > until + 1e-6:
                raise Ended
            for connection, sender in self.registry.senders():
                if sender is self.talkative:
                    connection.last_seen = self.clock.now

        with pytest.raises(Ended):
            await Heartbeat(self.registry, interval, timeout, sleep).run()


@pytest.fixture
def beating() -> Beating:
    return Beating()


@pytest.mark.parametrize(
    ("interval", "timeout"), [(30.0, 60.0), (10.0, 100.0), (1.0, 60.0), (20.0, 60.0), (30.0, 45.0)]
)
async def test_everybody_is_pinged_each_interval(beating: Beating, interval: float, timeout: float) -> None:
    await beating.beat(interval, timeout, until=3 * interval)
    assert beating.talkative.pings == pytest.approx([interval, 2 * interval, 3 * interval], abs=0.01)


@pytest.mark.parametrize(("interval", "timeout"), [(30.0, 60.0), (10.0, 100.0), (1.0, 60.0), (20.0, 60.0)])
async def test_silent_client_is_closed_at_its_timeout_and_the_talkative_kept(
    beating: Beating, interval: float, timeout: float
) -> None:
    await beating.beat(interval, timeout, until=2 * timeout)
    assert beating.silent.code is CloseCode.SILENT
    assert beating.silent.ended is not None
    assert timeout <= beating.silent.ended <= timeout * 1.11
    assert beating.talkative.code is None


async def test_client_that_falls_silent_later_is_closed_counted_from_then(beating: Beating) -> None:
    late, sender = beating.join("late")
    late.last_seen = 1000 + 45
    await beating.beat(30, 60, until=200)
    assert sender.ended is not None
    assert 105 <= sender.ended <= 112


async def test_stall_gives_everybody_an_interval_before_anyone_is_closed(
    beating: Beating, caplog: pytest.LogCaptureFixture
) -> None:
    """A laptop that slept for an hour: the silent get 30 s from then on, and not a minute."""
    with caplog.at_level(logging.WARNING, "app"):
        await beating.beat(30, 60, until=3700, stall=lambda second: 3600 if round(second) == 12 else 0)
    assert beating.silent.ended is not None
    assert 3618 + 30 <= beating.silent.ended <= 3618 + 37
    assert beating.talkative.code is None
    assert len(caplog.records) == 1


async def test_stall_does_not_shorten_what_a_client_had(beating: Beating) -> None:
    """A client that was heard right before a short stall keeps its time."""
    late, sender = beating.join("late")
    late.last_seen = 1000 + 12
    await beating.beat(5, 60, until=200, stall=lambda second: 10 if round(second) == 10 else 0)
    assert sender.ended is not None
    assert sender.ended > 72


async def test_short_delays_are_no_stall(beating: Beating, caplog: pytest.LogCaptureFixture) -> None:
    await beating.beat(30, 60, until=100, stall=lambda _: 1.0)
    assert beating.silent.ended is not None
    assert beating.silent.ended <= 68
    assert not caplog.records


async def test_heartbeat_ends_when_cancelled(beating: Beating) -> None:
    task = asyncio.create_task(Heartbeat(beating.registry, 30, 60).run())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_other_work_is_called_at_each_beat() -> None:
    called: list[float] = []
    clock = Clock()

    async def sleep(seconds: float) -> None:
        if len(called) == 3:
            raise Ended
        clock.now += seconds

    registry = ConnectionRegistry(1, clock=clock)
    with pytest.raises(Ended):
        await Heartbeat(registry, 30.0, 60.0, sleep, lambda: called.append(clock.now - 1000)).run()
    assert called == [6.0, 12.0, 18.0]
