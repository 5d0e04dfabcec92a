"""The owner's acts: what a ban knows of whom, what it keeps of an earlier one, and acts at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.chat import moderation
from app.chat.moderation import Moderation
from app.chat.rules import Rules
from app.engines.presence import LocalPresence, Session
from app.exceptions import InvalidRequest, StoreError
from tests.chat.test_room import Room

pytestmark = pytest.mark.anyio


class Desk:
    """The owner's, beside a room."""

    def __init__(self) -> None:
        self.room = Room()
        self.presence = LocalPresence()
        self.acts = Moderation(self.room.chat, self.presence, self.room.engine, "Owner")

    async def come(self, name: str, key: str | None = "203.0.113.7") -> Session:
        return await self.presence.claim(Session(name, "a", limit_key=key))


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    await desk.room.chat.start()
    await desk.presence.start(desk.room.chat.announcer)
    yield desk
    await desk.presence.stop()
    await desk.room.chat.stop()


async def test_ban_takes_session_and_address_of_who_is_here(desk: Desk) -> None:
    eve = await desk.come("Eve")
    ban = await desk.acts.ban("EVE", None, True, "note")
    assert (ban.username, ban.session, ban.until, ban.reason) == ("EVE", eve.id, None, "note")
    assert ban.mark == desk.room.chat.admission.mark("203.0.113.7")
    assert desk.acts.rules.bans == {"eve": ban}
    assert "203.0.113.7" not in desk.room.engine.rules


async def test_ban_takes_the_session_of_the_newest_message_of_who_has_gone(desk: Desk) -> None:
    writer = desk.room.join("Writer")
    writer.say("Hello")
    await writer.sender.until("message")
    ban = await desk.acts.ban("writer", None, True, None)
    assert (ban.session, ban.mark) == (writer.connection.session.id, None)


@pytest.mark.parametrize("key", [None, "127.0.0.1", "::/64"])
async def test_address_of_many_is_not_taken(desk: Desk, key: str | None) -> None:
    await desk.come("eve", key)
    assert (await desk.acts.ban("eve", None, True, None)).mark is None


async def test_new_ban_keeps_what_is_not_known_any_more_unless_the_address_is_to_go(desk: Desk) -> None:
    desk.presence.release(await desk.come("eve"))
    first = await desk.acts.ban("eve", None, True, None)
    desk.presence._sessions.clear()
    second = await desk.acts.ban("eve", 60, True, None)
    assert (second.session, second.mark) == (first.session, first.mark)
    assert second.until is not None
    assert (await desk.acts.ban("eve", None, False, None)).mark is None
    assert (await desk.acts.ban("eve", None, True, None)).mark is None


async def test_lifting_tells_what_the_ban_was_and_nothing_when_there_was_none(desk: Desk) -> None:
    ban = await desk.acts.ban("eve", None, False, None)
    assert [await desk.acts.lift("EVE"), await desk.acts.lift("eve")] == [ban, None]
    assert desk.room.engine.rules == "{}"


async def test_owner_s_name_and_one_ban_too_many_are_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moderation, "MAX_BANS", 2)
    with pytest.raises(InvalidRequest) as refused:
        await desk.acts.ban("oWNER", None, False, None)
    assert refused.value.field == "username"
    for name in ("a", "b", "A"):
        await desk.acts.ban(name, None, False, None)
    with pytest.raises(InvalidRequest, match="2 bans already"):
        await desk.acts.ban("c", None, False, None)
    assert list(desk.acts.rules.bans) == ["a", "b"]


async def test_acts_at_the_same_time_all_hold(desk: Desk) -> None:
    bans = [desk.acts.ban(f"eve{number}", None, False, None) for number in range(10)]
    await asyncio.gather(*bans, desk.acts.set_room(True, None), desk.acts.set_room(None, 3))
    rules = Rules.parse(desk.room.engine.rules)
    assert (len(rules.bans), rules.paused, rules.slow_mode) == (10, True, 3)


async def test_act_that_others_always_overtake_is_given_up(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moderation, "RETRY", 0)
    await desk.acts.set_room(False, 0)
    tried = []

    async def overtaken(*rules: Any) -> bool:
        tried.append(rules)
        return False

    monkeypatch.setattr(desk.room.engine, "amend", overtaken)
    with pytest.raises(StoreError, match="at the same time"):
        await desk.acts.set_room(True, None)
    assert len(tried) == moderation.TRIES
    await desk.acts.set_room(False, 0)  # nothing is to be changed
    assert len(tried) == moderation.TRIES
