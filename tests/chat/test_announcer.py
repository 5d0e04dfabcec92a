"""The announcer: who must go when the rules change, and what everybody is told of the room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.chat import announcer
from app.chat.announcer import Announcer
from app.chat.registry import Connection, ConnectionRegistry
from app.chat.rules import Ban, Rules
from app.engines.presence import Roster, Session
from app.exceptions import CloseCode
from tests.support.fakes import FakeOutbox

pytestmark = pytest.mark.anyio


class Hall:
    """An announcer and those who hear it."""

    def __init__(self) -> None:
        self.came = 0
        self.registry = ConnectionRegistry(100)
        self.roster = Roster("owner")
        self.announcer = Announcer(self.registry, self.roster, 10, self.note)

    def note(self) -> None:
        self.came += 1

    async def enter(self, name: str, role: str = "visitor", key: str | None = None) -> FakeOutbox:
        session = await self.roster.claim(Session(name, "a", id=name, role=role))
        connection, outbox = self.registry.add(session, key), FakeOutbox()
        self.registry.open(connection, outbox)
        return outbox

    def obey(self, rules: Rules) -> None:
        def is_banned(session: Session, key: str | None) -> bool:
            return session.role != "owner" and rules.refuse(session.username, session.id, key)

        self.announcer.obey(rules, is_banned)


@pytest.fixture
async def hall(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hall]:
    monkeypatch.setattr(announcer, "DELAY", 0)
    hall = Hall()
    await hall.announcer.start()
    yield hall
    await hall.announcer.stop()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_who_is_banned_by_name_session_or_address_must_go_and_nobody_else(hall: Hall) -> None:
    eve, tab = await hall.enter("Eve"), await hall.enter("eve")
    session, address = await hall.enter("mallory"), await hall.enter("trudy", key="bad")
    owner, ada = await hall.enter("owner", "owner", "bad"), await hall.enter("ada", key="good")
    bans = (Ban(username="eve"), Ban(username="x", session="mallory"), Ban(username="y", mark="bad", reason="secret"))
    hall.obey(Rules(bans={ban.username: ban for ban in bans}))
    for outbox in (eve, tab, session, address):
        assert outbox.code is CloseCode.REMOVED
        assert [frame["data"] for frame in outbox.of("error")] == [{"code": "banned"}]
        assert "secret" not in str(outbox.frames)
    assert [owner.code, ada.code] == [None, None]


async def test_room_is_told_once_for_changes_that_come_together_and_not_for_none(hall: Hall) -> None:
    ada = await hall.enter("ada")
    hall.obey(Rules(bans={"eve": Ban(username="eve")}))
    await settle()
    assert ada.of("room") == []
    hall.obey(Rules(paused=True))
    hall.obey(Rules(paused=True, slow_mode=2))
    await ada.until("room")
    await settle()
    assert [frame["data"] for frame in ada.of("room")] == [{"paused": True, "slow_mode": 2.0, "owner_online": False}]


async def test_owner_s_coming_is_told_and_noted_once(hall: Hall) -> None:
    ada = await hall.enter("ada")
    for _ in range(2):
        await hall.enter("owner", "owner")
    await ada.until("room")
    await settle()
    assert [frame["data"]["owner_online"] for frame in ada.of("room")] == [True]
    assert hall.came == 1
    hall.roster.release(hall.roster._sessions["owner"])
    hall.roster.release(hall.roster._sessions["owner"])
    await ada.until("room", 2)
    assert [frame["data"]["owner_online"] for frame in ada.of("room")] == [True, False]
    assert (hall.came, isinstance(next(iter(hall.registry._outboxes)), Connection)) == (1, True)
