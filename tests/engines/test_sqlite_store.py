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
from app.message import Draft
from tests.support.engines import Recorder, sqlite_store
from tests.support.fakes import draft

pytestmark = pytest.mark.anyio

DAY = 86_400.0


async def opened(path: Path, keep: int = 100) -> Recorder:
    return await Recorder(SQLiteStore(str(path), keep)).start()


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Recorder]:
    room = await opened(tmp_path / "chat.db")
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
    (thread,) = set(threading.enumerate()) - before
    assert thread.name.startswith("sqlite")
    room.publish(draft("one"))
    await room.engine.stop()
    await asyncio.to_thread(thread.join, 5)
    assert not thread.is_alive()


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
    await room.prune(room.engine.pruned)
    assert rows(tmp_path / "chat.db") == [3, *range(11, 21)]
    room.publish(draft("last"))
    await room.until(delivered=21)
    await room.prune(21)
    await room.prune(room.engine.pruned)
    assert rows(tmp_path / "chat.db") == list(range(11, 21))
    await room.engine.stop()
    again = await opened(tmp_path / "chat.db")
    assert again.engine.seq == 21
    await again.engine.stop()


async def test_old_nonces_go_a_few_at_once(room: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "DROP_STEP", 4)
    room.publish(*[draft("x", f"{number}", timestamp=time.time() - 3 * DAY) for number in range(10)])
    await room.until(delivered=10)
    await room.prune(10)
    left = [len(rows(tmp_path / "chat.db"))]
    while left[-1]:
        await room.prune(room.engine.pruned)
        left.append(len(rows(tmp_path / "chat.db")))
    assert left == [6, 2, 0]


async def test_deleted_messages_do_not_keep_the_rows_behind_them(
    room: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "DROP_STEP", 4)
    old = time.time() - 3 * DAY
    room.publish(*[draft("x", session="spam", timestamp=old) for _ in range(6)])
    room.publish(*[draft("x", timestamp=old) for _ in range(6)])
    await room.until(delivered=12)
    await room.delete("session", "spam")
    await room.prune(11)
    await room.prune(room.engine.pruned)
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
    await room.prune(room.engine.pruned)
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
    assert store._db
    store._db = cast(sqlite3.Connection, Faulty(store._db))
    assert await room.delete("username", "ada") == 2
    assert (room.order[3:], await room.page()) == ([-3, -1], [2])
    await room.engine.stop()


async def test_pruned_file_is_smaller(room: Recorder, tmp_path: Path) -> None:
    room.publish(*[draft("x" * 5000) for _ in range(500)])
    await room.until(delivered=500)
    await room.prune(490)
    with contextlib.closing(sqlite3.connect(tmp_path / "chat.db")) as db:
        assert db.execute("PRAGMA freelist_count").fetchone()[0] < 20
    assert (tmp_path / "chat.db").stat().st_size < 500_000
