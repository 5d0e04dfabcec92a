"""The store in SQLite: restarts, the file and who may read it, its lock, and that it shrinks again."""

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
from typing import Any, cast

import pytest

from app.config import Settings
from app.engines import open_archive, sql
from app.engines.sql import BY_NONCE, PAIR, SCHEMA
from app.engines.sqlite import SQLiteStore, _let_shrink
from app.exceptions import StoreError
from app.message import Draft, Message
from tests.support.engines import Recorder, sqlite_store
from tests.support.fakes import draft

pytestmark = pytest.mark.anyio

DAY = 86_400.0


async def opened(path: Path, keep: int = 100, **limits: int) -> Recorder:
    return await Recorder(SQLiteStore(str(path), keep, **limits)).start()


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Recorder]:
    room = await opened(tmp_path / "chat.db")
    yield room
    await room.engine.stop()


@pytest.fixture
async def dropping(tmp_path: Path) -> AsyncIterator[Recorder]:
    """A store that drops four rows at once."""
    room = await opened(tmp_path / "chat.db", drop_step=4)
    yield room
    await room.engine.stop()


def rows(path: Path) -> list[int]:
    """The seqs of all rows in the file, also of deleted messages."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        return [seq for (seq,) in db.execute("SELECT seq FROM message ORDER BY seq")]


async def test_history_numbers_epoch_and_nonces_outlive_a_restart(tmp_path: Path) -> None:
    first = await opened(tmp_path / "chat.db")
    first.publish(*[draft(f"{number}", f"n{number}") for number in range(5)])
    await first.engine.stop()
    second = await opened(tmp_path / "chat.db", keep=3)
    assert second.delivered == first.delivered[-3:]
    assert (second.engine.seq, second.epoch) == (5, first.epoch)
    second.publish(draft("0", "n0"), draft("5"))
    await second.until(delivered=4, answered=1)
    assert (second.answers, second.seqs) == ([first.delivered[0]], [3, 4, 5, 6])
    await second.engine.stop()


async def test_messages_deletions_and_rules_outlive_a_restart(tmp_path: Path) -> None:
    room = await opened(tmp_path / "chat.db")
    posted = await room.fill(8)
    await room.delete("id", posted[4].id)
    room.publish(draft("9"))
    await room.until(delivered=9)
    await room.delete("id", posted[1].id)
    await room.prune(3)
    await room.replace_rules("", "rules")
    await room.engine.stop()
    for keep, left, deleted in ((100, [4, 6, 7, 8, 9], [5, 2]), (2, [8, 9], [5, 2]), (1, [9], [2])):
        again = await opened(tmp_path / "chat.db", keep)
        assert (again.seqs, [deletion.seq for deletion in again.opened[0].deletions]) == (left, deleted)
        assert (again.engine.seq, again.engine.pruned, again.engine.rules) == (9, 3, "rules")
        await again.engine.stop()


async def test_no_number_is_given_twice(tmp_path: Path) -> None:
    first = await opened(tmp_path / "chat.db")
    first.publish(draft("one"), draft("two"))
    await first.engine.stop()
    with contextlib.closing(sqlite3.connect(tmp_path / "chat.db")) as db, db:
        db.execute("DELETE FROM message")
    second = await opened(tmp_path / "chat.db")
    second.publish(draft("three"))
    await second.engine.stop()
    assert (first.seqs, second.seqs) == ([1, 2], [3])


async def test_batch_is_stored_whole_or_not_at_all(room: Recorder) -> None:
    with pytest.raises(StoreError):
        await room.store.append([draft("zero"), Draft("x", "s", "ada", "", None, 0.0)])  # type: ignore[arg-type]
    room.publish(draft("one"))
    await room.engine.stop()
    assert room.seqs == [1]


async def test_file_serves_one_process_at_a_time(tmp_path: Path) -> None:
    first = await opened(tmp_path / "chat.db")
    refused = SQLiteStore(str(tmp_path / "chat.db"), 100, lock_timeout=0.01)
    with pytest.raises(StoreError, match=r"in use by another process.*ENGINE_URL"):
        await refused.open()
    await refused.close()
    waiting = SQLiteStore(str(tmp_path / "chat.db"), 100, lock_timeout=5.0)
    opening = asyncio.create_task(waiting.open())
    await asyncio.sleep(0.01)
    assert not opening.done()
    await first.engine.stop()
    async with asyncio.timeout(5):
        await opening
    await waiting.close()


@pytest.mark.parametrize("version", [None, 0, 1, len(SCHEMA) + 1])
async def test_foreign_file_stays_as_it_is(tmp_path: Path, version: int | None) -> None:
    """No database, another program's without and with a version of its own, and one of a newer version."""
    path = tmp_path / "chat.db"
    if version is None:
        path.write_bytes(b"My diary. Dear diary, today I wrote more than a hundred bytes about my chat server." * 20)
    else:
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("CREATE TABLE diary (entry TEXT)")
            db.execute(f"PRAGMA user_version = {version}")
    before = path.read_bytes()
    store = SQLiteStore(str(path), 100)
    with pytest.raises(StoreError) as caught:
        await store.open()
    await store.close()
    assert str(path) in str(caught.value)
    assert "ENGINE_URL" in str(caught.value)
    assert path.read_bytes() == before


async def test_thread_ends_with_the_store(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    room = await opened(tmp_path / "chat.db")
    threads = set(threading.enumerate()) - before
    assert all(thread.name.startswith("sqlite") for thread in threads)
    room.publish(draft("one"))
    await room.engine.stop()
    for thread in threads:
        await asyncio.to_thread(thread.join, 5)
    assert not any(thread.is_alive() for thread in threads)


async def test_close_is_safe_when_open_failed(tmp_path: Path) -> None:
    store = SQLiteStore(str(tmp_path / "x" / "chat.db"), 100)
    (tmp_path / "x").write_text("a file where a directory should be")
    with pytest.raises(StoreError, match="directory"):
        await store.open()
    await store.close()
    await store.close()


def test_nonces_are_found_without_a_scan_of_the_table() -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.executescript(SCHEMA[0])
        db.executescript(SCHEMA[1])
        plan = db.execute("EXPLAIN QUERY PLAN " + BY_NONCE % PAIR, ("session", "nonce")).fetchall()
    assert any("SEARCH message USING INDEX message_by_nonce" in step for *_, step in plan)
    assert not any(step.startswith("SCAN message") for *_, step in plan)


async def test_file_can_be_read_by_its_user_alone(room: Recorder, tmp_path: Path) -> None:
    room.publish(draft("hello"))
    await room.until(delivered=1)
    for file in ("chat.db", "chat.db-wal", "chat.db-shm", "chat.db.lock"):
        assert stat.S_IMODE((tmp_path / file).stat().st_mode) == 0o600, file


async def test_mode_of_a_file_that_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "chat.db").touch(0o640)
    (tmp_path / "chat.db").chmod(0o640)
    room = await opened(tmp_path / "chat.db")
    assert stat.S_IMODE((tmp_path / "chat.db").stat().st_mode) == 0o640
    await room.engine.stop()


async def test_link_to_a_file_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    real = Settings(engine_url=f"sqlite:///{tmp_path}/real/chat.db")
    room = await opened(tmp_path / "link" / "chat.db")
    room.publish(draft("hello"))
    await room.until(delivered=1)
    archive = open_archive(real)
    with pytest.raises(StoreError, match="in use"):
        await archive.reserve()
    await archive.close()
    await room.engine.stop()
    (tmp_path / "file.db").symlink_to("real/chat.db")
    archive = open_archive(Settings(engine_url=f"sqlite:///{tmp_path}/file.db"))
    await archive.reserve()
    await archive.wipe()
    await archive.close()
    assert [file.name for file in (tmp_path / "real").iterdir()] == ["chat.db.lock"]


async def test_nonces_of_pruned_messages_go_in_time(room: Recorder, tmp_path: Path) -> None:
    old, new = time.time() - 3 * DAY, time.time() - DAY
    room.publish(*[draft("x", f"{number}", timestamp=old) for number in range(10)], draft("y", "y", timestamp=new))
    room.publish(*[draft("z", timestamp=new) for _ in range(9)])
    await room.until(delivered=20)
    await room.delete("id", room.delivered[2].id)
    await room.prune(5)  # message 3 was hidden when the room was at 20
    assert rows(tmp_path / "chat.db") == [3, *range(6, 21)]
    await room.prune(15)
    await room.engine.tidy()
    assert rows(tmp_path / "chat.db") == [3, *range(11, 21)]
    room.publish(draft("last"))
    await room.until(delivered=21)
    await room.prune(21)
    await room.engine.tidy()
    assert rows(tmp_path / "chat.db") == list(range(11, 21))
    await room.engine.stop()
    again = await opened(tmp_path / "chat.db")
    assert again.engine.seq == 21
    await again.engine.stop()


async def test_old_nonces_go_a_few_at_once(dropping: Recorder, tmp_path: Path) -> None:
    dropping.publish(*[draft("x", f"{number}", timestamp=time.time() - 3 * DAY) for number in range(10)])
    await dropping.until(delivered=10)
    await dropping.prune(10)
    left = [len(rows(tmp_path / "chat.db"))]
    while left[-1]:
        await dropping.engine.tidy()
        left.append(len(rows(tmp_path / "chat.db")))
    assert left == [6, 2, 0]


async def test_deleted_messages_do_not_keep_the_rows_behind_them(dropping: Recorder, tmp_path: Path) -> None:
    old = time.time() - 3 * DAY
    dropping.publish(*[draft("x", session="spam", timestamp=old) for _ in range(6)])
    dropping.publish(*[draft("x", timestamp=old) for _ in range(6)])
    await dropping.until(delivered=12)
    await dropping.delete("session", "spam")
    await dropping.prune(11)
    await dropping.engine.tidy()
    assert rows(tmp_path / "chat.db") == [*range(1, 7), 12]


async def test_link_to_a_missing_directory_makes_no_file_there(tmp_path: Path) -> None:
    """The volume that it leads to is not mounted, say."""
    (tmp_path / "chat.db").symlink_to(tmp_path / "volume" / "chat.db")
    store = SQLiteStore(str(tmp_path / "chat.db"), 100)
    with pytest.raises(StoreError, match="No such file or directory"):
        await store.open()
    await store.close()
    assert [file.name for file in tmp_path.iterdir()] == ["chat.db"]


async def test_deletion_is_known_after_a_restart_though_its_message_was_pruned(room: Recorder, tmp_path: Path) -> None:
    room.publish(*[draft("x", timestamp=time.time() - 3 * DAY) for _ in range(10)])
    await room.until(delivered=10)
    gone = room.delivered[0].id
    await room.delete("id", gone)
    await room.prune(5)
    await room.engine.tidy()
    await room.engine.stop()
    again = await opened(tmp_path / "chat.db")
    assert [(deletion.id, deletion.at) for deletion in again.opened[0].deletions] == [(gone, 10)]
    await again.engine.stop()


async def test_stalled_export_holds_nothing_up(room: Recorder, tmp_path: Path) -> None:
    room.publish(*[draft("x" * 1000) for _ in range(3000)])
    await room.until(delivered=3000)
    exported = open_archive(Settings(engine_url=f"sqlite:///{tmp_path}/chat.db")).export()
    first = await anext(exported)
    await room.delete("id", room.delivered[2999].id)
    await room.prune(500)
    assert (tmp_path / "chat.db-wal").stat().st_size == 0
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
        _let_shrink(db, path)
    assert "won't shrink until the disk has room" in caplog.text


async def test_deletion_and_pruning_do_not_wait_for_another_program_that_reads(tmp_path: Path) -> None:
    """A copy is being made, say. The rest of the log goes when it is done."""
    room = await Recorder(sqlite_store(tmp_path)).start()
    await room.fill(3)
    path = tmp_path / "new" / "chat.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM message").fetchone() == (3,)
        async with asyncio.timeout(2):
            assert await room.delete("username", "ada") == 2
            await room.prune(2)
            room.publish(draft("4"))
            await room.until(delivered=4)
        reader.execute("COMMIT")
    await room.prune(3)
    assert (tmp_path / "new" / "chat.db-wal").stat().st_size < 10_000
    await room.engine.stop()


class Faulty:
    """A connection that can't release space."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __getattr__(self, name: str) -> Any:
        def work(query: str, *parameters: Any) -> Any:
            if "vacuum" in query or "checkpoint" in query:
                raise sqlite3.OperationalError("database or disk is full")
            return getattr(self._db, name)(query, *parameters)

        return work if name.startswith("execute") else getattr(self._db, name)


async def test_deletion_is_announced_though_no_space_could_be_released(tmp_path: Path) -> None:
    store = SQLiteStore(str(tmp_path / "chat.db"), 100)
    room = await Recorder(store).start()
    await room.fill(3)
    assert store._writer
    store._writer = cast(sqlite3.Connection, Faulty(store._writer))
    assert await room.delete("username", "ada") == 2
    assert (room.order[3:], await room.page()) == ([-3, -1], [2])
    await room.engine.stop()


async def test_pruned_file_is_smaller(room: Recorder, tmp_path: Path) -> None:
    room.publish(*[draft("x" * 5000) for _ in range(500)])
    await room.until(delivered=500)
    await room.prune(490)
    while await room.engine.tidy():
        pass
    with contextlib.closing(sqlite3.connect(tmp_path / "chat.db")) as db:
        assert db.execute("PRAGMA freelist_count").fetchone()[0] < 20
    assert (tmp_path / "chat.db").stat().st_size < 500_000


def store_of(room: Recorder) -> SQLiteStore:
    assert isinstance(room.store.store, SQLiteStore)
    return room.store.store


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


async def test_database_of_the_second_version_gets_its_index_and_no_copy(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    before = second_version(path)
    room = await opened(path)
    assert [message.id for message in room.delivered] == ["one", "two"]
    assert await room.find("id", "TWO", 1) == room.delivered[1:]
    room.publish(draft("x", "n"), draft("z"))
    await room.until(delivered=3, answered=1)
    assert room.answers == room.delivered[:1]
    await room.engine.stop()
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (len(sql.SCHEMA),)
        assert first_page(db) == before


async def plan(room: Recorder, query: str) -> list[str]:
    """How SQLite goes about it, whatever the parameters are."""
    with contextlib.closing(sqlite3.connect(store_of(room)._path)) as db:
        return [row[3] for row in db.execute("EXPLAIN QUERY PLAN " + query, [1] * query.count("?"))]


async def test_message_is_found_by_the_index_of_ids(room: Recorder) -> None:
    assert await plan(room, sql.FIND % "id") == [
        "SEARCH message USING INDEX message_by_id (id=? AND rowid>? AND rowid<?)"
    ]


@pytest.mark.parametrize("by", ["username", "session"])
async def test_search_without_an_index_goes_on_where_the_last_one_ended(room: Recorder, by: str) -> None:
    assert await plan(room, sql.FIND % by) == ["SEARCH message USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"]


QUERIES = [sql.NEWEST, sql.PAGE, sql.DELETIONS, sql.DELETE, sql.FORGET, sql.DROP, sql.BY_NONCE % sql.PAIR]


@pytest.mark.parametrize("query", QUERIES)
async def test_no_other_statement_scans_all_messages(room: Recorder, query: str) -> None:
    assert [step for step in await plan(room, query) if step.startswith("SCAN message")] == []


@pytest.mark.parametrize("query", [sql.FIND % "id", sql.NEWEST, sql.PAGE, sql.DROP])
async def test_limited_statement_does_not_sort(room: Recorder, query: str) -> None:
    assert not any("B-TREE" in step for step in await plan(room, query))


class Blocked:
    """Keeps the searches of an engine waiting until `go_on` is set; `entered` says that one waits."""

    def __init__(self, room: Recorder) -> None:
        self.entered, self.go_on = threading.Event(), threading.Event()
        reader = store_of(room)._reader
        assert reader
        reader.set_progress_handler(self._wait, 1)

    def _wait(self) -> int:
        self.entered.set()
        return not self.go_on.wait(10)

    async def search(self, room: Recorder) -> asyncio.Task[list[Message]]:
        """One that waits."""
        task = asyncio.create_task(room.find("username", "ada", 10))
        assert await asyncio.to_thread(self.entered.wait, 10)
        return task


async def test_search_delays_no_message(room: Recorder) -> None:
    room.publish(draft("one"))
    await room.until(delivered=1)
    blocked = Blocked(room)
    search = await blocked.search(room)
    room.publish(draft("two"))
    await room.until(delivered=2)
    assert not search.done()
    blocked.go_on.set()
    assert (await search)[-1].text == "one"


async def test_pruned_text_leaves_the_log_when_a_search_has_ended(room: Recorder, tmp_path: Path) -> None:
    log = tmp_path / "chat.db-wal"
    room.publish(draft("Kq9-once-said"), draft("two"))
    await room.until(delivered=2)
    blocked = Blocked(room)
    search = await blocked.search(room)
    await room.prune(1)
    assert b"Kq9-once-said" in log.read_bytes()
    blocked.go_on.set()
    await search
    await room.engine.tidy()
    assert b"Kq9-once-said" not in log.read_bytes()


async def test_stop_ends_a_search(room: Recorder) -> None:
    await room.fill(1000)
    reader, entered = store_of(room)._reader, threading.Event()
    assert reader

    def crawl() -> None:  # at each step of the search, which so would take longer than any test waits
        entered.set()
        time.sleep(0.02)

    reader.set_progress_handler(crawl, 1)
    search = asyncio.create_task(room.find("username", "nobody", 1))
    assert await asyncio.to_thread(entered.wait, 10)
    await room.engine.stop()
    with pytest.raises(StoreError, match="interrupted"):
        await search


async def test_searches_can_change_nothing(room: Recorder) -> None:
    reader = store_of(room)._reader
    assert reader
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute(sql.PROBE)
