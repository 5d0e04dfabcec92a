"""The announcer: who is removed when the rules change, and what everybody is sent of the room's state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from app import tasks
from app.chat.announcer import REMOVAL_STEP, Announcer
from app.chat.registry import Connection, ConnectionRegistry
from app.chat.rules import Ban, Rules
from app.engines.presence import LocalPresence, Session
from app.exceptions import CloseCode
from tests.support.chat import Ruled, settings_of, settle
from tests.support.fakes import Clock, FakeSender

pytestmark = pytest.mark.anyio


class Announced:
    """An announcer, and visitors who get its frames. `owner_came`: how often it called `on_owner`."""

    def __init__(self) -> None:
        self.owner_came = 0
        self.registry = ConnectionRegistry(100)
        self.presence = LocalPresence("owner")
        self.ruled = Ruled(settings_of(), Rules())
        self.announcer = Announcer(self.registry, self.presence, self.ruled.moderation, 10, 0, self.on_owner)

    def on_owner(self) -> None:
        self.owner_came += 1

    def set_rules(self, **rules: object) -> None:
        self.ruled.set(Rules.model_validate(rules))
        self.announcer.on_rules()

    async def join(self, name: str, role: str = "visitor") -> FakeSender:
        session = await self.presence.claim(Session(name, "a", id=name, role=role))
        connection, sender = self.registry.add(session, None), FakeSender()
        self.registry.open(connection, sender)
        return sender


@pytest.fixture
async def announced() -> AsyncIterator[Announced]:
    announced = Announced()
    await announced.announcer.start()
    yield announced
    await announced.announcer.stop()


async def test_banned_users_are_removed_and_nobody_else(announced: Announced) -> None:
    eve, tab, ada = await announced.join("Eve"), await announced.join("eve"), await announced.join("ada")
    announced.set_rules(bans={"eve": Ban(username="eve")})
    await announced.announcer.remove_banned()
    for sender in (eve, tab):
        assert sender.code is CloseCode.REMOVED
        assert [frame["data"] for frame in sender.of("error")] == [{"code": "banned"}]
    assert ada.code is None


async def test_removal_gives_the_event_loop_back_and_leaves_out_newcomers(
    announced: Announced, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = announced.registry.clock = Clock()
    members = [await announced.join(f"user{number}") for number in range(20)]
    late: list[FakeSender] = []

    async def come() -> None:
        while True:
            late.append(await announced.join(f"late{len(late)}"))
            await asyncio.sleep(0)

    def is_banned(connection: Connection) -> bool:
        clock.now += REMOVAL_STEP / 2 - 1e-9
        return True

    monkeypatch.setattr(announced.ruled.moderation, "is_banned", is_banned)
    coming = asyncio.create_task(come())
    await announced.announcer.remove_banned()
    await tasks.end(coming)
    assert {sender.code for sender in members} == {CloseCode.REMOVED}
    assert {sender.code for sender in late} == {None}
    assert len(late) == 6  # 20 looks, of which 3 are one turn


async def test_changes_of_the_room_that_come_together_are_announced_once(announced: Announced) -> None:
    ada = await announced.join("ada")
    await settle()
    announced.set_rules(paused=True)
    announced.set_rules(paused=True, slow_mode=2)
    await ada.until("room")
    await settle()
    assert [frame["data"] for frame in ada.of("room")] == [{"paused": True, "slow_mode": 2.0, "owner_online": False}]


async def test_bans_alone_are_not_announced(announced: Announced) -> None:
    ada = await announced.join("ada")
    await settle()
    before = len(ada.frames)
    announced.set_rules(bans={"eve": Ban(username="eve")})
    await settle()
    assert len(ada.frames) == before


async def test_owner_s_coming_and_going_is_announced_once(announced: Announced) -> None:
    ada = await announced.join("ada")
    for _ in range(2):
        await announced.join("owner", "owner")
    await ada.until("room")
    await settle()
    assert [frame["data"]["owner_online"] for frame in ada.of("room")] == [True]
    assert announced.owner_came == 1
    session = next(connection.session for connection, _ in announced.registry.senders()[1:])
    announced.presence.release(session)
    announced.presence.release(session)
    await ada.until("room", 2)
    assert [frame["data"]["owner_online"] for frame in ada.of("room")] == [True, False]
    assert announced.owner_came == 1


async def test_session_whose_name_is_another_s_is_evicted_with_all_its_tabs(announced: Announced) -> None:
    eve, tab, ada = await announced.join("eve"), await announced.join("eve"), await announced.join("ada")
    session = announced.registry.senders()[0][0].session
    announced.announcer.evict(session)
    for sender in (eve, tab):
        assert (sender.code, sender.of("error")[0]["data"]["code"]) == (CloseCode.REFUSED, "username_taken")
    assert ada.code is None
