"""The announcer: who must go when the rules change, and what everybody is told of the room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from app import tasks
from app.chat import announcer
from app.chat.announcer import Announcer
from app.chat.registry import Connection, ConnectionRegistry
from app.chat.rules import Ban, Rules
from app.engines.presence import LocalPresence, Session
from app.exceptions import CloseCode
from tests.support.fakes import Clock, FakeSender

pytestmark = pytest.mark.anyio


class Hall:
    """An announcer and those who hear it."""

    def __init__(self) -> None:
        self.came = 0
        self.registry = ConnectionRegistry(100)
        self.presence = LocalPresence("owner")
        self.announcer = Announcer(self.registry, self.presence, 10, self.note)

    def note(self) -> None:
        self.came += 1

    async def enter(self, name: str, role: str = "visitor") -> FakeSender:
        session = await self.presence.claim(Session(name, "a", id=name, role=role))
        connection, sender = self.registry.add(session, None), FakeSender()
        self.registry.open(connection, sender)
        return sender


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


async def test_who_is_banned_must_go_and_nobody_else(hall: Hall) -> None:
    eve, tab, ada = await hall.enter("Eve"), await hall.enter("eve"), await hall.enter("ada")
    await hall.announcer.remove(lambda connection: connection.session.username == "Eve")
    for sender in (eve, tab):
        assert sender.code is CloseCode.REMOVED
        assert [frame["data"] for frame in sender.of("error")] == [{"code": "banned"}]
    assert ada.code is None


async def test_removal_gives_the_event_loop_back_and_leaves_out_who_comes_meanwhile(hall: Hall) -> None:
    clock = hall.registry.clock = Clock()
    members = [await hall.enter(f"user{number}") for number in range(20)]
    late: list[FakeSender] = []

    async def come() -> None:
        while True:
            late.append(await hall.enter(f"late{len(late)}"))
            await asyncio.sleep(0)

    def is_banned(connection: Connection) -> bool:
        clock.now += announcer.REMOVAL_STEP / 2 - 1e-9
        return True

    coming = asyncio.create_task(come())
    await hall.announcer.remove(is_banned)
    await tasks.end(coming)
    assert {sender.code for sender in members} == {CloseCode.REMOVED}
    assert {sender.code for sender in late} == {None}
    assert len(late) == 6  # 20 looks, of which 3 are one turn


async def test_room_is_told_once_for_changes_that_come_together_and_not_for_none(hall: Hall) -> None:
    ada = await hall.enter("ada")
    hall.announcer.obey(Rules(bans={"eve": Ban(username="eve")}))
    await settle()
    assert ada.of("room") == []
    hall.announcer.obey(Rules(paused=True))
    hall.announcer.obey(Rules(paused=True, slow_mode=2))
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
    hall.presence.release(hall.presence._sessions["owner"])
    hall.presence.release(hall.presence._sessions["owner"])
    await ada.until("room", 2)
    assert [frame["data"]["owner_online"] for frame in ada.of("room")] == [True, False]
    assert (hall.came, isinstance(next(iter(hall.registry._senders)), Connection)) == (1, True)
