"""The engine for one machine: SQLite with a write-ahead log, one thread, one commit a batch.

What was delivered survives a kill and a power cut, because it is delivered only after the commit. The file belongs to
one process: two would each believe in an order of their own. Not for network volumes, whose locks can't be relied on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import operator
import os
import secrets
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from app import metrics
from app.engines import sql
from app.engines.base import FIRST, LAST, By, Engine
from app.engines.drafts import number
from app.engines.lock import Lock
from app.exceptions import StoreError
from app.message import Change, Deletion, Draft, Message

T = TypeVar("T")

ADVICE = (
    "Stop that one, or give this one a file of its own (ENGINE_URL=sqlite:///…). Several workers can't share a file: "
    "start with a single worker, or set ENGINE_URL=redis://…"
)

BUSY = 5000  # milliseconds to wait for a lock


logger = logging.getLogger(__name__)


class SQLiteEngine(Engine):
    """Messages in one file at `path`; its directory is made when missing.

    `lock_timeout`: seconds to wait for another process to let go of the file (a reload overlaps).
    """

    def __init__(self, path: str, keep: int, batch_bytes: int, lock_timeout: float) -> None:
        super().__init__(keep, batch_bytes)
        self._path = Path(path)
        self._lock = Lock(lock_file(path), lock_timeout)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite")
        self._db: sqlite3.Connection | None = None

    async def _open(self) -> tuple[list[Message], list[Deletion]]:
        if self._path.is_dir():
            raise StoreError(f"{self._path} is a directory. Name a file in it in ENGINE_URL.")
        with faults_of(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            await self._lock.take(str(self._path), ADVICE)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))  # the secret in it is nobody else's
        return await self._in_thread(self._connect)

    def _connect(self) -> tuple[list[Message], list[Deletion]]:
        self._db = db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        version = version_of(db, self._path)  # before anything is changed in what may be another program's file
        _let_shrink(db, self._path)  # which a new file takes only before anything else
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = ON")  # what is hidden or pruned is not to be found in the file
        _migrate(db, version)
        self.epoch, self.secret, self.rules, self.pruned = db.execute(sql.ROOM).fetchone()
        self.seq = (db.execute(sql.LAST_SEQ).fetchone() or (0,))[0]
        past = [Message(*row) for row in reversed(db.execute(sql.NEWEST, (FIRST, LAST, self.keep)).fetchall())]
        since = past[0].seq if len(past) == self.keep else self.pruned
        return past, [Deletion(*row) for row in db.execute(sql.DELETIONS, (since,))]

    async def _store(self, drafts: list[Draft]) -> list[Message]:
        with metrics.storing(len(drafts)):
            return await self._in_thread(lambda: self._insert_all(drafts))

    def _insert_all(self, drafts: list[Draft]) -> list[Message]:
        with _transaction(self._connection()) as db:
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
        return await self._in_thread(lambda: [Message(*row) for row in self._connection().execute(query, bounds)])

    async def _apply(self, change: Change, old: str) -> Change | None:
        return await self._in_thread(lambda: self._change_all(change, old))

    def _change_all(self, change: Change, old: str) -> Change | None:
        with _transaction(self._connection()) as db:
            if change.rules is not None and not db.execute(sql.AMEND, (change.rules, old)).rowcount:
                return None
            hidden = [hiding for hiding in change.hidden if db.execute(sql.HIDE, (hiding.at, hiding.seq)).rowcount]
            if change.pruned:
                db.execute(sql.FORGET, (change.pruned,))
                db.execute(sql.PRUNED, (change.pruned,))
                _drop(db)
        if hidden or change.pruned:
            _tidy_up(db)
        return change._replace(hidden=tuple(hidden))

    async def tidy(self) -> None:
        """Drops what stayed of pruned messages for their nonces."""
        await self._do(partial(self._in_thread, self._drop_old))

    def _drop_old(self) -> None:
        with _transaction(self._connection()) as db:
            dropped = _drop(db)
        if dropped:
            _tidy_up(db)

    def _connection(self) -> sqlite3.Connection:
        if not self._db:
            raise StoreError(f"{self._path} is closed. The server is stopping.")
        return self._db

    async def _close(self) -> None:
        if self._db:
            await self._in_thread(self._db.close)
            self._db = None
        self._thread.shutdown(wait=False)
        self._lock.release()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        def guarded() -> T:
            with faults_of(self._path):
                return work()

        return await asyncio.get_running_loop().run_in_executor(self._thread, guarded)


def lock_file(path: str) -> Path:
    """Beside the file itself, whichever link leads there."""
    return Path(f"{os.path.realpath(path)}.lock")


def version_of(db: sqlite3.Connection, path: Path) -> int:
    """The schema's, 0 for an empty file. Raises StoreError for a file that is not ours."""
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if version > len(sql.SCHEMA) or (not tables >= {"room", "message"} if version else tables):
        raise StoreError(
            f"{path} was not made by this program, or by a newer version of it. "
            "Name another file in ENGINE_URL, or install the newer version."
        )
    return version


def _let_shrink(db: sqlite3.Connection, path: Path) -> None:
    """Sees to it that the file can give back what it does not need. One of an earlier version is written anew once."""
    if db.execute("PRAGMA auto_vacuum").fetchone()[0]:
        return
    db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    try:
        db.execute("VACUUM")
    except sqlite3.OperationalError as error:
        logger.warning("%s won't shrink until the disk has room for a second one: %s", path, error)


def _drop(db: sqlite3.Connection) -> int:
    """Drops pruned rows whose nonces are too old to come again, of the oldest DROP_STEP; how many."""
    return db.execute(sql.DROP, (sql.DROP_STEP, time.time() - sql.NONCE_SECONDS)).rowcount


def _tidy_up(db: sqlite3.Connection) -> None:
    """Gives back free pages, and empties the log. It is done already, so what fails here is left to the next time."""
    with contextlib.suppress(sqlite3.OperationalError):
        db.executescript("PRAGMA incremental_vacuum")  # all pages; `execute` would stop after the first
        db.execute("PRAGMA busy_timeout = 0")  # another program reads: nobody waits for it
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    db.execute(f"PRAGMA busy_timeout = {BUSY}")


def _migrate(db: sqlite3.Connection, version: int) -> None:
    with _transaction(db):
        for number, step in enumerate(sql.SCHEMA[version:], version):
            for statement in filter(str.strip, step.split(";")):
                db.execute(statement)
            if number == 0:
                db.execute(sql.NEW_ROOM, (str(uuid.uuid4()), secrets.token_hex(32)))
        db.execute(f"PRAGMA user_version = {len(sql.SCHEMA)}")


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


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a full disk may have rolled it back already
            db.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def faults_of(path: Path) -> Iterator[None]:
    """Turns what SQLite and the file system raise into a StoreError that says what to do."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StoreError(f"{path}: {error}. Make room on the disk and the file writable.") from error
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{path}: {error}. Restore a copy, or name another file in ENGINE_URL.") from error
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}. Make its directory writable, or change ENGINE_URL.") from error
