"""Who is here, by name: who shares a name, who holds one, and who came and left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.engines import presence as presence_module
from app.engines.presence import HOLD, LocalPresence, Session
from app.exceptions import UsernameTaken
from tests.support.fakes import Clock

pytestmark = pytest.mark.anyio


class Hall:
    """A presence on a clock of its own, and what it tells."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.presence = LocalPresence(clock=self.clock)
        self.events: list[str] = []

    def announce(self, event: str, username: str) -> None:
        self.events.append(f"{username} {event.removeprefix('user_')}")

    def users_changed(self) -> None:
        self.events.append(f"{self.presence.users}")

    def evict(self, session: Session) -> None:
        raise AssertionError("names are given once, here")

    async def come(self, name: str, address: str = "a", proof: str = "") -> Session:
        """A newcomer; one with a proof knows tokens."""
        newcomer = Session(name, address, proof, True) if proof else Session(name, address)
        return await self.presence.claim(newcomer)

    async def leave(self, session: Session) -> None:
        """It goes, and whatever is due then happens."""
        self.presence.release(session)
        await asyncio.sleep(0.001)


@pytest.fixture
async def hall(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hall]:
    """A hall in which who left has left at once."""
    monkeypatch.setattr(presence_module, "LEAVE_DELAY", 0)
    hall = Hall()
    await hall.presence.start(hall)
    yield hall
    await hall.presence.stop()


async def test_name_is_shared_with_the_same_address_alone(hall: Hall) -> None:
    first = await hall.come("Ada")
    assert await hall.come("aDA") is first
    with pytest.raises(UsernameTaken):
        await hall.come("ada", "b")
    assert (first.username, first.connections) == ("Ada", 2)


async def test_users_are_counted_once_whatever_they_have_open(hall: Hall) -> None:
    sessions = [await hall.come(name) for name in ("ada", "ADA", "bob")]
    for session in sessions:
        await hall.leave(session)
    assert hall.events == ["1", "ada joined", "2", "bob joined", "1", "ada left", "0", "bob left"]


async def test_name_of_who_can_not_prove_it_is_free_as_soon_as_it_is_left(hall: Hall) -> None:
    hall.presence.release(await hall.come("ada"))
    other = await hall.come("ada", "b")
    assert other.address == "b"
    assert hall.events == ["1", "ada joined", "0", "ada left", "1", "ada joined"]


async def test_held_name_comes_free_with_time(hall: Hall) -> None:
    await hall.leave(await hall.come("ada", proof="hers"))
    hall.clock.now += HOLD - 0.1
    with pytest.raises(UsernameTaken):
        await hall.come("ADA")
    hall.clock.now += 0.1
    await hall.come("ADA")


async def test_name_is_forgotten_when_nobody_holds_it(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence_module, "HOLD", 0.005)
    await hall.leave(await hall.come("ada", proof="hers"))
    hall.clock.now += 1
    await asyncio.sleep(0.02)
    assert (hall.presence._sessions, hall.presence._leaving) == ({}, {})


async def test_who_proves_to_be_the_holder_gets_the_name_back(hall: Hall) -> None:
    first = await hall.come("ada", proof="hers")
    assert await hall.come("ADA", "b", proof="hers") is first
    await hall.leave(first)
    await hall.leave(first)
    with pytest.raises(UsernameTaken):
        await hall.come("ada", proof="mine")
    assert await hall.come("ada", proof="hers") is first


async def test_who_can_prove_itself_does_not_inherit_from_one_who_left_and_could_not(hall: Hall) -> None:
    gone = await hall.come("ada")
    hall.presence.release(gone)
    newcomer = await hall.come("ada", proof="hers")
    assert newcomer is not gone
    with pytest.raises(UsernameTaken):
        await hall.come("ada")
    with pytest.raises(UsernameTaken):
        await hall.come("ada", proof="mine")


async def test_who_can_prove_itself_shares_with_one_who_is_here_and_can_not(hall: Hall) -> None:
    here = await hall.come("ada")
    assert await hall.come("ada", proof="hers") is here
