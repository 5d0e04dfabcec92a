"""One contract, every engine: what is paged, found, hidden, pruned and amended, and a store that fails meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from app.engines import Engine, writer
from app.engines.memory import MemoryEngine
from app.engines.redis import RedisEngine
from app.engines.redis_room import RedisRoom
from app.engines.sqlite import SQLiteEngine
from app.exceptions import NonceReused, StoreError
from app.message import Change, Draft, Hiding, Message
from tests.fakes import draft
from tests.running import until
from tests.test_engines import BATCH, Room, make, opened, sqlite_engine

pytestmark = pytest.mark.anyio


class Diary(Room):
    """A room that knows in which order it was told everything: `3` for a message, `-3` for one that was hidden."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.told: list[int] = []

    async def deliver(self, messages: Any) -> None:
        await super().deliver(messages)
        self.told += [message.seq for message in messages]

    async def change(self, change: Change) -> None:
        await super().change(change)
        self.told += [-hiding.seq for hiding in change.hidden]


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def room(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Diary]:
    engine = make(request, tmp_path)
    room = Diary(engine)
    await engine.start(room)
    yield room
    await room.engine.stop()


def another(room: Room) -> Engine:
    """An engine for the same store."""
    if isinstance(room.engine, RedisEngine):
        return RedisEngine(RedisRoom(room.engine.room._client.connection_pool.connection_kwargs["url"]), 100, BATCH)
    assert isinstance(room.engine, SQLiteEngine)
    return SQLiteEngine(str(room.engine._path), 100, BATCH, 5.0)


def by(name: str, text: str, nonce: str | None = None) -> Draft:
    """A draft of somebody, whose session is as the name in small letters."""
    plain = draft(text, nonce, session=name.lower(), timestamp=time.time())
    return Draft(plain.id, plain.session, name, text, text, plain.timestamp, nonce)


async def fill(room: Room, count: int) -> list[Message]:
    room.publish(*[by("Ada" if number % 2 else "bob", f"{number}", f"n{number}") for number in range(1, count + 1)])
    await room.until(delivered=count)
    return room.delivered


async def seqs(room: Room, after: int = 0, limit: int = 1000) -> list[int]:
    return [message.seq for message in await room.engine.page(after, limit)]


async def test_page_is_the_oldest_and_find_the_newest(room: Diary) -> None:
    assert (await room.engine.page(0, 10), await room.engine.find("username", "ada", 10)) == ([], [])
    posted = await fill(room, 30)
    assert await room.engine.page(0, 1000) == posted
    assert [await seqs(room, after, 7) for after in (0, 7, 28, 30, 2**53)] == [
        list(range(1, 8)),
        list(range(8, 15)),
        [29, 30],
        [],
        [],
    ]
    for name in ("ada", "ADA"):
        assert [message.seq for message in await room.engine.find("username", name, 3)] == [29, 27, 25]
    assert await room.engine.find("session", "bob", 1) == [posted[29]]
    assert await room.engine.find("id", posted[4].id, 5) == [posted[4]]
    for nothing in ("", "ad", "%", "ada' OR 1=1 --", "*"):
        assert await room.engine.find("username", nothing, 5) == []


async def test_hidden_messages_are_in_no_page_and_told_once_in_order(room: Diary) -> None:
    posted = list(await fill(room, 5))
    assert await room.engine.hide("id", posted[2].id) == 1
    room.publish(by("Ada", "6"))
    await room.until(delivered=6)
    assert await room.engine.hide("username", "BOB") == 2
    assert await room.engine.hide("session", "ada") == 3
    assert [await room.engine.hide("id", posted[2].id), await room.engine.hide("username", "ada")] == [0, 0]
    assert room.told == [1, 2, 3, 4, 5, -3, 6, -4, -2, -6, -5, -1]
    assert room.changes[0].hidden == (Hiding(3, posted[2].id, 5),)
    assert (await seqs(room), await room.engine.find("username", "ada", 9), room.engine.seq) == ([], [], 6)


async def test_many_messages_are_hidden_a_few_at_once(room: Diary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.engines.base.HIDE_STEP", 3)
    await fill(room, 16)
    assert await room.engine.hide("username", "ADA") == 8
    assert [len(change.hidden) for change in room.changes] == [3, 3, 2]
    assert await seqs(room) == list(range(2, 17, 2))


async def test_acts_at_the_same_time_hide_each_message_once(room: Diary) -> None:
    posted = await fill(room, 6)
    acts = [room.engine.hide("id", message.id) for message in posted for _ in range(3)]
    counts = await asyncio.gather(*acts, room.engine.hide("username", "ada"))
    assert sorted(room.told[6:]) == [-6, -5, -4, -3, -2, -1]
    assert sum(counts) == 6


async def test_what_was_posted_before_an_act_is_told_before_it(room: Diary) -> None:
    """Acts and posts in a random order: nothing is hidden before it was told, and all that was hidden is gone."""
    dice, acts = random.Random(7), []
    for number in range(1, 201):
        room.publish(by("Ada", f"{number}"))
        if dice.random() < 0.2:
            await room.until(delivered=dice.randint(1, number))
            acts.append(asyncio.create_task(room.engine.hide("id", dice.choice(room.delivered).id)))
    hidden = sum(await asyncio.gather(*acts))
    await room.until(delivered=200)
    gone = [-told for told in room.told if told < 0]
    assert len(gone) == len(set(gone)) == hidden
    assert [told for told in room.told if told > 0] == list(range(1, 201))
    assert all(room.told.index(seq) < room.told.index(-seq) for seq in gone)
    assert await seqs(room) == sorted(set(range(1, 201)) - set(gone))


async def test_pruned_messages_are_gone_and_never_come_back(room: Diary) -> None:
    await fill(room, 10)
    for seq in (4, 7, 2, 7):
        await room.engine.prune(seq)
    assert (room.engine.pruned, room.engine.seq, await seqs(room)) == (7, 10, [8, 9, 10])
    assert [change.pruned for change in room.changes][:2] == [4, 7]
    await room.engine.hide("username", "ada")
    assert room.told[10:] == [-9]
    await room.engine.prune(10)
    assert await seqs(room) == []
    room.publish(by("Ada", "next"))
    await room.until(delivered=11)
    assert await seqs(room) == [11]


async def test_nonce_of_what_is_gone_is_answered_with_what_is_left(room: Diary) -> None:
    posted = list(await fill(room, 6))
    await room.engine.hide("id", posted[4].id)
    await room.engine.prune(2)
    room.publish(by("bob", "2", "n2"), by("Ada", "5", "n5"), by("Ada", "other", "n5"), by("Ada", "other", "n3"))
    await room.until(answered=4)
    left = [cast(Message, answer) for answer in room.answers[:3]]
    assert [(message.gone, message.id, message.nonce) for message in left] == [
        (True, posted[1].id, "n2"),
        (True, posted[4].id, "n5"),
        (True, posted[4].id, "n5"),
    ]
    assert isinstance(room.answers[3], NonceReused)
    room.publish(by("bob", "other session", "n5"))
    await room.until(delivered=7)


async def test_rules_are_replaced_only_where_the_old_ones_hold(room: Diary) -> None:
    assert room.engine.rules == ""
    assert await room.engine.amend("", "{}")
    assert [await room.engine.amend("", "mine"), await room.engine.amend("others", "mine")] == [False, False]
    assert (room.engine.rules, [change.rules for change in room.changes]) == ("{}", ["{}"])
    outcomes = await asyncio.gather(*(room.engine.amend("{}", f"{number}") for number in range(10)))
    assert outcomes.count(True) == 1
    assert room.engine.rules == f"{outcomes.index(True)}"
    assert len(room.changes) == 2


@pytest.mark.parametrize("room", ["sqlite"], indirect=True)
async def test_restart_tells_what_is_left_and_what_was_hidden(room: Diary, tmp_path: Path) -> None:
    posted = list(await fill(room, 8))
    await room.engine.hide("id", posted[4].id)
    room.publish(by("Ada", "9"))
    await room.until(delivered=9)
    await room.engine.hide("id", posted[1].id)
    await room.engine.prune(3)
    await room.engine.amend("", "rules")
    await room.engine.stop()
    for keep, left, hidden in ((100, [4, 6, 7, 8, 9], [5, 2]), (2, [8, 9], [5, 2]), (1, [9], [2])):
        again = await opened(sqlite_engine(tmp_path, keep))
        assert (again.seqs, [hiding.seq for hiding in again.hidden]) == (left, hidden)
        assert (again.engine.seq, again.engine.pruned, again.engine.rules) == (9, 3, "rules")
        await again.engine.stop()


async def test_workers_tell_the_same_in_the_same_order_and_amend_in_turn(redis_url: str) -> None:
    rooms = [Diary(RedisEngine(RedisRoom(redis_url), 100, BATCH)) for _ in range(2)]
    for room in rooms:
        await room.engine.start(room)
    one, two = rooms
    for number in range(1, 101):
        rooms[number % 2].publish(by("Ada" if number % 3 else "bob", f"{number}"))
    acts = [room.engine.hide("username", "ada") for room in rooms]
    won = await asyncio.gather(*(room.engine.amend("", f"{number}") for number, room in enumerate(rooms * 5)), *acts)
    assert won[:10].count(True) == 1
    for room in rooms:
        await room.until(delivered=100)
    await one.engine.hide("username", "bob")
    await two.engine.prune(50)
    await until(lambda: one.engine.pruned == two.engine.pruned == 50 and len(one.changes) == len(two.changes))
    assert (one.told, one.changes) == (two.told, two.changes)
    assert one.engine.rules == two.engine.rules == f"{won.index(True)}"
    late = await opened(RedisEngine(RedisRoom(redis_url), 100, BATCH))
    assert (late.engine.seq, late.engine.pruned, late.engine.rules) == (100, 50, one.engine.rules)
    assert late.hidden == [hiding for change in one.changes for hiding in change.hidden if hiding.at >= 50]
    for each in (*rooms, late):
        await each.engine.stop()


async def test_store_that_fails_during_an_act_says_so_and_works_again(
    room: Diary, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(room, 3)
    apply = room.engine._apply

    async def fail(change: Change, old: str) -> Change | None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(room.engine, "_apply", fail)
    for act in (room.engine.hide("username", "ada"), room.engine.prune(2), room.engine.amend("", "{}")):
        with pytest.raises(StoreError, match="the disk is full"):
            await act
    assert (room.changes, room.engine.pruned, room.engine.rules) == ([], 0, "")
    monkeypatch.setattr(room.engine, "_apply", apply)
    assert await room.engine.hide("username", "ada") == 2
    room.publish(by("Ada", "4"))
    await room.until(delivered=4)
    assert room.told == [1, 2, 3, -3, -1, 4]


async def test_acts_and_posts_behind_one_that_hangs_are_refused_in_time(
    room: Diary, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(room, 3)
    flowing, entered, apply = asyncio.Event(), asyncio.Event(), room.engine._apply

    async def hang(change: Change, old: str) -> Change | None:
        entered.set()
        await flowing.wait()
        return await apply(change, old)

    monkeypatch.setattr(room.engine, "_apply", hang)
    monkeypatch.setattr(writer, "PATIENCE", 0.1)
    act = asyncio.create_task(room.engine.amend("", "late"))
    await entered.wait()
    room.publish(by("Ada", "behind"))
    for refused in (act, room.engine.prune(1), room.engine.hide("id", room.delivered[0].id)):
        with pytest.raises(StoreError, match="does not answer"):
            await refused
    await room.until(answered=1)
    assert (len(room.answers), len(room.delivered), room.healthy()) == (1, 3, False)
    monkeypatch.setattr(writer, "PATIENCE", 5.0)
    flowing.set()
    await until(lambda: room.engine.rules == "late")  # it was not known to be done, and is
    await until(room.healthy)
    room.publish(by("Ada", "next"))
    await room.until(delivered=4)
    assert await seqs(room) == [1, 2, 3, 4]  # whose acts were refused while they waited, are not done


async def test_reading_a_store_that_hangs_is_given_up_in_time(room: Diary, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(room, 3)
    monkeypatch.setattr(writer, "PATIENCE", 0.1)
    monkeypatch.setattr("app.engines.base.SEARCH_PATIENCE", 0.1)
    flowing = asyncio.Event()

    async def hang(*_: object) -> list[Message]:
        await flowing.wait()
        return []

    monkeypatch.setattr(room.engine, "_find", hang)
    async with asyncio.timeout(5):
        for act in (room.engine.page(0, 1), room.engine.find("id", "x", 1), room.engine.hide("id", "x")):
            with pytest.raises(StoreError):
                await act


async def test_too_many_acts_and_acts_at_the_end_are_refused(room: Diary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "ACTS_LIMIT", 2)
    acts = [asyncio.create_task(room.engine.amend("", f"{number}")) for number in range(3)]
    with pytest.raises(StoreError, match="too much"):
        await acts[2]
    assert [await act for act in acts[:2]] == [True, False]
    accepted = asyncio.create_task(room.engine.amend("0", "the last"))
    await asyncio.sleep(0)
    await room.engine.stop()
    assert await accepted
    with pytest.raises(StoreError):
        await room.engine.prune(1)


async def test_sqlite_hides_and_prunes_while_another_program_reads(tmp_path: Path) -> None:
    """A copy is being made, say: nobody waits for it, and the rest of the log goes when it is done."""
    room = await opened(sqlite_engine(tmp_path))
    await fill(room, 3)
    path = tmp_path / "new" / "chat.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM message").fetchone() == (3,)
        async with asyncio.timeout(2):
            assert await room.engine.hide("username", "ada") == 2
            await room.engine.prune(2)
            room.publish(by("Ada", "4"))
            await room.until(delivered=4)
        reader.execute("COMMIT")
    await room.engine.prune(3)
    assert (tmp_path / "new" / "chat.db-wal").stat().st_size < 10_000
    await room.engine.stop()


class Faulty:
    """A connection that fails at what only tidies up."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __getattr__(self, name: str) -> Any:
        def work(query: str, *parameters: Any) -> Any:
            if "vacuum" in query or "checkpoint" in query:
                raise sqlite3.OperationalError("database or disk is full")
            return getattr(self._db, name)(query, *parameters)

        return work if name.startswith("execute") else getattr(self._db, name)


async def test_what_was_stored_is_told_though_the_file_could_not_be_tidied_up() -> None:
    engine = MemoryEngine(100, BATCH)
    room = Diary(engine)
    await engine.start(room)
    await fill(room, 3)
    assert engine._db
    engine._db = cast(sqlite3.Connection, Faulty(engine._db))
    with contextlib.suppress(StoreError):
        await engine.hide("username", "ada")
    assert [-seq for seq in room.told if seq < 0] == [seq for seq in (3, 1) if seq not in await seqs(room)]
    await engine.stop()


@pytest.mark.parametrize("keep_free", [20])
async def test_sqlite_file_gives_back_what_it_does_not_need(tmp_path: Path, keep_free: int) -> None:
    room = await opened(sqlite_engine(tmp_path))
    room.publish(*[draft("x" * 5000) for _ in range(500)])
    await room.until(delivered=500)
    await room.engine.prune(490)
    while await room.engine.tidy():
        pass
    with contextlib.closing(sqlite3.connect(tmp_path / "new" / "chat.db")) as db:
        assert db.execute("PRAGMA freelist_count").fetchone()[0] < keep_free
    assert (tmp_path / "new" / "chat.db").stat().st_size < 500_000
    await room.engine.stop()
