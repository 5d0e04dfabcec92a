"""The database file: who may read it, by which name it is known, that it shrinks again, and how it is searched."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import stat
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.config import Settings
from app.engines import open_archive, open_engine, sql
from app.engines.sqlite import SQLiteEngine
from app.engines.sqlite_file import let_shrink
from app.exceptions import StoreError
from app.message import Message
from tests.fakes import draft
from tests.test_engines import BATCH, Room, opened

pytestmark = pytest.mark.anyio

DAY = 86_400.0


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    room = await opened(SQLiteEngine(str(tmp_path / "chat.db"), 100, BATCH, 0.0))
    yield room
    await room.engine.stop()


def rows(room: Room) -> list[int]:
    """What is in the file, also of messages that are gone."""
    assert isinstance(room.engine, SQLiteEngine)
    with contextlib.closing(sqlite3.connect(room.engine._path)) as db:
        return [seq for (seq,) in db.execute("SELECT seq FROM message ORDER BY seq")]


async def restarted(room: Room) -> None:
    assert isinstance(room.engine, SQLiteEngine)
    await room.engine.stop()
    room.engine = SQLiteEngine(str(room.engine._path), 100, BATCH, 0.0)
    await room.engine.start(room)


async def test_file_is_nobody_else_s_business(room: Room, tmp_path: Path) -> None:
    room.publish(draft("hello"))
    await room.until(delivered=1)
    for file in ("chat.db", "chat.db-wal", "chat.db-shm", "chat.db.lock"):
        assert stat.S_IMODE((tmp_path / file).stat().st_mode) == 0o600, file


async def test_mode_of_a_file_that_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "chat.db").touch(0o640)
    (tmp_path / "chat.db").chmod(0o640)
    room = await opened(SQLiteEngine(str(tmp_path / "chat.db"), 100, BATCH, 0.0))
    assert stat.S_IMODE((tmp_path / "chat.db").stat().st_mode) == 0o640
    await room.engine.stop()


async def test_link_to_a_file_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    urls = [f"sqlite:///{tmp_path}/{name}/chat.db" for name in ("link", "real")]
    linked, real = (Settings(engine_url=url) for url in urls)
    room = await opened(open_engine(linked))
    room.publish(draft("hello"))
    await room.until(delivered=1)
    archive = open_archive(real)
    with pytest.raises(StoreError, match="in use"):
        await archive.claim()
    await archive.close()
    await room.engine.stop()
    (tmp_path / "file.db").symlink_to("real/chat.db")
    archive = open_archive(Settings(engine_url=f"sqlite:///{tmp_path}/file.db"))
    await archive.claim()
    await archive.wipe()
    await archive.close()
    assert [file.name for file in (tmp_path / "real").iterdir()] == ["chat.db.lock"]


async def test_nonces_of_pruned_messages_go_in_time(room: Room) -> None:
    old, new = time.time() - 3 * DAY, time.time() - DAY
    room.publish(*[draft("x", f"{number}", timestamp=old) for number in range(10)], draft("y", "y", timestamp=new))
    room.publish(*[draft("z", timestamp=new) for _ in range(9)])
    await room.until(delivered=20)
    await room.engine.hide("id", room.delivered[2].id)
    await room.engine.prune(5)  # message 3 was hidden when the room was at 20
    assert rows(room) == [3, *range(6, 21)]
    await room.engine.prune(15)
    await room.engine.tidy()
    assert rows(room) == [3, *range(11, 21)]
    room.publish(draft("last"))
    await room.until(delivered=21)
    await room.engine.prune(21)
    await room.engine.tidy()
    assert rows(room) == list(range(11, 21))
    await restarted(room)
    assert room.engine.seq == 21


async def test_old_nonces_go_a_few_at_once(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "DROP_STEP", 4)
    room.publish(*[draft("x", f"{number}", timestamp=time.time() - 3 * DAY) for number in range(10)])
    await room.until(delivered=10)
    await room.engine.prune(10)
    left = [len(rows(room))]
    while left[-1]:
        await room.engine.tidy()
        left.append(len(rows(room)))
    assert left == [6, 2, 0]


async def test_hidden_ones_do_not_keep_what_stands_behind_them(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "DROP_STEP", 4)
    old = time.time() - 3 * DAY
    room.publish(*[draft("x", session="spam", timestamp=old) for _ in range(6)])
    room.publish(*[draft("x", timestamp=old) for _ in range(6)])
    await room.until(delivered=12)
    await room.engine.hide("session", "spam")
    await room.engine.prune(11)
    await room.engine.tidy()
    assert rows(room) == [*range(1, 7), 12]


async def test_link_into_nowhere_makes_no_room_there(tmp_path: Path) -> None:
    """The volume that it leads to is not mounted, say."""
    (tmp_path / "chat.db").symlink_to(tmp_path / "volume" / "chat.db")
    engine = open_engine(Settings(engine_url=f"sqlite:///{tmp_path}/chat.db"))
    with pytest.raises(StoreError, match="No such file or directory"):
        await engine.start(Room(engine))
    await engine.stop()
    assert [file.name for file in tmp_path.iterdir()] == ["chat.db"]


async def test_who_was_hidden_is_told_after_a_restart_though_it_was_pruned(room: Room) -> None:
    room.publish(*[draft("x", timestamp=time.time() - 3 * DAY) for _ in range(10)])
    await room.until(delivered=10)
    gone = room.delivered[0].id
    await room.engine.hide("id", gone)
    await room.engine.prune(5)
    await room.engine.tidy()
    await restarted(room)
    assert [(hiding.id, hiding.at) for hiding in room.hidden] == [(gone, 10)]


async def test_export_that_stalls_holds_nothing_up(room: Room, tmp_path: Path) -> None:
    room.publish(*[draft("x" * 1000) for _ in range(3000)])
    await room.until(delivered=3000)
    exported = open_archive(Settings(engine_url=f"sqlite:///{tmp_path}/chat.db")).messages()
    first = await anext(exported)
    await room.engine.hide("id", room.delivered[2999].id)
    await room.engine.prune(500)
    assert (tmp_path / "chat.db-wal").stat().st_size < 10_000  # the writer tries the store after that
    assert [first.seq, *[message.seq async for message in exported]] == list(range(1, 3000))


def test_old_file_on_a_full_disk_is_served_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Full(sqlite3.Connection):
        """Has no room for a second file."""

        def execute(self, query: str, *parameters: Any) -> sqlite3.Cursor:
            if query == "VACUUM":
                raise sqlite3.OperationalError("database or disk is full")
            return super().execute(query, *parameters)

    path = tmp_path / "chat.db"
    with caplog.at_level(logging.WARNING), contextlib.closing(sqlite3.connect(path, factory=Full)) as db:
        db.execute("CREATE TABLE old (x)")
        let_shrink(db, path)
    assert "won't shrink until the disk has room" in caplog.text


def second_version(path: Path) -> int:
    """A database as the second version of the schema had it, with two messages; the first page of the messages."""
    insert = "INSERT INTO message (id, session, username, content, text, timestamp, nonce, role) VALUES "
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.executescript(sql.SCHEMA[0] + sql.SCHEMA[1])
        db.execute(sql.NEW_ROOM, ("the-old-epoch", "a secret"))
        db.execute(insert + "('one', 'session', 'ada', 'x', 'x', 1e9, 'n', 'visitor')")
        db.execute(insert + "('two', 'session', 'ada', 'y', 'y', 1e9, NULL, 'visitor')")
        db.execute("PRAGMA user_version = 2")
        db.commit()
        return first_page(db)


def first_page(db: sqlite3.Connection) -> int:
    page: int = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'message'").fetchone()[0]
    return page


async def test_second_version_s_database_gets_its_indexes_and_its_messages_stay_where_they_are(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    before = second_version(path)
    room = await opened(SQLiteEngine(str(path), 100, BATCH, 0.0))
    assert [message.id for message in room.delivered] == ["one", "two"]
    assert await room.engine.find("id", "TWO", 1) == room.delivered[1:]
    room.publish(draft("x", "n"), draft("z"))
    await room.until(delivered=3, answered=1)
    assert room.answers == room.delivered[:1]
    await room.engine.stop()
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (len(sql.SCHEMA),)
        assert first_page(db) == before


async def plan(room: Room, query: str) -> list[str]:
    """How SQLite goes about it, whatever the parameters are."""
    assert isinstance(room.engine, SQLiteEngine)
    with contextlib.closing(sqlite3.connect(room.engine._path)) as db:
        return [row[3] for row in db.execute("EXPLAIN QUERY PLAN " + query, [1] * query.count("?"))]


async def test_message_is_found_by_the_index_of_ids(room: Room) -> None:
    assert await plan(room, sql.FIND % "id") == [
        "SEARCH message USING INDEX message_by_id (id=? AND rowid>? AND rowid<?)"
    ]


@pytest.mark.parametrize("by", ["username", "session"])
async def test_search_without_an_index_goes_on_where_the_last_one_ended(room: Room, by: str) -> None:
    assert await plan(room, sql.FIND % by) == ["SEARCH message USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"]


QUERIES = [sql.NEWEST, sql.PAGE, sql.HIDINGS, sql.HIDE, sql.FORGET, sql.DROP, sql.BY_NONCE % sql.PAIR]


@pytest.mark.parametrize("query", QUERIES)
async def test_nothing_else_looks_through_all_messages(room: Room, query: str) -> None:
    assert [step for step in await plan(room, query) if step.startswith("SCAN message")] == []


@pytest.mark.parametrize("query", [sql.FIND % "id", sql.NEWEST, sql.PAGE, sql.DROP])
async def test_what_is_limited_is_not_sorted_before(room: Room, query: str) -> None:
    assert not any("B-TREE" in step for step in await plan(room, query))


class Blocked:
    """Keeps the searches of an engine waiting until `go_on` is set; `entered` says that one waits."""

    def __init__(self, room: Room) -> None:
        assert isinstance(room.engine, SQLiteEngine)
        assert room.engine._reader
        self.entered, self.go_on = threading.Event(), threading.Event()
        room.engine._reader.set_progress_handler(self._wait, 1)

    def _wait(self) -> int:
        self.entered.set()
        return not self.go_on.wait(10)

    async def search(self, room: Room) -> asyncio.Task[list[Message]]:
        """One that waits."""
        task = asyncio.create_task(room.engine.find("username", "ada", 10))
        assert await asyncio.to_thread(self.entered.wait, 10)
        return task


async def test_search_delays_no_message(room: Room) -> None:
    room.publish(draft("one"))
    await room.until(delivered=1)
    blocked = Blocked(room)
    search = await blocked.search(room)
    room.publish(draft("two"))
    await room.until(delivered=2)
    assert not search.done()
    blocked.go_on.set()
    assert (await search)[-1].text == "one"


async def test_what_a_search_kept_in_the_log_goes_when_it_has_ended(room: Room, tmp_path: Path) -> None:
    log = tmp_path / "chat.db-wal"
    room.publish(draft("Kq9-once-said"), draft("two"))
    await room.until(delivered=2)
    blocked = Blocked(room)
    search = await blocked.search(room)
    await room.engine.prune(1)
    assert b"Kq9-once-said" in log.read_bytes()
    blocked.go_on.set()
    await search
    await room.engine.tidy()
    assert b"Kq9-once-said" not in log.read_bytes()


async def test_stop_ends_a_search(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    endless = "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(i) FROM n)"
    monkeypatch.setattr(sql, "FIND", sql.FIND.replace("%s", f"{endless} AND %s"))
    room.publish(draft("one"))
    await room.until(delivered=1)
    search = asyncio.create_task(room.engine.find("id", room.delivered[0].id, 1))
    await asyncio.sleep(0.02)
    await room.engine.stop()
    with pytest.raises(StoreError, match="interrupted"):
        await search


async def test_searches_can_change_nothing(room: Room) -> None:
    assert isinstance(room.engine, SQLiteEngine)
    assert room.engine._reader
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        room.engine._reader.execute(sql.PROBE)


async def test_old_nonces_go_until_none_is_left(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "DROP_STEP", 4)
    room.publish(*[draft("x", f"{number}", timestamp=time.time() - 3 * DAY) for number in range(10)])
    await room.until(delivered=10)
    await room.engine.prune(10)
    assert [await room.engine.tidy() for _ in range(3)] == [True, False, False]
