"""The door's slow mode, on a clock of the test's own; the rest of the door is tested at the wire."""

from __future__ import annotations

import pytest

from app.chat.admission import Admission
from app.chat.registry import Connection, ConnectionRegistry
from app.chat.rules import Rules
from app.config import Settings
from app.engines.presence import Session
from app.exceptions import SlowMode
from app.message import Message
from tests.support.fakes import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def door(clock: Clock) -> Admission:
    door = Admission(Settings(engine_url="memory://"), ConnectionRegistry(10, clock=clock), "secret")
    door.obey(Rules(slow_mode=60.0))
    return door


def somebody(role: str = "visitor") -> Connection:
    return Connection(Session("ada", "a", "session", supports_tokens=True, role=role), 0.0, None)


def stored(role: str = "visitor") -> Message:
    return Message("id", "session", "ada", "x", "x", 0.0, role=role, seq=1)


def post(door: Admission, connection: Connection) -> None:
    door.check_rate(connection)
    door.note_post(connection.session)


def test_post_takes_a_turn_until_it_is_known_not_to_be_stored(door: Admission, clock: Clock) -> None:
    ada = somebody()
    post(door, ada)
    with pytest.raises(SlowMode):
        door.check_rate(ada)
    door.forget_post(ada.session)
    post(door, ada)
    door.note_stored([stored()])
    clock.now += 59.9
    with pytest.raises(SlowMode):
        door.check_rate(ada)
    clock.now += 0.2
    post(door, ada)


def test_what_another_worker_stored_is_not_forgotten_with_a_post_of_this_one(door: Admission) -> None:
    ada = somebody()
    post(door, ada)  # with a nonce that was used before
    door.note_stored([stored()])
    door.forget_post(ada.session)
    with pytest.raises(SlowMode):
        door.check_rate(ada)


def test_owner_never_waits(door: Admission) -> None:
    owner = somebody("owner")
    for _ in range(3):
        post(door, owner)
        door.note_stored([stored("owner")])
