"""The engine for one machine: SQLite with a write-ahead log, one thread, one commit a batch.

What was delivered survives a kill and a power cut, because it is delivered only after the commit. The file belongs to
one process: two would each believe in an order of their own. Not for network volumes, whose locks can't be relied on.
"""

from __future__ import annotations

import asyncio
import contextlib
import operator
import secrets
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from app.engines.base import Engine, number
from app.engines.lock import Lock
from app.exceptions import StoreError
from app.message import Draft, Message

T = TypeVar("T")

ADVICE = (
    "Stop that one, or give this one a file of its own (ENGINE_URL=sqlite:///…). Several workers can't share a file: "
    "start with a single worker, or set ENGINE_URL=redis://…"
)

# Step n takes a database from schema version n to n + 1; steps are only ever added.
SCHEMA = (
    """
    CREATE TABLE room (epoch TEXT NOT NULL, secret TEXT NOT NULL, probes INTEGER NOT NULL);
    CREATE TABLE message (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL,
        session TEXT NOT NULL,
        username TEXT NOT NULL,
        content TEXT NOT NULL,
        text TEXT NOT NULL,
        timestamp REAL NOT NULL,
        nonce TEXT,
        role TEXT NOT NULL
    );
    CREATE UNIQUE INDEX message_by_nonce ON message (session, nonce) WHERE nonce IS NOT NULL;
    """,
)
NEW_ROOM = "INSERT INTO room (epoch, secret, probes) VALUES (?, ?, 0)"
ROOM = "SELECT epoch, secret FROM room"
# AUTOINCREMENT keeps the highest seq ever given here, also when that message is gone.
LAST_SEQ = "SELECT seq FROM sqlite_sequence WHERE name = 'message'"
PROBE = "UPDATE room SET probes = probes + 1"
# One statement a batch, because the thread must wait for the interpreter after each.
INSERT = "INSERT INTO message (id, session, username, content, text, timestamp, nonce, role, seq) VALUES "
ROW = "(?, ?, ?, ?, ?, ?, ?, ?, ?)"
SELECT = "SELECT id, session, username, content, text, timestamp, nonce, role, seq FROM message"
# CROSS JOIN: from the pairs to the index, where IN would look through the whole table.
BY_NONCE = "WITH asked (by, mark) AS (VALUES %s) " + SELECT.replace(
    "FROM message", "FROM asked CROSS JOIN message ON session = asked.by AND nonce = asked.mark"
)
PAIR = "(?, ?)"
NEWEST = SELECT + " ORDER BY seq DESC LIMIT ?"


class SQLiteEngine(Engine):
    """Messages in one file at `path`; its directory is made when missing.

    `lock_timeout`: seconds to wait for another process to let go of the file (a reload overlaps).
    """

    def __init__(self, path: str, keep: int, batch_bytes: int, lock_timeout: float) -> None:
        super().__init__(keep, batch_bytes)
        self._path = Path(path)
        self._lock = Lock(Path(f"{path}.lock"), lock_timeout)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite")
        self._db: sqlite3.Connection | None = None

    async def _open(self) -> list[Message]:
        if self._path.is_dir():
            raise StoreError(f"{self._path} is a directory. Name a file in it in ENGINE_URL.")
        with _faults_of(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            await self._lock.take(str(self._path), ADVICE)
        return await self._in_thread(self._connect)

    def _connect(self) -> list[Message]:
        self._db = db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        version = self._check_version(db)  # before anything is changed in what may be another program's file
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        _migrate(db, version)
        self.epoch, self.secret = db.execute(ROOM).fetchone()
        self.seq = (db.execute(LAST_SEQ).fetchone() or (0,))[0]
        return [Message(*row) for row in reversed(db.execute(NEWEST, (self.keep,)).fetchall())]

    def _check_version(self, db: sqlite3.Connection) -> int:
        version: int = db.execute("PRAGMA user_version").fetchone()[0]
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if version > len(SCHEMA) or (not tables >= {"room", "message"} if version else tables):
            raise StoreError(
                f"{self._path} was not made by this program, or by a newer version of it. "
                "Name another file in ENGINE_URL, or install the newer version."
            )
        return version

    async def _store(self, drafts: list[Draft]) -> list[Message]:
        return await self._in_thread(lambda: self._insert_all(drafts))

    def _insert_all(self, drafts: list[Draft]) -> list[Message]:
        assert self._db
        with _transaction(self._db) as db:
            if not drafts:
                db.execute(PROBE)
            messages = number(drafts, self.seq, _with_nonces(db, [draft for draft in drafts if draft.nonce]))
            _insert(db, [message for message in messages if message.seq > self.seq])
        return messages

    async def _close(self) -> None:
        if self._db:
            await self._in_thread(self._db.close)
            self._db = None
        self._thread.shutdown(wait=False)
        self._lock.release()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        def guarded() -> T:
            with _faults_of(self._path):
                return work()

        return await asyncio.get_running_loop().run_in_executor(self._thread, guarded)


def _migrate(db: sqlite3.Connection, version: int) -> None:
    with _transaction(db):
        for number, step in enumerate(SCHEMA[version:], version):
            for statement in filter(str.strip, step.split(";")):
                db.execute(statement)
            if number == 0:
                db.execute(NEW_ROOM, (str(uuid.uuid4()), secrets.token_hex(32)))
        db.execute(f"PRAGMA user_version = {len(SCHEMA)}")


def _with_nonces(db: sqlite3.Connection, drafts: list[Draft]) -> dict[tuple[str, str], Message]:
    if not drafts:
        return {}
    pairs = [value for draft in drafts for value in (draft.session, draft.nonce)]
    rows = db.execute(BY_NONCE % ", ".join([PAIR] * len(drafts)), pairs)
    found = [Message(*row) for row in rows]
    return {(message.session, message.nonce): message for message in found if message.nonce}


def _insert(db: sqlite3.Connection, messages: list[Message]) -> None:
    new = {message.seq: message for message in messages}  # a nonce may stand in one batch twice
    if new:
        values = [value for message in new.values() for value in _columns(message)]
        db.execute(INSERT + ", ".join([ROW] * len(new)), values)


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
def _faults_of(path: Path) -> Iterator[None]:
    """Turns what SQLite and the file system raise into a StoreError that says what to do."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StoreError(f"{path}: {error}. Make room on the disk and the file writable.") from error
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{path}: {error}. Restore a copy, or name another file in ENGINE_URL.") from error
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}. Make its directory writable, or change ENGINE_URL.") from error
