"""Slow mode, on a clock of the test's own; the rest of admission is tested at the wire."""

from __future__ import annotations

import pytest

from app.chat.admission import Admission
from app.chat.registry import Connection, ConnectionRegistry
from app.chat.rules import Rules
from app.engines.presence import Session
from app.exceptions import SlowMode
from app.message import Message
from tests.support.chat import Ruled, settings_of
from tests.support.fakes import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ruled() -> Ruled:
    return Ruled(settings_of(), Rules(slow_mode=60.0))


@pytest.fixture
def admission(clock: Clock, ruled: Ruled) -> Admission:
    registry = ConnectionRegistry(10, clock=clock)
    admission = Admission(settings_of(), registry, ruled.credentials, ruled.moderation)
    admission.on_rules()
    return admission


def connection_of(role: str = "visitor") -> Connection:
    return Connection(Session("ada", "a", "session", supports_tokens=True, role=role), 0.0, None)


def stored(role: str = "visitor") -> Message:
    return Message("id", "session", "ada", "x", "x", 0.0, role=role, seq=1)


def post(admission: Admission, connection: Connection) -> None:
    admission.check_rate(connection)
    admission.on_accepted(connection.session)


def test_post_takes_a_turn_until_it_is_known_not_to_be_stored(admission: Admission, clock: Clock) -> None:
    ada = connection_of()
    post(admission, ada)
    with pytest.raises(SlowMode):
        admission.check_rate(ada)
    admission.on_not_stored(ada.session)
    post(admission, ada)
    admission.on_stored([stored()])
    clock.now += 59.9
    with pytest.raises(SlowMode):
        admission.check_rate(ada)
    clock.now += 0.2
    post(admission, ada)


def test_turn_taken_at_another_worker_is_not_refunded_with_a_post_of_this_one(admission: Admission) -> None:
    ada = connection_of()
    post(admission, ada)  # with a nonce that was used before
    admission.on_stored([stored()])
    admission.on_not_stored(ada.session)
    with pytest.raises(SlowMode):
        admission.check_rate(ada)


def test_owner_never_waits(admission: Admission) -> None:
    owner = connection_of("owner")
    for _ in range(3):
        post(admission, owner)
        admission.on_stored([stored("owner")])


def test_other_rules_end_no_wait_but_another_slow_mode_does(admission: Admission, ruled: Ruled) -> None:
    ada = connection_of()
    post(admission, ada)
    ruled.set(Rules(slow_mode=60.0, bans={}, paused=False))
    admission.on_rules()
    with pytest.raises(SlowMode):
        admission.check_rate(ada)
    ruled.set(Rules(slow_mode=30.0))
    admission.on_rules()
    post(admission, ada)
    ruled.set(Rules())
    admission.on_rules()
    for _ in range(3):
        post(admission, ada)
        admission.on_stored([stored()])
