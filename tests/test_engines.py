"""One contract, every engine: order, nonces, the past, and a store that fails or hangs."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from app.config import Settings
from app.engines import Engine, drafts, open_engine, writer
from app.engines.memory import MemoryEngine
from app.engines.redis import RedisEngine
from app.engines.redis_room import RedisRoom
from app.engines.sql import BY_NONCE, PAIR, SCHEMA
from app.engines.sqlite import SQLiteEngine
from app.exceptions import ChatError, NonceReused, StoreError, Unavailable
from app.message import Change, Draft, Hiding, Message
from tests.fakes import draft
from tests.running import until

pytestmark = pytest.mark.anyio

BATCH = 500_000  # bytes


class Room:
    """One engine, what it delivered, and what it answered."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.delivered: list[Message] = []
        self.answers: list[Message | ChatError] = []
        self.batches: list[int] = []
        self.hidden: list[Hiding] = []
        self.changes: list[Change] = []
        self.renewed = 0
        self.troubles = 0
        self.changed = asyncio.Event()

    def renew(self, past: Sequence[Message], hidden: Sequence[Hiding]) -> None:
        self.delivered, self.hidden = list(past), list(hidden)
        self.renewed += 1

    def trouble(self) -> None:
        self.troubles += 1

    async def deliver(self, messages: Sequence[Message]) -> None:
        self.delivered += messages
        self.batches.append(len(messages))
        self.changed.set()

    async def change(self, change: Change) -> None:
        self.changes.append(change)
        self.changed.set()

    def answer(self, answer: Message | ChatError) -> None:
        self.answers.append(answer)
        self.changed.set()

    def publish(self, *drafts: Draft) -> None:
        for new in drafts:
            self.engine.publish(new, self.answer)

    async def until(self, delivered: int = 0, answered: int = 0) -> None:
        async with asyncio.timeout(5):
            while len(self.delivered) < delivered or len(self.answers) < answered:
                self.changed.clear()
                await self.changed.wait()

    def hold(self, monkeypatch: pytest.MonkeyPatch) -> tuple[asyncio.Event, asyncio.Event]:
        """Keeps deliveries waiting: the first event says that one does, the second lets all of them go."""
        busy, flowing, deliver = asyncio.Event(), asyncio.Event(), self.deliver

        async def slowly(messages: Sequence[Message]) -> None:
            busy.set()
            await flowing.wait()
            await deliver(messages)

        monkeypatch.setattr(self, "deliver", slowly)
        return busy, flowing

    @property
    def texts(self) -> list[str]:
        return [message.text for message in self.delivered]

    @property
    def seqs(self) -> list[int]:
        return [message.seq for message in self.delivered]

    def healthy(self) -> bool:
        return self.engine.healthy

    @property
    def refusals(self) -> list[type[object]]:
        return [type(answer) for answer in self.answers]


async def opened(engine: Engine) -> Room:
    room = Room(engine)
    await engine.start(room)
    return room


def sqlite_engine(tmp_path: Path, keep: int = 100, lock_timeout: float = 5.0) -> SQLiteEngine:
    return SQLiteEngine(str(tmp_path / "new" / "chat.db"), keep, BATCH, lock_timeout)


def make(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    if request.param == "redis":
        return RedisEngine(RedisRoom(request.getfixturevalue("redis_url")), 100, BATCH)
    return sqlite_engine(tmp_path) if request.param == "sqlite" else MemoryEngine(100, BATCH)


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def room(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Room]:
    room = await opened(make(request, tmp_path))
    yield room
    await room.engine.stop()


class Store:
    """What an engine stores with, which can be made to fail or to hang."""

    def __init__(self, engine: Engine) -> None:
        self.store = engine._store
        self.fault: Exception | None = None
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.entered = asyncio.Event()
        self.drafts: list[int] = []
        engine._store = self  # type: ignore[method-assign]

    async def __call__(self, drafts: list[Draft]) -> list[Message]:
        self.drafts.append(len(drafts))
        self.entered.set()
        await self.flowing.wait()
        if self.fault:
            raise self.fault
        return await self.store(drafts)


async def test_new_store_is_empty_and_healthy(room: Room) -> None:
    assert (room.engine.seq, room.healthy(), room.delivered) == (0, True, [])
    assert len(room.engine.epoch) == 36


async def test_messages_are_delivered_in_order_and_numbered_without_gaps(room: Room) -> None:
    posted = [draft(f"{number}") for number in range(600)]
    room.publish(*posted[:1])
    await room.until(delivered=1)
    room.publish(*posted[1:])
    await room.until(delivered=600)
    assert room.seqs == list(range(1, 601)) == list(range(1, room.engine.seq + 1))
    assert room.texts == [new.text for new in posted]
    assert room.answers == []


async def test_message_is_its_draft_with_a_seq(room: Room) -> None:
    new = Draft("id", "session", "ada", "&lt;é🎉", "<é🎉", 1234.5678, "nonce", "owner")
    room.publish(new)
    await room.until(delivered=1)
    expected = Message("id", "session", "ada", "&lt;é🎉", "<é🎉", 1234.5678, "nonce", "owner", 1)
    assert room.delivered == [expected]


async def test_what_waits_is_stored_in_batches_of_bounded_number_and_size(room: Room) -> None:
    room.publish(*[draft("x") for _ in range(300)])
    await room.until(delivered=300)
    assert room.batches == [256, 44]
    room.publish(*[draft("x" * 10_000) for _ in range(10)])
    await room.until(delivered=310)
    assert room.batches[2:] == [6, 4]


@pytest.mark.parametrize("together", [True, False])
async def test_nonce_used_again_is_answered_with_the_stored_message(room: Room, together: bool) -> None:
    room.publish(draft("one", "n"))
    if not together:
        await room.until(delivered=1)
    room.publish(draft("one", "n"), draft("two"))
    await room.until(delivered=2, answered=1)
    assert (room.texts, room.seqs) == (["one", "two"], [1, 2])
    assert room.answers == [room.delivered[0]]


@pytest.mark.parametrize("together", [True, False])
async def test_nonce_used_for_another_text_is_refused(room: Room, together: bool) -> None:
    room.publish(draft("one", "n"))
    if not together:
        await room.until(delivered=1)
    room.publish(draft("other", "n"), draft("two"))
    await room.until(delivered=2, answered=1)
    assert (room.texts, room.seqs) == (["one", "two"], [1, 2])
    assert room.refusals == [NonceReused]


async def test_nonce_belongs_to_its_session_and_may_be_left_out(room: Room) -> None:
    room.publish(draft("a", "n"), draft("a", "n", session="other"), draft("a"), draft("a"))
    await room.until(delivered=4)
    assert (room.seqs, room.answers) == ([1, 2, 3, 4], [])


async def test_stop_stores_and_delivers_what_was_accepted(room: Room) -> None:
    room.publish(*[draft(f"{number}") for number in range(300)])
    await room.engine.stop()
    assert room.seqs == list(range(1, 301))
    with pytest.raises(Unavailable):
        room.publish(draft("late"))
    await room.engine.stop()


async def test_flush_waits_for_what_was_accepted(room: Room) -> None:
    await room.engine.flush()
    room.publish(*[draft("x") for _ in range(300)])
    await room.engine.flush()
    assert len(room.delivered) == 300


async def test_full_queue_refuses_and_loses_nothing(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafts, "QUEUE_LIMIT", 3)
    room.publish(*[draft(f"{number}") for number in range(3)])
    with pytest.raises(Unavailable):
        room.publish(draft("too many"))
    await room.until(delivered=3)
    room.publish(draft("again"))
    await room.until(delivered=4)
    assert room.texts == ["0", "1", "2", "again"]


async def test_failing_store_refuses_and_recovers_without_traffic(
    room: Room, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "app")
    monkeypatch.setattr(writer, "PROBE_BROKEN", 0.001)
    store = Store(room.engine)
    store.fault = StoreError("the disk is full")
    room.publish(draft("one", "n"), draft("two"))
    await room.until(answered=2)
    assert (room.refusals, room.healthy()) == ([Unavailable, Unavailable], False)
    await probed(store, 3)
    assert not room.healthy()
    store.fault = None
    await until(room.healthy)
    room.publish(draft("one", "n"))
    await room.until(delivered=1)
    assert (room.seqs, room.texts) == ([1], ["one"])
    told = [entry.getMessage() for entry in caplog.records]
    assert told == ["Messages cannot be stored: the disk is full", "Messages are stored again"]


async def probed(store: Store, times: int) -> None:
    """Waits until the store has been tried without any draft, and what came of it is noted."""
    seen = len(store.drafts)
    async with asyncio.timeout(5):
        while store.drafts[seen:].count(0) < times:
            store.entered.clear()
            await store.entered.wait()
    for _ in range(10):
        await asyncio.sleep(0.001)


async def test_idle_store_is_tried_so_that_a_fault_is_found_without_traffic(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "PROBE_IDLE", 0.001)
    monkeypatch.setattr(writer, "PROBE_BROKEN", 0.001)
    store = Store(room.engine)
    store.fault = StoreError("read-only")
    room.publish(draft("wakes the writer"))
    await room.until(answered=1)
    store.fault = None
    await until(room.healthy)
    store.fault = StoreError("read-only")
    await until(lambda: not room.healthy())
    assert (room.engine.seq, room.delivered) == (0, [])


async def test_hanging_store_refuses_in_time_and_delivers_late(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PATIENCE", 0.01)
    store = Store(room.engine)
    store.flowing.clear()
    room.publish(draft("one", "n"))
    await room.until(answered=1)
    room.publish(draft("behind"))
    await room.until(answered=2)
    assert (room.refusals, room.healthy(), room.delivered) == ([Unavailable, Unavailable], False, [])
    store.flowing.set()
    await room.until(delivered=1)
    monkeypatch.setattr(writer, "PATIENCE", 5.0)
    await until(room.healthy)
    assert room.texts == ["one"]
    room.publish(draft("one", "n"), draft("two"))
    await room.until(delivered=2, answered=3)
    assert room.answers[2] == room.delivered[0]
    assert room.seqs == [1, 2]


async def test_hanging_store_that_fails_in_the_end_answers_once(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PATIENCE", 0.01)
    store = Store(room.engine)
    store.flowing.clear()
    room.publish(draft("one"))
    await room.until(answered=1)
    store.fault = StoreError("gone")
    store.flowing.set()
    room.publish(draft("two"))
    await room.until(answered=2)
    assert (room.refusals, room.delivered) == ([Unavailable, Unavailable], [])


async def test_stop_does_not_wait_for_ever_for_a_store_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PATIENCE", 0.01)
    room = await opened(MemoryEngine(100, BATCH))
    store = Store(room.engine)
    store.flowing.clear()
    room.publish(draft("one"))
    async with asyncio.timeout(5):
        await room.engine.stop()
    assert room.refusals == [Unavailable]


@pytest.mark.parametrize("place", ["store", "deliver"])
async def test_unexpected_exception_is_logged_and_the_writer_survives(
    room: Room, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    store = Store(room.engine)
    if place == "store":
        store.fault = RuntimeError("a bug")
    else:
        monkeypatch.setattr(room, "delivered", None)  # so that adding to it raises
    room.publish(draft("one"))
    async with asyncio.timeout(5):
        while not caplog.records:
            await asyncio.sleep(0.001)
    assert caplog.records[0].exc_info
    store.fault = None
    monkeypatch.setattr(room, "delivered", [])
    room.publish(draft("two"))
    await room.until(delivered=1)
    assert room.texts == ["two"]


async def test_stop_is_safe_when_start_failed(tmp_path: Path) -> None:
    engine = SQLiteEngine(str(tmp_path / "x" / "chat.db"), 100, BATCH, 0)
    (tmp_path / "x").write_text("a file where a directory should be")
    with pytest.raises(StoreError, match="directory"):
        await engine.start(Room(engine))
    await engine.stop()
    await engine.stop()


async def test_sqlite_keeps_history_numbers_epoch_and_nonces_over_a_restart(tmp_path: Path) -> None:
    first = await opened(sqlite_engine(tmp_path))
    first.publish(*[draft(f"{number}", f"n{number}") for number in range(5)])
    await first.engine.stop()
    second = await opened(sqlite_engine(tmp_path, keep=3))
    assert second.delivered == first.delivered[-3:]
    assert (second.engine.seq, second.engine.epoch) == (5, first.engine.epoch)
    second.publish(draft("0", "n0"), draft("5"))
    await second.until(delivered=4, answered=1)
    assert (second.answers, second.seqs) == ([first.delivered[0]], [3, 4, 5, 6])
    await second.engine.stop()


async def test_sqlite_never_gives_a_number_twice(tmp_path: Path) -> None:
    first = await opened(sqlite_engine(tmp_path))
    first.publish(draft("one"), draft("two"))
    await first.engine.stop()
    with sqlite3.connect(tmp_path / "new" / "chat.db") as db:
        db.execute("DELETE FROM message")
    db.close()
    second = await opened(sqlite_engine(tmp_path))
    second.publish(draft("three"))
    await second.engine.stop()
    assert (first.seqs, second.seqs) == ([1, 2], [3])


async def test_sqlite_stores_a_batch_whole_or_not_at_all(tmp_path: Path) -> None:
    room = await opened(sqlite_engine(tmp_path))
    twin = draft("one")
    with pytest.raises(StoreError):
        await room.engine._store([draft("zero"), Draft("x", "s", "ada", "", None, 0.0)])  # type: ignore[arg-type]
    room.publish(twin)
    await room.engine.stop()
    assert room.seqs == [1]


async def test_sqlite_file_serves_one_process_at_a_time(tmp_path: Path) -> None:
    first = await opened(sqlite_engine(tmp_path))
    refused = sqlite_engine(tmp_path, lock_timeout=0.01)
    with pytest.raises(StoreError, match="in use by another process") as caught:
        await refused.start(Room(refused))
    await refused.stop()
    assert "ENGINE_URL" in str(caught.value)
    waiting = asyncio.create_task(opened(sqlite_engine(tmp_path)))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await first.engine.stop()
    async with asyncio.timeout(5):
        second = await waiting
    await second.engine.stop()


@pytest.mark.parametrize("version", [None, 0, 1, len(SCHEMA) + 1])
async def test_sqlite_leaves_a_foreign_file_as_it_is(tmp_path: Path, version: int | None) -> None:
    """No database, another program's without and with a version of its own, and one of a newer version."""
    path = tmp_path / "chat.db"
    if version is None:
        path.write_bytes(b"My diary. Dear diary, today I wrote more than a hundred bytes about my chat server." * 20)
    else:
        db = sqlite3.connect(path)
        db.execute("CREATE TABLE diary (entry TEXT)")
        db.execute(f"PRAGMA user_version = {version}")
        db.close()
    before = path.read_bytes()
    engine = SQLiteEngine(str(path), 100, BATCH, 0)
    with pytest.raises(StoreError) as caught:
        await engine.start(Room(engine))
    await engine.stop()
    assert str(path) in str(caught.value)
    assert "ENGINE_URL" in str(caught.value)
    assert path.read_bytes() == before


async def test_sqlite_has_one_thread_that_writes_and_one_that_reads_and_both_end(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    room = await opened(sqlite_engine(tmp_path))
    room.publish(draft("one"))
    await room.until(delivered=1)
    await room.engine.page(0, 1)
    threads = set(threading.enumerate()) - before
    assert sorted(thread.name for thread in threads) == ["sqlite reader_0", "sqlite writer_0"]
    await room.engine.stop()
    for thread in threads:
        await asyncio.to_thread(thread.join, 5)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("url", "kind"),
    [("memory://", MemoryEngine), ("sqlite:///data/chat.db", SQLiteEngine), ("sqlite:////tmp/chat.db", SQLiteEngine)],
)
@pytest.mark.parametrize(("history", "recovery"), [(10, 20), (20, 10)])
async def test_engine_is_chosen_by_its_url(url: str, kind: type[Engine], history: int, recovery: int) -> None:
    settings = Settings(engine_url=url, history_limit=history, recovery_limit=recovery)
    engine = open_engine(settings)
    assert type(engine) is kind
    assert engine.keep == 21
    await engine.stop()


async def test_sqlite_finds_nonces_without_looking_through_the_table() -> None:
    db = sqlite3.connect(":memory:")
    db.executescript("".join(SCHEMA))
    plan = db.execute("EXPLAIN QUERY PLAN " + BY_NONCE % PAIR, ("session", "nonce")).fetchall()
    db.close()
    assert any("SEARCH message USING INDEX message_by_nonce (session=? AND nonce=?)" in step for *_, step in plan)
    assert not any(step.startswith("SCAN message") for *_, step in plan)
