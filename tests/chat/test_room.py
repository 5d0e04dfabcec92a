"""The room: what a newcomer sees, who is announced, what is logged, and that nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from app.chat.credentials import Handshake
from app.chat.timing import RoomTiming
from app.config import Settings
from app.engines.presence import PresenceTiming
from app.exceptions import ChatError, CloseCode, InvalidUsername, MessageTooLong, Unavailable
from app.log import LineFormatter
from app.message import Deletion, Message
from app.wire.sender import QueueSender
from tests.support.chat import AT_ONCE, StartChat, settle
from tests.support.fakes import at_once
from tests.support.running import until

pytestmark = pytest.mark.anyio


async def test_newcomer_gets_history_session_and_user_count_first(start_chat: StartChat) -> None:
    chat = await start_chat(ws_heartbeat_interval=1, ws_heartbeat_timeout=2, max_message_length=77)
    await chat.fill(2)
    ada = chat.join("ada")
    assert [frame["type"] for frame in ada.sender.frames] == ["history", "session", "user_count"]
    assert (ada.history["recovered"], ada.seqs) == (False, [1, 2])
    assert ada.sender.frames[1]["data"].pop("token").startswith("s1.ada.")
    assert len(ada.sender.frames[1]["data"].pop("author")) == 12
    assert ada.sender.frames[1]["data"] == {
        "username": "ada",
        "role": "visitor",
        "epoch": chat.opened.epoch,
        "seq": 2,
        "heartbeat_interval": 1.0,
        "heartbeat_timeout": 2.0,
        "max_message_length": 77,
        "paused": False,
        "slow_mode": 0.0,
        "owner_online": False,
    }
    assert ada.counts == [1]


async def test_message_comes_to_everyone_the_sender_included(start_chat: StartChat) -> None:
    chat = await start_chat()
    ada, bob = chat.join("ada"), chat.join("bob")
    ada.post("a < b", nonce="n-1")
    assert bob.sender.of("message") == []  # not before it is stored
    (sent,) = await bob.sender.until("message")
    assert ada.sender.of("message") == [sent]
    data = sent["data"]
    assert (data["seq"], data["username"], data["content"], data["text"]) == (1, "ada", "a &lt; b", "a < b")
    assert (data["nonce"], set(data)) == (
        "n-1",
        {"id", "seq", "username", "author", "content", "text", "timestamp", "nonce"},
    )
    assert chat.join("eve").history["data"] == [data]
    assert chat.room.total == 1


async def test_message_sent_again_is_answered_to_its_sender_alone(start_chat: StartChat) -> None:
    chat = await start_chat()
    ada, bob = chat.join("ada"), chat.join("bob")
    ada.post("Hello", nonce="n-1")
    ada.post("Hello", nonce="n-1")
    ada.post("Other", nonce="n-1")
    first, again = await ada.sender.until("message", 2)
    (refusal,) = await ada.sender.until("error")
    assert again == first
    assert refusal["data"] == {"code": "nonce_reused", "nonce": "n-1"}
    assert len(bob.sender.of("message")) == 1
    assert bob.sender.of("error") == []


async def test_returning_session_keeps_its_nonces(start_chat: StartChat) -> None:
    chat = await start_chat()
    ada = chat.join("ada")
    ada.post("Hello", nonce="n-1")
    await ada.sender.until("message")
    await ada.leave()
    back = chat.join("ada")
    back.post("Hello", nonce="n-1")
    await back.sender.until("message")
    assert chat.room.total == 1


@pytest.mark.parametrize("text", ["x" * 1001, "", "\u200b", "<script>"])
async def test_refused_text_is_not_stored(start_chat: StartChat, text: str) -> None:
    chat = await start_chat()
    ada = chat.join()
    with pytest.raises(ChatError):
        ada.post(text)
    ada.post("x" * 1000)
    assert (await ada.sender.until("message"))[0]["data"]["seq"] == 1


async def test_limits_are_the_settings(start_chat: StartChat) -> None:
    chat = await start_chat(max_message_length=3, max_username_length=3, block_dangerous_markup=False)
    ada = chat.join("ada")
    ada.post("🎉🎉🎉")
    with pytest.raises(MessageTooLong):
        ada.post("four")
    with pytest.raises(InvalidUsername):
        at_once(chat.room.admit(Handshake("adam", "a", None)))
    other = await start_chat(block_dangerous_markup=False)
    bob = other.join("bob")
    bob.post("<script>")
    assert (await bob.sender.until("message"))[0]["data"]["content"] == "&lt;script&gt;"


# Recovery


@pytest.mark.parametrize(("since", "missed"), [(0, 10), (7, 3), (9, 1), (10, 0)])
async def test_returning_client_gets_exactly_what_it_missed(start_chat: StartChat, since: int, missed: int) -> None:
    chat = await start_chat(history_limit=2)
    await chat.fill(10)
    back = chat.join(epoch=chat.opened.epoch, since=since)
    assert (back.history["recovered"], back.history["hidden"]) == (True, [])
    assert back.seqs == list(range(10 - missed + 1, 11))


@pytest.mark.parametrize(
    ("epoch", "since"),
    [
        (None, "7"), ("", "7"), ("another", "7"), ("right", None), ("right", ""), ("right", "-1"), ("right", "1.5"),
        ("right", "1e1"), ("right", "+7"), ("right", " 7"), ("right", "seven"), ("right", "٧"), ("right", "²"),
        ("right", "0x7"), ("right", "11"), ("right", str(2**53)), ("right", str(2**53 + 1)), ("right", "9" * 5000),
        ("right", "7\x00"),
    ],
)  # fmt: skip
async def test_client_that_cannot_be_placed_gets_the_plain_history(
    start_chat: StartChat, epoch: str | None, since: str | None
) -> None:
    chat = await start_chat(history_limit=2)
    await chat.fill(10)
    back = chat.join(epoch=chat.opened.epoch if epoch == "right" else epoch, since=since)
    assert (back.history["recovered"], back.seqs) == (False, [9, 10])
    assert "hidden" not in back.history


@pytest.mark.parametrize(
    ("history_limit", "recovery_limit", "since", "seqs"),
    [
        (5, 3, 7, [8, 9, 10]),
        (5, 3, 6, [6, 7, 8, 9, 10]),
        (2, 3, 7, [8, 9, 10]),
        (2, 3, 6, [9, 10]),
        (2, 3, 0, [9, 10]),
        (0, 3, 6, []),
        (2, 0, 10, []),
        (2, 0, 9, [9, 10]),
        (0, 0, 10, []),
    ],
)
async def test_recovery_is_whole_or_not_at_all(
    start_chat: StartChat, history_limit: int, recovery_limit: int, since: int, seqs: list[int]
) -> None:
    chat = await start_chat(history_limit=history_limit, recovery_limit=recovery_limit)
    await chat.fill(10)
    back = chat.join(epoch=chat.opened.epoch, since=since)
    assert back.seqs == seqs
    assert back.history["recovered"] is (10 - since <= recovery_limit)


async def test_empty_room_recovers_nothing_from_zero(start_chat: StartChat) -> None:
    chat = await start_chat()
    back = chat.join(epoch=chat.opened.epoch, since="0")
    assert (back.history["recovered"], back.history["data"]) == (True, [])
    assert chat.join(epoch=chat.opened.epoch, since="1").history["recovered"] is False


async def test_history_frame_is_at_most_half_the_send_buffer(start_chat: StartChat) -> None:
    chat = await start_chat(ws_send_buffer=65_536)
    await chat.fill(12, "&" * 1000)  # 6 kB each
    for since, recovered in ((0, False), (None, False), (8, True)):
        back = chat.join("reader", epoch=chat.opened.epoch, since=since)
        assert back.history["recovered"] is recovered
        assert back.sender.sizes[0] <= 32_768
        assert back.seqs == list(range(13 - len(back.seqs), 13))
        assert recovered or back.sender.sizes[0] > 32_768 - 6_500


async def test_reader_survives_a_full_batch_with_the_smallest_send_buffer(start_chat: StartChat) -> None:
    bounds = Settings.model_fields["ws_send_buffer"].metadata
    smallest = next(bound.ge for bound in bounds if hasattr(bound, "ge"))
    chat = await start_chat(ws_send_buffer=smallest)
    sent: list[Any] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message.get("code", "frame"))

    reader = at_once(chat.room.admit(Handshake("reader", "a", None)))
    sender = QueueSender(send, smallest, lambda: None)
    chat.room.join(reader, sender, None, None)
    await settle()  # it has read all
    writer = chat.join("writer")
    for _ in range(256):
        writer.post("🎉" * 200)
    await writer.sender.until("message", 256)
    await settle()
    await sender.release()
    assert 4001 not in sent
    assert sent.count("frame") >= 256


# Joining and leaving


async def test_joins_and_leaves_are_announced_to_the_others(start_chat: StartChat) -> None:
    chat = await start_chat(**AT_ONCE)
    ada, bob = chat.join("ada"), chat.join("bob")
    assert ada.events == [("user_joined", "bob")]
    assert bob.events == []
    await bob.leave()
    (_, left) = await ada.sender.until("system", 2)
    assert ada.events[1] == ("user_left", "bob")
    assert set(left["data"]) == {"id", "username", "content", "timestamp", "event", "user"}
    assert (left["data"]["username"], left["data"]["content"]) == ("System", "bob left the chat")


async def test_session_that_comes_back_soon_is_not_announced(start_chat: StartChat) -> None:
    chat = await start_chat(**AT_ONCE)
    ada, bob = chat.join("ada"), chat.join("bob")
    for _ in range(3):
        await bob.leave()
        bob = chat.join("bob")
        await settle()
    assert ada.events == [("user_joined", "bob")]
    await bob.leave()
    await ada.sender.until("system", 2)


async def test_tabs_of_one_session_are_not_announced(start_chat: StartChat) -> None:
    chat = await start_chat(**AT_ONCE)
    ada, first, second = chat.join("ada"), chat.join("bob"), chat.join("BOB")
    assert second.sender.frames[1]["data"]["username"] == "bob"
    await first.leave()
    await settle()
    assert ada.events == [("user_joined", "bob")]
    assert chat.room.users == 2
    await second.leave()
    await ada.sender.until("system", 2)
    assert chat.room.users == 1


async def test_name_is_free_again_after_its_user_left(start_chat: StartChat) -> None:
    chat = await start_chat(**AT_ONCE)
    ada, bob = chat.join("ada"), chat.join("bob")
    await bob.leave()
    await ada.sender.until("system", 2)
    other = chat.join("bob", address="b")
    assert other.connection.session is not bob.connection.session
    assert [event for event, _ in ada.events] == ["user_joined", "user_left", "user_joined"]


async def test_nobody_is_announced_above_the_limit(start_chat: StartChat) -> None:
    chat = await start_chat(announce_limit=2, **AT_ONCE)
    ada = chat.join("ada")
    chat.join("bob")
    eve, mallory = chat.join("eve"), chat.join("mallory")
    await eve.leave()
    await settle()
    assert ada.events == [("user_joined", "bob")]
    await mallory.leave()
    await ada.sender.until("system", 2)
    assert ada.events[1] == ("user_left", "mallory")


async def test_changes_of_the_user_count_are_joined(start_chat: StartChat) -> None:
    chat = await start_chat(timing=RoomTiming(announce_delay=0.3))
    ada = chat.join("ada")
    others = []
    for number in range(5):
        others.append(chat.join(f"user{number}"))
        await settle()
    await ada.sender.until("user_count", 2)
    assert ada.counts == [1, 6]
    await asyncio.gather(*(other.leave() for other in others))
    await ada.sender.until("user_count", 3)
    assert ada.counts == [1, 6, 1]


async def test_user_count_falls_when_a_newcomer_goes_before_it_joined(start_chat: StartChat) -> None:
    """Its session had just left, and its handshake failed late."""
    chat = await start_chat(timing=RoomTiming(announce_delay=0))
    ada, bob = chat.join("ada"), chat.join("bob")
    await ada.sender.until("user_count", 2)
    await bob.leave()
    await ada.sender.until("user_count", 3)
    back = at_once(chat.room.admit(Handshake("bob", "a", None)))
    await ada.sender.until("user_count", 4)
    chat.room.leave(back)
    await settle()
    assert ada.counts == [1, 2, 1, 2, 1]


async def test_newcomer_that_never_joined_leaves_nothing_behind(start_chat: StartChat) -> None:
    chat = await start_chat(**AT_ONCE)
    ada = chat.join("ada")
    newcomer = at_once(chat.room.admit(Handshake("bob", "a", None)))
    chat.room.leave(newcomer)
    chat.room.leave(newcomer)
    await settle()
    assert (len(chat.registry), chat.room.users) == (1, 1)
    assert ada.events == [("user_joined", "bob"), ("user_left", "bob")]
    chat.join("bob", address="b")


async def test_nobody_leaves_after_the_stop(start_chat: StartChat) -> None:
    chat = await start_chat(presence=PresenceTiming(leave_delay=0.005))
    ada, bob = chat.join("ada"), chat.join("bob")
    await bob.leave()
    await chat.room.stop()
    await asyncio.sleep(0.02)
    assert ada.events == [("user_joined", "bob")]


# Nothing lost, nothing doubled


@pytest.mark.parametrize("engine", ["memory", "sqlite"])
@pytest.mark.parametrize("seed", range(3))
async def test_nothing_is_lost_or_doubled_while_clients_come_and_go(
    start_chat: StartChat, tmp_path: Path, engine: str, seed: int
) -> None:
    url = "memory://" if engine == "memory" else f"sqlite:///{tmp_path}/chat.db"
    # A fan-out gives the event loop back as often as it can.
    chat = await start_chat(engine_url=url, history_limit=20, recovery_limit=10_000, yield_after=-1.0)
    chance = random.Random(seed)
    writer = chat.join("writer")
    crowd = [chat.join(f"crowd{number}") for number in range(130)]
    written = asyncio.Event()

    async def write() -> None:
        for number in range(400):
            writer.post(f"{number}")
            if chance.random() < 0.3:
                await asyncio.sleep(chance.choice([0, 0, 0.001]))
        await chat.engine.flush()
        written.set()

    async def travel(name: str) -> list[int]:
        """Comes and goes until all is written, then comes once more; returns all that it saw."""
        seen: list[int] = []
        last = False
        while not last:
            last = written.is_set()
            since = str(seen[-1]) if seen else None
            visit = chat.join(name, epoch=chat.opened.epoch, since=since)
            assert visit.history["recovered"] is bool(seen)
            for _ in range(chance.choice([0, 2, 5, 20, 60])):
                await asyncio.sleep(0)
            await visit.leave()
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            seen += visit.seqs
        return seen

    journeys = await asyncio.gather(*(travel(f"traveller{number}") for number in range(20)), write())
    for seen in journeys[:-1]:
        assert seen is not None
        assert seen == list(range(seen[0], 401))
    for member in (writer, *crowd):
        assert member.seqs == list(range(1, 401))


# The log


async def test_each_event_is_one_line(start_chat: StartChat, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "app")
    chat = await start_chat()
    ada = chat.join("ada")
    ada.post("Hello\n[INFO] User connected: root")
    ada.post("x" * 200)
    lines = [LineFormatter().format(entry) for entry in caplog.records]
    assert lines == [
        "[INFO] User connected: ada",
        r"[INFO] Message from ada: Hello\n[INFO] User connected: root",
        "[INFO] Message from ada: " + "x" * 80,
    ]


async def test_message_content_is_kept_out_of_the_log(start_chat: StartChat, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "app")
    chat = await start_chat(log_message_content=False)
    chat.join("ada").post("Hello")
    await chat.engine.flush()
    assert "Hello" not in caplog.text
    assert caplog.records[-1].getMessage() == "Message from ada: (5 characters)"


async def test_post_over_http_that_is_never_answered_is_given_up(
    start_chat: StartChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = await start_chat(timing=RoomTiming(post_timeout=0.05))
    with monkeypatch.context() as patch:
        patch.setattr(chat.engine, "publish", lambda draft, answer: None)
        with pytest.raises(Unavailable):
            await chat.room.post_as_owner("Hello", None)
    message, new = await chat.room.post_as_owner("Hello", None)
    assert (message.seq, new, chat.room._owner_posts) == (1, True, {})


async def test_room_that_missed_something_sends_everybody_away_before_the_next_message(start_chat: StartChat) -> None:
    """Else a client could recover from that message on, without what is missing."""
    chat = await start_chat(shutdown_spread=1)
    visitors = [chat.join(f"visitor{number}") for number in range(10)]
    chat.reset()
    await chat.fill(1)
    assert [(visitor.sender.code, visitor.seqs) for visitor in visitors] == [(CloseCode.RESTART, [])] * 10


async def test_room_with_another_epoch_sends_away_one_after_the_other(start_chat: StartChat) -> None:
    chat = await start_chat(shutdown_spread=0.1)
    visitors = [chat.join(f"visitor{number}") for number in range(10)]
    chat.reset(epoch="another")
    await asyncio.sleep(0)
    assert [visitor.sender.code for visitor in visitors].count(None) > 1
    await until(lambda: all(visitor.sender.code is CloseCode.RESTART for visitor in visitors))


async def test_newcomer_after_a_reset_gets_the_other_store_s_history(start_chat: StartChat) -> None:
    chat = await start_chat(history_limit=2)
    await chat.fill(3)
    kept = [Message(f"id-{seq}", "s", "bob", "x", "x", 1.0, seq=seq) for seq in (7, 8, 9)]
    chat.reset(epoch="another", seq=9, pruned=5, messages=kept, deletions=[Deletion(6, "id-6", 8)])
    ada = chat.join(epoch="another", since=8)
    assert (ada.history["recovered"], ada.seqs, ada.history["hidden"]) == (True, [9], ["id-6"])
    session = ada.sender.frames[1]["data"]
    assert (session["epoch"], session["seq"], chat.room.total) == ("another", 9, 9)
    assert chat.join("bob", epoch=chat.opened.epoch, since=3).seqs == [8, 9]


async def test_outage_is_announced_to_everybody_at_once(start_chat: StartChat) -> None:
    chat = await start_chat()
    visitors = [chat.join("ada"), chat.join("bob")]
    chat.room.on_outage()
    assert [visitor.sender.of("error")[0]["data"]["code"] for visitor in visitors] == ["unavailable"] * 2


# What the owner is notified of

OWNER = "o" * 32


async def test_owner_is_notified_while_away_alone_and_not_of_deleted_messages(start_chat: StartChat) -> None:
    chat = await start_chat(owner_token=OWNER, **AT_ONCE)
    await chat.fill(1, "away")
    owner = chat.join("owner", subprotocols=("chat.v1", f"bearer.{OWNER}"))
    await chat.fill(1, "here")
    assert (chat.notifications.texts, chat.notifications.cleared) == (["away"], 1)
    await owner.leave()
    await chat.fill(1, "away again")
    assert (chat.notifications.texts, chat.notifications.cleared) == (["away", "away again"], 1)
    assert await chat.moderation.delete("username", "writer") == 3
    assert chat.notifications.removed == {1, 2, 3}
