"""The room: what a newcomer sees, who is announced, what is logged, and that nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import pytest

from app.chat import announcer
from app.chat import registry as registry_module
from app.chat import room as chat_module
from app.chat.credentials import Handshake
from app.chat.registry import Connection, ConnectionRegistry
from app.chat.room import Chat
from app.config import Settings
from app.engines import open_engine
from app.engines import presence as presence_module
from app.engines.presence import LocalPresence
from app.exceptions import ChatError, CloseCode, InvalidUsername, MessageTooLong, Unavailable
from app.log import LineFormatter
from app.wire.client_frames import Post
from app.wire.sender import QueueSender
from tests.conftest import UNLIMITED
from tests.support.fakes import FakeSender, at_once
from tests.support.running import until

pytestmark = pytest.mark.anyio


class Member:
    """One client in the room."""

    def __init__(self, chat: Chat, name: str, address: str, epoch: str | None, since: str | None) -> None:
        self.chat = chat
        self.sender = FakeSender()
        self.connection: Connection = at_once(chat.admit(Handshake(name, address, None)))
        chat.join(self.connection, self.sender, epoch, since)

    def say(self, text: str, nonce: str | None = None) -> None:
        self.chat.post(self.connection, self.sender, Post(type="message", content=text, nonce=nonce))

    async def leave(self) -> None:
        self.chat.leave(self.connection)
        await self.sender.release()

    @property
    def history(self) -> dict[str, Any]:
        return self.sender.frames[0]

    @property
    def seqs(self) -> list[int]:
        """What it knows: the history first, then what came live."""
        return [data["seq"] for data in self.history["data"]] + [
            frame["data"]["seq"] for frame in self.sender.of("message")
        ]

    @property
    def events(self) -> list[tuple[str, str]]:
        return [(frame["data"]["event"], frame["data"]["user"]) for frame in self.sender.of("system")]

    @property
    def counts(self) -> list[int]:
        return [frame["data"]["count"] for frame in self.sender.of("user_count")]


class Room:
    """A chat with its members."""

    def __init__(self, **changes: Any) -> None:
        settings = Settings.model_validate({"engine_url": "memory://", "app_name": "Test", **UNLIMITED, **changes})
        self.registry = ConnectionRegistry(settings.ws_max_connections)
        self.engine = open_engine(settings)
        self.chat = Chat(settings, self.registry, LocalPresence(), self.engine)

    def join(self, name: str = "ada", address: str = "a", epoch: str | None = None, since: str | None = None) -> Member:
        return Member(self.chat, name, address, epoch, since)

    async def fill(self, count: int, text: str = "Hello") -> None:
        writer = self.join("writer")
        for _ in range(count):
            writer.say(text)
        await writer.sender.until("message", count)
        await writer.leave()


Open = Callable[..., Awaitable[Room]]


@pytest.fixture
async def room() -> AsyncIterator[Open]:
    rooms: list[Room] = []

    async def opened(**changes: Any) -> Room:
        rooms.append(Room(**changes))
        await rooms[-1].chat.start()
        return rooms[-1]

    yield opened
    for opened_room in rooms:
        await opened_room.chat.stop()
    assert not [task for task in asyncio.all_tasks() if task.get_name() in ("announcer", "engine writer")]


@pytest.fixture
def leave_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who leaves has left, and who is counted is told, at the event loop's next turn."""
    monkeypatch.setattr(presence_module, "LEAVE_DELAY", 0)
    monkeypatch.setattr(announcer, "DELAY", 0)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_newcomer_gets_history_session_and_user_count_first(room: Open) -> None:
    here = await room(ws_heartbeat_interval=1, ws_heartbeat_timeout=2, max_message_length=77)
    await here.fill(2)
    ada = here.join("ada")
    assert [frame["type"] for frame in ada.sender.frames] == ["history", "session", "user_count"]
    assert (ada.history["recovered"], ada.seqs) == (False, [1, 2])
    assert ada.sender.frames[1]["data"].pop("token").startswith("s1.ada.")
    assert ada.sender.frames[1]["data"] == {
        "username": "ada",
        "role": "visitor",
        "epoch": here.engine.epoch,
        "seq": 2,
        "heartbeat_interval": 1.0,
        "heartbeat_timeout": 2.0,
        "max_message_length": 77,
        "paused": False,
        "slow_mode": 0.0,
        "owner_online": False,
    }
    assert ada.counts == [1]


async def test_message_comes_to_everyone_the_sender_included(room: Open) -> None:
    here = await room()
    ada, bob = here.join("ada"), here.join("bob")
    ada.say("a < b", nonce="n-1")
    assert bob.sender.of("message") == []  # not before it is stored
    (told,) = await bob.sender.until("message")
    assert ada.sender.of("message") == [told]
    data = told["data"]
    assert (data["seq"], data["username"], data["content"], data["text"]) == (1, "ada", "a &lt; b", "a < b")
    assert (data["nonce"], set(data)) == (
        "n-1",
        {"id", "seq", "username", "content", "text", "timestamp", "nonce"},
    )
    assert here.join("eve").history["data"] == [data]
    assert here.chat.total == 1


async def test_message_sent_again_is_answered_to_its_sender_alone(room: Open) -> None:
    here = await room()
    ada, bob = here.join("ada"), here.join("bob")
    ada.say("Hello", nonce="n-1")
    ada.say("Hello", nonce="n-1")
    ada.say("Other", nonce="n-1")
    first, again = await ada.sender.until("message", 2)
    (refusal,) = await ada.sender.until("error")
    assert again == first
    assert refusal["data"] == {"code": "nonce_reused", "nonce": "n-1"}
    assert len(bob.sender.of("message")) == 1
    assert bob.sender.of("error") == []


async def test_returning_session_keeps_its_nonces(room: Open) -> None:
    here = await room()
    ada = here.join("ada")
    ada.say("Hello", nonce="n-1")
    await ada.sender.until("message")
    await ada.leave()
    back = here.join("ada")
    back.say("Hello", nonce="n-1")
    await back.sender.until("message")
    assert here.chat.total == 1


@pytest.mark.parametrize("text", ["x" * 1001, "", "\u200b", "<script>"])
async def test_refused_text_is_not_stored(room: Open, text: str) -> None:
    here = await room()
    ada = here.join()
    with pytest.raises(ChatError):
        ada.say(text)
    ada.say("x" * 1000)
    assert (await ada.sender.until("message"))[0]["data"]["seq"] == 1


async def test_limits_are_the_settings(room: Open) -> None:
    here = await room(max_message_length=3, max_username_length=3, block_dangerous_markup=False)
    ada = here.join("ada")
    ada.say("🎉🎉🎉")
    with pytest.raises(MessageTooLong):
        ada.say("four")
    with pytest.raises(InvalidUsername):
        at_once(here.chat.admit(Handshake("adam", "a", None)))
    other = await room(block_dangerous_markup=False)
    bob = other.join("bob")
    bob.say("<script>")
    assert (await bob.sender.until("message"))[0]["data"]["content"] == "&lt;script&gt;"


# Recovery


@pytest.mark.parametrize(("since", "missed"), [(0, 10), (7, 3), (9, 1), (10, 0)])
async def test_returning_client_gets_exactly_what_it_missed(room: Open, since: int, missed: int) -> None:
    here = await room(history_limit=2)
    await here.fill(10)
    back = here.join(epoch=here.engine.epoch, since=str(since))
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
    room: Open, epoch: str | None, since: str | None
) -> None:
    here = await room(history_limit=2)
    await here.fill(10)
    back = here.join(epoch=here.engine.epoch if epoch == "right" else epoch, since=since)
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
    room: Open, history_limit: int, recovery_limit: int, since: int, seqs: list[int]
) -> None:
    here = await room(history_limit=history_limit, recovery_limit=recovery_limit)
    await here.fill(10)
    back = here.join(epoch=here.engine.epoch, since=str(since))
    assert back.seqs == seqs
    assert back.history["recovered"] is (10 - since <= recovery_limit)


async def test_empty_room_recovers_nothing_from_zero(room: Open) -> None:
    here = await room()
    back = here.join(epoch=here.engine.epoch, since="0")
    assert (back.history["recovered"], back.history["data"]) == (True, [])
    assert here.join(epoch=here.engine.epoch, since="1").history["recovered"] is False


async def test_history_frame_is_at_most_half_the_send_buffer(room: Open) -> None:
    here = await room(ws_send_buffer=65_536)
    await here.fill(12, "&" * 1000)  # 6 kB each
    for since, recovered in ((0, False), (None, False), (8, True)):
        back = here.join("reader", epoch=here.engine.epoch, since=since if since is None else str(since))
        assert back.history["recovered"] is recovered
        assert back.sender.sizes[0] <= 32_768
        assert back.seqs == list(range(13 - len(back.seqs), 13))
        assert recovered or back.sender.sizes[0] > 32_768 - 6_500


async def test_reader_survives_a_full_batch_with_the_smallest_send_buffer(room: Open) -> None:
    bounds = Settings.model_fields["ws_send_buffer"].metadata
    smallest = next(bound.ge for bound in bounds if hasattr(bound, "ge"))
    here = await room(ws_send_buffer=smallest)
    sent: list[Any] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message.get("code", "frame"))

    reader = at_once(here.chat.admit(Handshake("reader", "a", None)))
    sender = QueueSender(send, smallest, lambda: None)
    here.chat.join(reader, sender, None, None)
    await settle()  # it has read all
    writer = here.join("writer")
    for _ in range(256):
        writer.say("🎉" * 200)
    await writer.sender.until("message", 256)
    await settle()
    await sender.release()
    assert 4001 not in sent
    assert sent.count("frame") >= 256


# Coming and going


async def test_others_hear_who_comes_and_goes(room: Open, leave_at_once: None) -> None:
    here = await room()
    ada, bob = here.join("ada"), here.join("bob")
    assert ada.events == [("user_joined", "bob")]
    assert bob.events == []
    await bob.leave()
    (_, left) = await ada.sender.until("system", 2)
    assert ada.events[1] == ("user_left", "bob")
    assert set(left["data"]) == {"id", "username", "content", "timestamp", "event", "user"}
    assert (left["data"]["username"], left["data"]["content"]) == ("System", "bob left the chat")


async def test_session_that_comes_back_neither_left_nor_joined(room: Open, leave_at_once: None) -> None:
    here = await room()
    ada, bob = here.join("ada"), here.join("bob")
    for _ in range(3):
        await bob.leave()
        bob = here.join("bob")
        await settle()
    assert ada.events == [("user_joined", "bob")]
    await bob.leave()
    await ada.sender.until("system", 2)


async def test_tabs_of_one_session_come_and_go_unnoticed(room: Open, leave_at_once: None) -> None:
    here = await room()
    ada, first, second = here.join("ada"), here.join("bob"), here.join("BOB")
    assert second.sender.frames[1]["data"]["username"] == "bob"
    await first.leave()
    await settle()
    assert ada.events == [("user_joined", "bob")]
    assert here.chat.users == 2
    await second.leave()
    await ada.sender.until("system", 2)
    assert here.chat.users == 1


async def test_who_left_frees_the_name_and_joins_anew(room: Open, leave_at_once: None) -> None:
    here = await room()
    ada, bob = here.join("ada"), here.join("bob")
    await bob.leave()
    await ada.sender.until("system", 2)
    other = here.join("bob", address="b")
    assert other.connection.session is not bob.connection.session
    assert [event for event, _ in ada.events] == ["user_joined", "user_left", "user_joined"]


async def test_above_the_limit_nobody_is_announced(room: Open, leave_at_once: None) -> None:
    here = await room(announce_limit=2)
    ada = here.join("ada")
    here.join("bob")
    eve, mallory = here.join("eve"), here.join("mallory")
    await eve.leave()
    await settle()
    assert ada.events == [("user_joined", "bob")]
    await mallory.leave()
    await ada.sender.until("system", 2)
    assert ada.events[1] == ("user_left", "mallory")


async def test_changes_of_the_user_count_are_joined(room: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcer, "DELAY", 0.01)
    here = await room()
    ada = here.join("ada")
    others = []
    for number in range(5):
        others.append(here.join(f"user{number}"))
        await settle()
    await ada.sender.until("user_count", 2)
    assert ada.counts == [1, 6]
    await asyncio.gather(*(other.leave() for other in others))
    await ada.sender.until("user_count", 3)
    await asyncio.sleep(0.03)
    assert ada.counts == [1, 6, 1]


async def test_user_count_falls_when_a_newcomer_goes_before_it_joined(
    room: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its session had just left, and its handshake failed late."""
    monkeypatch.setattr(announcer, "DELAY", 0)
    here = await room()
    ada, bob = here.join("ada"), here.join("bob")
    await ada.sender.until("user_count", 2)
    await bob.leave()
    await ada.sender.until("user_count", 3)
    back = at_once(here.chat.admit(Handshake("bob", "a", None)))
    await ada.sender.until("user_count", 4)
    here.chat.leave(back)
    await settle()
    assert ada.counts == [1, 2, 1, 2, 1]


async def test_newcomer_that_never_joined_leaves_nothing_behind(room: Open, leave_at_once: None) -> None:
    here = await room()
    ada = here.join("ada")
    newcomer = at_once(here.chat.admit(Handshake("bob", "a", None)))
    here.chat.leave(newcomer)
    here.chat.leave(newcomer)
    await settle()
    assert (len(here.registry), here.chat.users) == (1, 1)
    assert ada.events == [("user_joined", "bob"), ("user_left", "bob")]
    here.join("bob", address="b")


async def test_stop_forgets_who_was_about_to_leave(room: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence_module, "LEAVE_DELAY", 0.005)
    here = await room()
    ada, bob = here.join("ada"), here.join("bob")
    await bob.leave()
    await here.chat.stop()
    await asyncio.sleep(0.02)
    assert ada.events == [("user_joined", "bob")]


# Nothing lost, nothing doubled


@pytest.mark.parametrize("engine", ["memory", "sqlite"])
@pytest.mark.parametrize("seed", range(3))
async def test_nothing_is_lost_or_doubled_while_clients_come_and_go(
    room: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, engine: str, seed: int
) -> None:
    monkeypatch.setattr(registry_module, "YIELD_AFTER", -1.0)  # a fan-out gives the loop back as often as it can
    url = "memory://" if engine == "memory" else f"sqlite:///{tmp_path}/chat.db"
    here = await room(engine_url=url, history_limit=20, recovery_limit=10_000)
    chance = random.Random(seed)
    writer = here.join("writer")
    crowd = [here.join(f"crowd{number}") for number in range(130)]
    written = asyncio.Event()

    async def write() -> None:
        for number in range(400):
            writer.say(f"{number}")
            if chance.random() < 0.3:
                await asyncio.sleep(chance.choice([0, 0, 0.001]))
        await here.engine.flush()
        written.set()

    async def travel(name: str) -> list[int]:
        """Comes and goes until all is written, then comes once more; returns all that it saw."""
        seen: list[int] = []
        last = False
        while not last:
            last = written.is_set()
            since = str(seen[-1]) if seen else None
            visit = here.join(name, epoch=here.engine.epoch, since=since)
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


async def test_each_event_is_one_line(room: Open, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "app")
    here = await room()
    ada = here.join("ada")
    ada.say("Hello\n[INFO] User connected: root")
    ada.say("x" * 200)
    lines = [LineFormatter().format(entry) for entry in caplog.records]
    assert lines == [
        "[INFO] User connected: ada",
        r"[INFO] Message from ada: Hello\n[INFO] User connected: root",
        "[INFO] Message from ada: " + "x" * 80,
    ]


async def test_message_content_is_kept_out_of_the_log(room: Open, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "app")
    here = await room(log_message_content=False)
    here.join("ada").say("Hello")
    await here.engine.flush()
    assert "Hello" not in caplog.text
    assert caplog.records[-1].getMessage() == "Message from ada: (5 characters)"


async def test_post_over_http_that_is_never_answered_is_given_up(room: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    here = await room()
    monkeypatch.setattr(chat_module, "POST_PATIENCE", 0.01)
    with monkeypatch.context() as patch:
        patch.setattr(here.engine, "publish", lambda draft, answer: None)
        with pytest.raises(Unavailable):
            await here.chat.post_as_owner("Hello", None)
    message, new = await here.chat.post_as_owner("Hello", None)
    assert (message.seq, new, here.chat._posting) == (1, True, {})


async def test_room_that_lost_what_was_not_told_yet_is_left_before_anything_else_is_told(room: Open) -> None:
    """Else a client could recover from there, without what is missing."""
    one = await room(shutdown_spread=1)
    members = [one.join(f"member{number}") for number in range(10)]
    one.chat.renew([], [])
    await one.fill(1)
    assert [(member.sender.code, member.seqs) for member in members] == [(CloseCode.RESTART, [])] * 10


async def test_room_with_another_epoch_is_left_by_one_after_the_other(room: Open) -> None:
    one = await room(shutdown_spread=0.1)
    members = [one.join(f"member{number}") for number in range(10)]
    one.engine.epoch = "another"
    one.chat.renew([], [])
    await asyncio.sleep(0)
    assert [member.sender.code for member in members].count(None) > 1
    await until(lambda: all(member.sender.code is CloseCode.RESTART for member in members))
