"""What a change of the owner's rules costs: counted, because times differ from machine to machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from app.chat.credentials import Credentials, Handshake
from app.chat.moderation import Moderation
from app.chat.registry import ConnectionRegistry
from app.chat.room import Chat
from app.chat.rules import MAX_BANS, Ban, BanIndex, Rules
from app.config import Settings
from app.engines import open_engine
from app.engines.presence import LocalPresence
from app.exceptions import Banned, CloseCode
from tests.support.fakes import FakeSender

pytestmark = pytest.mark.anyio

LOOK_UP, HASH, BAN = "look-up", "hash", "ban"


class Room:
    """A room with an owner, some bans, and visitors, each with an address of its own."""

    def __init__(self) -> None:
        settings = Settings(engine_url="memory://", ws_max_connections=1000, rate_limit_joins=0)
        self.registry = ConnectionRegistry(settings.ws_max_connections)
        self.engine = open_engine(settings)
        presence = LocalPresence()
        self.chat = Chat(settings, self.registry, presence, self.engine)
        self.acts = Moderation(self.chat, presence, self.engine, "owner")

    async def come(self, name: str) -> FakeSender:
        address, sender = f"203.0.113.{len(self.registry)}", FakeSender()
        connection = await self.chat.admit(Handshake(name, address, address))
        self.chat.join(connection, sender, None, None)
        return sender

    async def fill(self, connections: int) -> list[FakeSender]:
        return [await self.come(f"visitor{number}") for number in range(connections)]

    async def ban(self, count: int, **of_each: Any) -> None:
        bans = {f"b{number}": Ban(username=f"b{number}", **of_each) for number in range(count)}
        assert await self.engine.amend(self.engine.rules, Rules(bans=bans).text())


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    room = Room()
    await room.chat.start()
    yield room
    await room.chat.stop()


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a connection is looked up among the bans, an address is hashed, and a ban itself is looked at."""
    counts: Counter[str] = Counter()

    def counted(what: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any) -> Any:
            counts[what] += 1
            return original(*args)

        return wrapper

    monkeypatch.setattr(BanIndex, "refuses", counted(LOOK_UP, BanIndex.refuses))
    monkeypatch.setattr(Credentials, "mark", counted(HASH, Credentials.mark))
    monkeypatch.setattr(Ban, "__getattribute__", counted(BAN, Ban.__getattribute__))
    return counts


async def test_change_that_bans_nobody_looks_at_no_connection(room: Room, count: Counter[str]) -> None:
    await room.ban(MAX_BANS, mark="m")
    await room.fill(50)
    count.clear()
    await room.acts.set_room(paused=True, slow_mode=3.0)
    await room.acts.lift("b7")
    assert (count[LOOK_UP], count[HASH]) == (0, 0)


async def test_new_ban_looks_at_each_connection_once(room: Room, count: Counter[str]) -> None:
    await room.ban(MAX_BANS - 1)
    await room.fill(50)
    count.clear()
    await room.acts.ban("eve", None, True, None)
    assert count[LOOK_UP] == 50


async def test_how_often_bans_are_looked_at_does_not_depend_on_the_connections(room: Room, count: Counter[str]) -> None:
    looks = []
    for visitors in (["ada"], [f"visitor{number}" for number in range(50)]):
        for visitor in visitors:
            await room.come(visitor)
        await room.ban(0)
        count.clear()
        await room.ban(100, mark="m", session="s")
        looks.append(count[BAN])
    assert looks[0] == looks[1]


async def test_newcomer_is_checked_without_looking_at_a_ban(room: Room, count: Counter[str]) -> None:
    await room.ban(MAX_BANS, mark="m")
    count.clear()
    await room.come("ada")
    assert (count[LOOK_UP], count[BAN]) == (2, 0)  # at the door, and when it joins


async def test_address_of_a_connection_is_hashed_once_however_often_bans_change(
    room: Room, count: Counter[str]
) -> None:
    await room.fill(20)
    for number in range(5):
        await room.ban(number + 1, mark="m")
    assert count[HASH] == 20


async def test_no_address_is_hashed_while_none_is_banned(room: Room, count: Counter[str]) -> None:
    await room.ban(10)
    await room.fill(20)
    await room.ban(20)
    assert count[HASH] == 0


async def test_ban_of_an_address_removes_all_who_come_from_it(room: Room) -> None:
    eve, ada = await room.fill(2)
    mark = room.chat.admission.mark("203.0.113.0")
    await room.ban(1, mark=mark)
    assert (eve.code, ada.code) == (CloseCode.REMOVED, None)


async def test_new_address_bans_under_another_secret_are_compared_with_new_marks(room: Room) -> None:
    eve, _ = await room.fill(2)
    await room.ban(1, mark="m")  # so that the marks are known
    room.engine.secret = "another secret"
    mark = Credentials("another secret", "", ()).mark("203.0.113.0")
    room.engine.rules = Rules(bans={"x": Ban(username="x", mark=mark)}).text()
    room.chat.renew([], [])
    await eve.until("error")
    assert eve.code is CloseCode.REMOVED


async def test_another_store_sends_away_whom_it_does_not_ban(room: Room) -> None:
    eve, ada = await room.fill(2)
    room.engine.rules = Rules(bans={"visitor0": Ban(username="visitor0")}).text()
    room.chat.renew([], [])
    await ada.closed_with(CloseCode.RESTART)
    assert eve.code is CloseCode.REMOVED


async def test_ban_holds_for_newcomers_before_all_connections_are_looked_at(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[str] = []

    async def remove(is_banned: object) -> None:
        with pytest.raises(Banned):
            await room.come("eve")
        refused.append("eve")

    monkeypatch.setattr(room.chat.announcer, "remove", remove)
    await room.acts.ban("eve", None, False, None)
    assert refused == ["eve"]
