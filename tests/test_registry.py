"""Who is here: capacity, names, and a fan-out in which people come and go."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.batch import Batch
from app.exceptions import ServerFull, TooManyConnections, UsernameTaken
from app.registry import HOLD, Connection, ConnectionRegistry, Session
from tests.fakes import Clock, FakeOutbox, admit

BATCH = Batch([b'{"type":"ping"}'])


class SlowOutbox(FakeOutbox):
    """Takes time to be written to, and does something meanwhile."""

    def __init__(self, clock: Clock, seconds: float, meanwhile: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.clock = clock
        self.seconds = seconds
        self.meanwhile = meanwhile

    def write(self, batch: Batch) -> None:
        super().write(batch)
        self.clock.now += self.seconds
        self.meanwhile()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(clock: Clock) -> ConnectionRegistry:
    return ConnectionRegistry(3, clock=clock)


def fill(registry: ConnectionRegistry, count: int, clock: Clock, seconds: float = 0.0) -> list[FakeOutbox]:
    outboxes: list[FakeOutbox] = []
    for number in range(count):
        outboxes.append(SlowOutbox(clock, seconds))
        registry.open(admit(registry, f"user{number}", "a"), outboxes[-1])
    return outboxes


def test_capacity_is_exact(registry: ConnectionRegistry) -> None:
    for name in ("ada", "ada", "bob"):
        admit(registry, name, "a")
    with pytest.raises(ServerFull):
        admit(registry, "ada", "a")
    assert len(registry) == 3


def test_refused_newcomer_holds_nothing(registry: ConnectionRegistry) -> None:
    held = [admit(registry, name, "a") for name in ("ada", "bob", "eve")]
    with pytest.raises(ServerFull):
        admit(registry, "mallory", "b")
    registry.remove(held[0])
    with pytest.raises(UsernameTaken):
        admit(registry, "bob", "b")
    assert (len(registry), registry.users) == (2, 2)
    admit(registry, "mallory", "c")  # neither the slot nor the name was taken


@pytest.mark.parametrize("opened", [True, False])
def test_slot_is_given_back_exactly_once(registry: ConnectionRegistry, opened: bool) -> None:
    stays, goes = admit(registry, "ada", "a"), admit(registry, "ada", "a")
    if opened:
        registry.open(goes, FakeOutbox())
    registry.remove(goes)
    registry.remove(goes)
    assert (len(registry), registry.users, stays.session.connections) == (1, 1, 1)
    assert registry.outboxes() == []


def test_name_is_shared_with_the_same_address_alone(registry: ConnectionRegistry) -> None:
    first = admit(registry, "Ada", "a")
    assert admit(registry, "aDA", "a").session is first.session
    with pytest.raises(UsernameTaken):
        admit(registry, "ada", "b")
    assert first.session.username == "Ada"


def test_users_are_counted_once_whatever_they_have_open(registry: ConnectionRegistry) -> None:
    connections = [admit(registry, name, "a") for name in ("ada", "ADA", "bob")]
    counts = [registry.users]
    for connection in connections:
        registry.remove(connection)
        counts.append(registry.users)
    assert counts == [2, 2, 1, 0]


def test_name_of_who_can_prove_it_is_held_until_it_is_forgotten(registry: ConnectionRegistry) -> None:
    connection = registry.admit(Session("ada", "a", provable=True), None)
    registry.forget(connection.session)  # still connected, so nothing happens
    registry.remove(connection)
    with pytest.raises(UsernameTaken):
        admit(registry, "ada", "b")
    registry.forget(connection.session)
    registry.forget(connection.session)
    assert admit(registry, "ada", "b").session is not connection.session


def test_connection_was_heard_when_it_came(registry: ConnectionRegistry, clock: Clock) -> None:
    clock.now = 1234.5
    assert admit(registry, "ada", "a").heard == 1234.5


def test_broadcast_reaches_all_that_are_open_but_the_skipped(registry: ConnectionRegistry) -> None:
    connections: list[Connection] = [admit(registry, name, "a") for name in ("ada", "bob", "eve")]
    outboxes = [FakeOutbox(), FakeOutbox()]
    for connection, outbox in zip(connections, outboxes, strict=False):
        registry.open(connection, outbox)
    assert list(registry.broadcast(BATCH, skip=connections[0])) == []
    assert [len(outbox.frames) for outbox in outboxes] == [0, 1]


def test_newcomer_in_the_middle_of_a_broadcast_is_not_written_to(clock: Clock) -> None:
    registry = ConnectionRegistry(1000, clock=clock)
    fill(registry, 64, clock, seconds=1.0)
    late = FakeOutbox()
    for _ in registry.broadcast(BATCH):
        registry.open(admit(registry, "late", "a"), late)
    assert late.frames == []
    assert len(registry) == 65


def test_leaver_in_the_middle_of_a_broadcast_disturbs_nobody(clock: Clock) -> None:
    registry = ConnectionRegistry(1000, clock=clock)
    outboxes = fill(registry, 100, clock, seconds=1.0)
    for _ in registry.broadcast(BATCH):
        for connection, _outbox in registry.outboxes()[::2]:
            registry.remove(connection)
    assert all(outbox.frames for outbox in outboxes[1::2])


def test_leaver_while_another_is_written_to_disturbs_nobody(clock: Clock) -> None:
    registry = ConnectionRegistry(10, clock=clock)
    outboxes: list[FakeOutbox] = []
    for name in ("ada", "bob", "eve"):
        connection = admit(registry, name, "a")
        outboxes.append(SlowOutbox(clock, 0, lambda gone=connection: registry.remove(gone)))  # type: ignore[misc]
        registry.open(connection, outboxes[-1])
    list(registry.broadcast(BATCH))
    assert [len(outbox.frames) for outbox in outboxes] == [1, 1, 1]
    assert len(registry) == 0


@pytest.mark.parametrize(("seconds", "turns"), [(0.0, 0), (1.0, 4), (0.00005, 1)])
def test_slow_fan_out_gives_the_event_loop_its_turn(clock: Clock, seconds: float, turns: int) -> None:
    registry = ConnectionRegistry(1000, clock=clock)
    fill(registry, 200, clock, seconds)
    assert len(list(registry.broadcast(BATCH))) == turns


def test_time_between_turns_does_not_count(clock: Clock) -> None:
    registry = ConnectionRegistry(1000, clock=clock)
    fill(registry, 256, clock, seconds=0.00003)  # 64 take 2 ms, and a turn is due after 4
    turns = 0
    for _ in registry.broadcast(BATCH):
        turns += 1
        clock.now += 60
    assert turns == 1


def test_name_of_who_can_not_prove_it_is_free_as_soon_as_it_is_left(registry: ConnectionRegistry) -> None:
    registry.remove(admit(registry, "ada", "a"))
    assert admit(registry, "ada", "b").session.address == "b"


def test_held_name_comes_free_with_time(registry: ConnectionRegistry, clock: Clock) -> None:
    registry.remove(registry.admit(Session("ada", "a", provable=True), None))
    clock.now += HOLD - 0.1
    with pytest.raises(UsernameTaken):
        admit(registry, "ADA", "a")
    clock.now += 0.1
    admit(registry, "ADA", "a")


def test_who_proves_to_be_the_holder_gets_the_name_back(registry: ConnectionRegistry) -> None:
    first = registry.admit(Session("ada", "a", "id", provable=True), None)
    assert registry.admit(Session("ADA", "b", "id", provable=True), None).session is first.session
    registry.remove(first)
    with pytest.raises(UsernameTaken):
        registry.admit(Session("ada", "a", "other", provable=True), None)


def test_capacity_of_an_address_is_exact_and_given_back(clock: Clock) -> None:
    registry = ConnectionRegistry(10, 2, clock)
    held = []
    for name in ("ada", "bob"):
        registry.check_capacity("1.2.3.4")
        held.append(registry.admit(Session(name, "a"), "1.2.3.4"))
    with pytest.raises(TooManyConnections):
        registry.check_capacity("1.2.3.4")
    registry.check_capacity("5.6.7.8")
    registry.check_capacity(None)
    registry.remove(held[0])
    registry.remove(held[0])
    registry.check_capacity("1.2.3.4")
    registry.admit(Session("eve", "a"), "1.2.3.4")
    with pytest.raises(TooManyConnections):
        registry.check_capacity("1.2.3.4")
