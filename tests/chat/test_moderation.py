"""Moderation: what a ban keeps of a user, changes at the same time, and deletion step by step."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from app.chat.credentials import Credentials, Handshake
from app.chat.rules import Rules
from app.chat.timing import RoomTiming
from app.config import Settings
from app.engines.store import Query
from app.exceptions import InvalidRequest, StoreError
from app.message import Change
from app.wire.sender import QueueSender
from tests.support.chat import AT_ONCE, RunningChat, StartChat, settle
from tests.support.fakes import at_once

pytestmark = pytest.mark.anyio

ADDRESS = "203.0.113.7"


@pytest.fixture
async def chat(start_chat: StartChat) -> RunningChat:
    return await start_chat(owner_username="Owner", **AT_ONCE)


# Bans


async def test_ban_takes_session_and_address_of_a_user_who_is_here(chat: RunningChat) -> None:
    eve = chat.join("Eve", limit_key=ADDRESS).connection.session
    ban = await chat.moderation.ban("EVE", None, True, "note")
    assert (ban.username, ban.session, ban.until, ban.reason) == ("EVE", eve.id, None, "note")
    assert ban.address_hash == Credentials(chat.settings, chat.opened.secret).address_hash(ADDRESS)
    assert chat.moderation.rules.bans == {"eve": ban}
    assert ADDRESS not in chat.engine.rules


async def test_ban_takes_the_session_of_the_newest_message_of_a_user_who_has_left(chat: RunningChat) -> None:
    writer = chat.join("Writer", limit_key=ADDRESS)
    writer.post("Hello")
    await writer.sender.until("message")
    await writer.leave()
    await settle()
    assert await chat.presence.find("writer") is None
    ban = await chat.moderation.ban("writer", None, True, None)
    assert (ban.session, ban.address_hash) == (writer.connection.session.id, None)


@pytest.mark.parametrize("limit_key", [None, "127.0.0.1", "::/64"])
async def test_ban_takes_no_address_that_may_be_shared(chat: RunningChat, limit_key: str | None) -> None:
    chat.join("eve", limit_key=limit_key)
    assert (await chat.moderation.ban("eve", None, True, None)).address_hash is None


async def test_new_ban_keeps_what_is_not_known_any_more_unless_the_address_is_to_go(chat: RunningChat) -> None:
    eve = chat.join("eve", limit_key=ADDRESS)
    first = await chat.moderation.ban("eve", None, True, None)
    await eve.leave()
    await settle()
    second = await chat.moderation.ban("eve", 60, True, None)
    assert (second.session, second.address_hash) == (first.session, first.address_hash)
    assert (first.address_hash is None, second.until is None) == (False, False)
    assert (await chat.moderation.ban("eve", None, False, None)).address_hash is None
    assert (await chat.moderation.ban("eve", None, True, None)).address_hash is None


async def test_lift_returns_the_ban_or_nothing_when_there_was_none(chat: RunningChat) -> None:
    ban = await chat.moderation.ban("eve", None, False, None)
    assert [await chat.moderation.lift("EVE"), await chat.moderation.lift("eve")] == [ban, None]
    assert chat.engine.rules == "{}"


async def test_owner_can_t_be_banned(chat: RunningChat) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await chat.moderation.ban("oWNER", None, False, None)
    assert refused.value.field == "username"


async def test_one_ban_too_many_is_refused(start_chat: StartChat) -> None:
    moderation = (await start_chat(timing=RoomTiming(max_bans=2))).moderation
    for name in ("a", "b", "A"):
        await moderation.ban(name, None, False, None)
    with pytest.raises(InvalidRequest, match="2 bans already"):
        await moderation.ban("c", None, False, None)
    assert list(moderation.rules.bans) == ["a", "b"]


# Changes at the same time


async def test_changes_at_the_same_time_all_hold(chat: RunningChat) -> None:
    moderation = chat.moderation
    bans = [moderation.ban(f"eve{number}", None, False, None) for number in range(10)]
    await asyncio.gather(*bans, moderation.set_room(True, None), moderation.set_room(None, 3))
    rules = Rules.parse(chat.engine.rules)
    assert (len(rules.bans), rules.paused, rules.slow_mode) == (10, True, 3)


async def test_change_that_others_always_overtake_is_given_up(
    start_chat: StartChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = await start_chat(timing=RoomTiming(rules_tries=7, rules_retry=0))
    await chat.moderation.set_room(False, 0)
    tried = []

    async def overtaken(change: Change) -> None:
        tried.append(change)

    monkeypatch.setattr(chat.engine, "apply", overtaken)
    with pytest.raises(StoreError, match="at the same time"):
        await chat.moderation.set_room(True, None)
    assert [change.old_rules for change in tried] == [chat.engine.rules] * 7
    await chat.moderation.set_room(False, 0)  # nothing is to be changed
    assert len(tried) == 7


# Deletion


async def texts(chat: RunningChat) -> list[str]:
    """What is left, oldest first."""
    return [message.text for message in await chat.moderation.find(Query(limit=1000))]


async def test_messages_are_deleted_by_id_username_and_session(chat: RunningChat) -> None:
    ada, bob = chat.join("Ada"), chat.join("bob")
    for text in ("1", "2", "3"):
        ada.post(f"a{text}")
        bob.post(f"b{text}")
    sent = await bob.sender.until("message", 6)
    first = sent[0]["data"]["id"]
    assert await chat.moderation.delete("id", first) == 1
    assert await texts(chat) == ["b1", "a2", "b2", "a3", "b3"]
    assert await chat.moderation.delete("username", "ADA") == 2
    assert await chat.moderation.delete("session", bob.connection.session.id) == 3
    assert await texts(chat) == []
    for by, value in (("id", first), ("username", "ada"), ("session", "none"), ("id", "*")):
        assert await chat.moderation.delete(by, value) == 0  # type: ignore[arg-type]
    hidden = [frame["data"]["id"] for frame in ada.sender.of("hidden")]
    assert sorted(hidden) == sorted(frame["data"]["id"] for frame in sent)


async def test_deletions_at_the_same_time_count_each_message_once(chat: RunningChat) -> None:
    ada = chat.join("ada")
    for _ in range(6):
        ada.post("Hello")
    ids = [frame["data"]["id"] for frame in await ada.sender.until("message", 6)]
    single = [chat.moderation.delete("id", one) for one in ids for _ in range(3)]
    counts = await asyncio.gather(*single, chat.moderation.delete("username", "ada"))
    assert sum(counts) == 6
    assert sorted(frame["data"]["id"] for frame in ada.sender.of("hidden")) == sorted(ids)


@pytest.mark.parametrize(("messages", "steps"), [(1, [1]), (3, [3]), (4, [3, 1]), (8, [3, 3, 2]), (9, [3, 3, 3])])
async def test_many_messages_are_deleted_step_by_step(
    start_chat: StartChat, monkeypatch: pytest.MonkeyPatch, messages: int, steps: list[int]
) -> None:
    chat = await start_chat(timing=RoomTiming(delete_step=3, delete_pause=0))
    await chat.fill(messages, name="spam")
    await chat.fill(1, name="ada")
    made, apply = [], chat.engine.apply

    async def recording(change: Change) -> Change | None:
        made.append(len(change.deletions))
        return await apply(change)

    monkeypatch.setattr(chat.engine, "apply", recording)
    assert await chat.moderation.delete("username", "spam") == messages
    assert made == steps
    assert len(await texts(chat)) == 1


async def test_others_use_the_store_between_two_steps(start_chat: StartChat) -> None:
    chat = await start_chat(timing=RoomTiming(delete_step=1, delete_pause=0.01))
    await chat.fill(3, name="spam")
    ada = chat.join("ada")
    deletion = asyncio.create_task(chat.moderation.delete("username", "spam"))
    await ada.sender.until("hidden")
    ada.post("Hello")
    await ada.sender.until("message")
    assert len(ada.sender.of("hidden")) < 3
    assert await deletion == 3
    assert await texts(chat) == ["Hello"]


async def test_clients_survive_a_deletion_with_the_smallest_send_buffer(start_chat: StartChat) -> None:
    bounds = Settings.model_fields["ws_send_buffer"].metadata
    smallest = next(bound.ge for bound in bounds if hasattr(bound, "ge"))
    chat = await start_chat(ws_send_buffer=smallest, **AT_ONCE)
    await chat.fill(1500, "x")
    codes: list[int] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "websocket.close":
            codes.append(message["code"])

    reader = at_once(chat.room.admit(Handshake("reader", "a", None)))
    sender = QueueSender(send, smallest, lambda: None)
    chat.room.join(reader, sender, None, None)
    await settle()  # it has read all
    assert await chat.moderation.delete("username", "writer") == 1500
    await settle()
    await sender.release()
    assert 4001 not in codes


async def test_store_that_fails_during_a_deletion_says_so(
    start_chat: StartChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = await start_chat(timing=RoomTiming(delete_step=2, delete_pause=0))
    await chat.fill(5)
    apply = chat.engine.apply

    async def fail_later(change: Change) -> Change | None:
        if len(await texts(chat)) < 5:
            raise StoreError("the disk is full")
        return await apply(change)

    with monkeypatch.context() as patched:
        patched.setattr(chat.engine, "apply", fail_later)
        with pytest.raises(StoreError, match="the disk is full"):
            await chat.moderation.delete("username", "writer")
    assert len(await texts(chat)) == 3  # the first step is done, and is not undone
    assert await chat.moderation.delete("username", "writer") == 3
