"""Tables of visitors who have left: each is empty when its time has passed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from app.chat.admission import ERASURES_WINDOW, FORGET_STEP, WRONG_TOKENS_WINDOW, Admission
from app.chat.credentials import Handshake
from app.chat.limits import Buckets
from app.chat.registry import ConnectionRegistry
from app.chat.rules import Rules
from app.config import Settings
from app.engines.presence import Session
from app.exceptions import ChatError
from app.message import Message
from tests.support.chat import Ruled
from tests.support.fakes import Clock, FakeSender

VISITORS = 20
WINDOW, SLOW_MODE = 10.0, 30.0


class Visited:
    """An admission on a clock of the test's own, and visitors who did all that is limited, and left."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.registry = ConnectionRegistry(100, 10, clock=self.clock)
        settings = Settings(engine_url="memory://", owner_token="a" * 32, rate_limit_window=WINDOW)
        ruled = Ruled(settings, Rules(slow_mode=SLOW_MODE))
        self.credentials = ruled.credentials
        self.admission = Admission(settings, self.registry, self.credentials, ruled.moderation)
        self.admission.on_rules()
        for number in range(VISITORS):
            self.visit(f"visitor{number}", f"203.0.113.{number}")

    def visit(self, name: str, address: str) -> None:
        handshake = Handshake(name, address, address, ("chat.v1",))
        session = self.admission.check(handshake)
        connection = self.registry.add(session, address)
        self.registry.open(connection, FakeSender())
        self.admission.check_rate(connection)
        self.admission.on_accepted(session)
        self.admission.on_stored([Message("id", session.id, name, "x", "x", 0.0, seq=1)])
        token = self.credentials.issue(name, session.id)
        self.admission.authorize_erasure(handshake, token)
        self.admission.authorize_deletion(handshake, token)
        with contextlib.suppress(ChatError):
            self.admission.authorize(handshake, "a wrong token")
        self.registry.remove(connection)

    def table(self, name: str) -> dict[str, tuple[float, float]]:
        buckets: Buckets = getattr(self.admission, name)
        return buckets._spent


@pytest.fixture
def visited() -> Visited:
    return Visited()


TABLES = {
    "_messages": WINDOW,
    "_messages_by_address": WINDOW,
    "_joins": WINDOW,
    "_wrong_tokens": WRONG_TOKENS_WINDOW,
    "_erasures": ERASURES_WINDOW,
    "_own_deletions": ERASURES_WINDOW,
    "_slow_accepted": SLOW_MODE,
    "_slow_stored": SLOW_MODE,
}


@pytest.mark.parametrize(("name", "seconds"), TABLES.items())
def test_rates_are_forgotten_when_their_time_has_passed_and_not_before(
    visited: Visited, name: str, seconds: float
) -> None:
    visited.clock.now += seconds - 0.1
    visited.admission.forget()
    assert len(visited.table(name)) == VISITORS
    visited.clock.now += 0.1
    visited.admission.forget()
    assert not visited.table(name)


def test_no_table_of_rates_is_left_out(visited: Visited) -> None:
    assert {name for name, value in vars(visited.admission).items() if isinstance(value, Buckets)} == set(TABLES)


def test_a_bounded_number_of_rates_is_forgotten_at_once(visited: Visited) -> None:
    buckets = visited.admission._joins
    for number in range(FORGET_STEP + 5):
        buckets._spent[f"{number}"] = (1.0, visited.clock.now)
    visited.clock.now += WINDOW
    visited.admission.forget()
    assert len(buckets._spent) == VISITORS + 5


@pytest.mark.parametrize("table", ["_slots", "_addresses", "_senders"])
def test_registry_keeps_nothing_of_visitors_who_left(visited: Visited, table: str) -> None:
    assert not getattr(visited.registry, table)


def test_address_that_only_asked_for_a_slot_is_not_kept() -> None:
    registry = ConnectionRegistry(10, 2)
    registry.check_capacity("203.0.113.1")
    registry.remove(registry.add(Session("ada", "a"), None))
    assert not registry._addresses


def test_server_forgets_rates_by_itself(client: Callable[..., TestClient]) -> None:
    server = client(rate_limit_messages=10, rate_limit_window=0.1, ws_heartbeat_interval=0.05, ws_heartbeat_timeout=30)
    spent = server.app.state.room.admission._messages._spent  # type: ignore[attr-defined] # it is Starlette's
    with server.websocket_connect("/ws/chat?username=ada") as ada:
        ada.send_json({"type": "message", "content": "Hello"})
        while ada.receive_json()["type"] != "message":
            pass
        while spent:
            ada.receive_json()  # the heartbeat's pings pass the time
