"""The engine for one machine: SQLite with a write-ahead log, one commit a batch.

One thread writes. Another one reads, on a connection of its own, so that a long search delays no message.
What was delivered survives a kill and a power cut, because it is delivered only after the commit. The file belongs to
one process: two would each believe in an order of their own. Not for network volumes, whose locks can't be relied on.
"""

from __future__ import annotations

import asyncio
import contextlib
import operator
import os
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from app import metrics
from app.engines import sql
from app.engines.base import FIRST, LAST, By, Engine
from app.engines.drafts import number
from app.engines.lock import Lock
from app.engines.sqlite_file import connect, faults_of, let_shrink, lock_file, migrate, transaction, version_of
from app.exceptions import StoreError
from app.message import Change, Draft, Hiding, Message

T = TypeVar("T")

ADVICE = (
    "Stop that one, or give this one a file of its own (ENGINE_URL=sqlite:///…). Several workers can't share a file: "
    "start with a single worker, or set ENGINE_URL=redis://…"
)

BUSY = 5000  # milliseconds to wait for a lock


class SQLiteEngine(Engine):
    """Messages in one file at `path`; its directory is made when missing.

    `lock_timeout`: seconds to wait for another process to let go of the file (a reload overlaps).
    """

    prune_step = 50  # the writer is held for some 5 ms, mostly by the disk

    def __init__(self, path: str, keep: int, batch_bytes: int, lock_timeout: float) -> None:
        super().__init__(keep, batch_bytes)
        self._path = Path(path)
        self._lock = Lock(lock_file(path), lock_timeout)
        self._writing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite writer")
        self._reading = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite reader")
        self._db: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._log_is_full = False  # of text that is gone, because somebody read it when it was to be emptied

    async def _open(self) -> tuple[list[Message], list[Hiding]]:
        if self._path.is_dir():
            raise StoreError(f"{self._path} is a directory. Name a file in it in ENGINE_URL.")
        with faults_of(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            await self._lock.take(str(self._path), ADVICE)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))  # the secret in it is nobody else's
        return await self._in_thread(self._connect)

    def _connect(self) -> tuple[list[Message], list[Hiding]]:
        self._db = db = connect(self._path)
        version = version_of(db, self._path)  # before anything is changed in what may be another program's file
        let_shrink(db, self._path)  # which a new file takes only before anything else
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = ON")  # what is hidden or pruned is not to be found in the file
        if version < len(sql.SCHEMA):
            migrate(db, version)
            self._tidy_up(db)  # else the first message would wait while new indexes are copied from the log
        self._reader = self._open_reader(db)
        self.epoch, self.secret, self.rules, self.pruned = db.execute(sql.ROOM).fetchone()
        self.seq = (db.execute(sql.LAST_SEQ).fetchone() or (0,))[0]
        past = [Message(*row) for row in reversed(db.execute(sql.NEWEST, (FIRST, LAST, self.keep)).fetchall())]
        since = past[0].seq if len(past) == self.keep else self.pruned
        return past, [Hiding(*row) for row in db.execute(sql.HIDINGS, (since,))]

    def _open_reader(self, writer: sqlite3.Connection) -> sqlite3.Connection:
        """Opens the connection that searches use."""
        db = connect(self._path)
        db.execute("PRAGMA query_only = ON")
        return db

    async def _store(self, drafts: list[Draft]) -> list[Message]:
        with metrics.storing(len(drafts)):
            return await self._in_thread(lambda: self._insert_all(drafts))

    def _insert_all(self, drafts: list[Draft]) -> list[Message]:
        with transaction(self._opened(self._db)) as db:
            if not drafts:
                db.execute(sql.PROBE)
            messages = number(drafts, self.seq, _with_nonces(db, [draft for draft in drafts if draft.nonce]))
            _insert(db, [message for message in messages if message.seq > self.seq])
        return messages

    async def _find(
        self, after: int, before: int, limit: int, newest: bool, by: By | None = None, value: str = ""
    ) -> list[Message]:
        query = sql.FIND % by if by else sql.NEWEST if newest else sql.PAGE
        bounds = (after, before, value, limit) if by else (after, before, limit)

        def search() -> list[Message]:
            return [Message(*row) for row in self._opened(self._reader).execute(query, bounds)]

        return await self._in_thread(search, self._reading)

    async def _apply(self, change: Change, old: str) -> Change | None:
        return await self._in_thread(lambda: self._change_all(change, old))

    def _change_all(self, change: Change, old: str) -> Change | None:
        with transaction(self._opened(self._db)) as db:
            if change.rules is not None and not db.execute(sql.AMEND, (change.rules, old)).rowcount:
                return None
            hidden = [hiding for hiding in change.hidden if db.execute(sql.HIDE, (hiding.at, hiding.seq)).rowcount]
            if change.pruned:
                db.execute(sql.PRUNED, (change.pruned,))
                _drop(db)  # first, because what is dropped needs not be overwritten before
                db.execute(sql.FORGET, (self.pruned, change.pruned))
        if hidden or change.pruned:
            self._tidy_up(db)
        return change._replace(hidden=tuple(hidden))

    async def tidy(self) -> bool:
        """Drops what stayed of pruned messages for their nonces."""
        return await self._do(partial(self._in_thread, self._drop_old))

    def _drop_old(self) -> bool:
        with transaction(self._opened(self._db)) as db:
            dropped = _drop(db)
        if dropped or self._log_is_full:
            self._tidy_up(db)
        return dropped == sql.DROP_STEP

    def _tidy_up(self, db: sqlite3.Connection) -> None:
        """Gives back free pages, and empties the log.

        What was to be done is done already, so what fails here is left to the next time.
        """
        self._log_is_full = True
        with contextlib.suppress(sqlite3.OperationalError):
            db.executescript("PRAGMA incremental_vacuum")  # all pages; `execute` would stop after the first
            db.execute("PRAGMA busy_timeout = 0")  # somebody reads: nobody waits for it
            self._log_is_full = bool(db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])
        db.execute(f"PRAGMA busy_timeout = {BUSY}")

    def _opened(self, db: sqlite3.Connection | None) -> sqlite3.Connection:
        if not db:
            raise StoreError(f"{self._path} is closed. The server is stopping.")
        return db

    async def _close(self) -> None:
        reader, self._reader = self._reader, None
        if reader:
            reader.interrupt()  # nobody waits for what it searches
            await self._in_thread(reader.close, self._reading)
        if self._db:
            await self._in_thread(self._db.close)
            self._db = None
        self._reading.shutdown(wait=False)
        self._writing.shutdown(wait=False)
        self._lock.release()

    async def _in_thread(self, work: Callable[[], T], thread: ThreadPoolExecutor | None = None) -> T:
        """Does it in the thread that writes, or in another one."""

        def guarded() -> T:
            with faults_of(self._path):
                return work()

        return await asyncio.get_running_loop().run_in_executor(thread or self._writing, guarded)


def _drop(db: sqlite3.Connection) -> int:
    """Drops pruned rows whose nonces are too old to come again, of the oldest DROP_STEP; how many."""
    return db.execute(sql.DROP, (sql.DROP_STEP, time.time() - sql.NONCE_SECONDS)).rowcount


def _with_nonces(db: sqlite3.Connection, drafts: list[Draft]) -> dict[tuple[str, str], Message]:
    if not drafts:
        return {}
    pairs = [value for draft in drafts for value in (draft.session, draft.nonce)]
    rows = db.execute(sql.BY_NONCE % ", ".join([sql.PAIR] * len(drafts)), pairs)
    found = [Message(*row) for row in rows]
    return {(message.session, message.nonce): message for message in found if message.nonce}


def _insert(db: sqlite3.Connection, messages: list[Message]) -> None:
    new = {message.seq: message for message in messages}  # a nonce may stand in one batch twice
    if new:
        values = [value for message in new.values() for value in _columns(message)]
        db.execute(sql.INSERT + ", ".join([sql.ROW] * len(new)), values)


_columns = operator.attrgetter("id", "session", "username", "content", "text", "timestamp", "nonce", "role", "seq")
