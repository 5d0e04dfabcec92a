"""Connections: capacity, and a fan-out in which people come and go."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.chat.registry import Connection, ConnectionRegistry
from app.engines.presence import Session
from app.exceptions import ServerFull, TooManyConnections
from app.wire.frames import PreparedFrames
from tests.support.fakes import Clock, FakeSender, add

PREPARED = PreparedFrames([b'{"type":"ping"}'])


class SlowSender(FakeSender):
    """Takes time to be written to, and does something meanwhile."""

    def __init__(self, clock: Clock, seconds: float, meanwhile: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.clock = clock
        self.seconds = seconds
        self.meanwhile = meanwhile

    def write(self, prepared: PreparedFrames) -> None:
        super().write(prepared)
        self.clock.now += self.seconds
        self.meanwhile()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(clock: Clock) -> ConnectionRegistry:
    return ConnectionRegistry(3, clock=clock)


def fill(registry: ConnectionRegistry, count: int, clock: Clock, seconds: float = 0.0) -> list[FakeSender]:
    senders: list[FakeSender] = []
    for number in range(count):
        senders.append(SlowSender(clock, seconds))
        registry.open(add(registry, f"user{number}"), senders[-1])
    return senders


def test_capacity_is_exact(registry: ConnectionRegistry) -> None:
    for name in ("ada", "ada", "bob"):
        add(registry, name)
    with pytest.raises(ServerFull):
        add(registry, "ada")
    assert len(registry) == 3


@pytest.mark.parametrize("opened", [True, False])
def test_slot_is_freed_exactly_once(registry: ConnectionRegistry, opened: bool) -> None:
    stays, goes = add(registry, "ada"), add(registry, "ada")
    if opened:
        registry.open(goes, FakeSender())
    registry.remove(goes)
    registry.remove(goes)
    assert (len(registry), stays in registry, goes in registry) == (1, True, False)
    assert registry.senders() == []


def test_connection_was_heard_when_it_came(registry: ConnectionRegistry, clock: Clock) -> None:
    clock.now = 1234.5
    assert add(registry, "ada").last_seen == 1234.5


def test_broadcast_reaches_all_that_are_open(registry: ConnectionRegistry) -> None:
    connections: list[Connection] = [add(registry, name) for name in ("ada", "bob", "eve")]
    senders = [FakeSender(), FakeSender()]
    for connection, sender in zip(connections, senders, strict=False):
        registry.open(connection, sender)
    assert list(registry.broadcast(PREPARED)) == []
    assert [len(sender.frames) for sender in senders] == [1, 1]


def test_newcomer_in_the_middle_of_a_broadcast_is_not_written_to(clock: Clock) -> None:
    registry = ConnectionRegistry(1000, clock=clock)
    fill(registry, 64, clock, seconds=1.0)
    late = FakeSender()
    for _ in registry.broadcast(PREPARED):
        registry.open(add(registry, "late"), late)
    assert late.frames == []
    assert len(registry) == 65


def test_leaver_in_the_middle_of_a_broadcast_disturbs_nobody(clock: Clock) -> None:
    registry = ConnectionRegistry(1000, clock=clock)
    senders = fill(registry, 100, clock, seconds=1.0)
    for _ in registry.broadcast(PREPARED):
        for connection, _sender in registry.senders()[::2]:
            registry.remove(connection)
    assert all(sender.frames for sender in senders[1::2])


def test_leaver_while_another_is_written_to_disturbs_nobody(clock: Clock) -> None:
    registry = ConnectionRegistry(10, clock=clock)
    senders: list[FakeSender] = []
    for name in ("ada", "bob", "eve"):
        connection = add(registry, name)
        senders.append(SlowSender(clock, 0, lambda leaver=connection: registry.remove(leaver)))  # type: ignore[misc] # no type for a default
        registry.open(connection, senders[-1])
    list(registry.broadcast(PREPARED))
    assert [len(sender.frames) for sender in senders] == [1, 1, 1]
    assert len(registry) == 0


@pytest.mark.parametrize(("seconds", "turns"), [(0.0, 0), (1.0, 4), (0.00005, 1)])
def test_slow_fan_out_gives_the_event_loop_its_turn(clock: Clock, seconds: float, turns: int) -> None:
    registry = ConnectionRegistry(1000, clock=clock)
    fill(registry, 200, clock, seconds)
    assert len(list(registry.broadcast(PREPARED))) == turns


def test_time_between_turns_does_not_count(clock: Clock) -> None:
    registry = ConnectionRegistry(1000, clock=clock)
    fill(registry, 256, clock, seconds=0.00003)  # 64 take 2 ms, and a turn is due after 4
    turns = 0
    for _ in registry.broadcast(PREPARED):
        turns += 1
        clock.now += 60
    assert turns == 1


def test_capacity_of_an_address_is_exact_and_given_back(clock: Clock) -> None:
    registry = ConnectionRegistry(10, 2, clock)
    held = []
    for name in ("ada", "bob"):
        registry.check_capacity("1.2.3.4")
        held.append(registry.add(Session(name, "a"), "1.2.3.4"))
    with pytest.raises(TooManyConnections):
        registry.check_capacity("1.2.3.4")
    registry.check_capacity("5.6.7.8")
    registry.check_capacity(None)
    registry.remove(held[0])
    registry.remove(held[0])
    registry.check_capacity("1.2.3.4")
    registry.add(Session("eve", "a"), "1.2.3.4")
    with pytest.raises(TooManyConnections):
        registry.check_capacity("1.2.3.4")
