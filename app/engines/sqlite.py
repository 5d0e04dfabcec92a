"""The store for one machine: SQLite with a write-ahead log, one commit a batch.

What was delivered survives a kill and a power cut, because it is delivered only after the commit. The file belongs to
one process: two would each number their own messages. Not for network volumes, whose locks can't be relied on.
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
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from app.engines import sql
from app.engines.lock import Lock
from app.engines.store import FIRST, LAST, NONCE_LIFETIME, Opened, Query, Stored
from app.exceptions import StoreError
from app.message import Change, Deletion, Draft, Message, number

T = TypeVar("T")

IN_USE = (
    "Stop that one, or give this one a file of its own (ENGINE_URL=sqlite:///…). Several workers can't share a file: "
    "start with a single worker, or set ENGINE_URL=redis://…"
)
BUSY = 5000  # milliseconds to wait for a lock
EXPORT_PAGE = 1000  # messages

logger = logging.getLogger(__name__)


class SQLiteStore:
    """Messages in one file at `path`; its directory is made when missing.

    One thread writes; another one searches, on a connection of its own, so that no message waits for a search.
    `keep`: how many of the newest messages `open` returns. `lock_timeout`: seconds to wait for another process to
    release the file (a reload overlaps).
    """

    def __init__(self, path: str, keep: int = 0, lock_timeout: float = 0.0, drop_step: int = sql.DROP_STEP) -> None:
        self._path = Path(path)
        self._real_path = Path(os.path.realpath(path))  # the target, if `path` is a link
        self._keep = keep
        self._drop_step = drop_step
        self._lock = Lock(Path(f"{self._real_path}.lock"), lock_timeout)
        self._write_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite writer")
        self._read_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite reader")
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._log_is_full = False  # of deleted text, because something read the log when it was to be emptied
        self._seq = self._pruned = self._changes = 0
        self._committed: asyncio.Queue[Stored] = asyncio.Queue()

    async def open(self) -> Opened:
        self._loop = asyncio.get_running_loop()
        if self._path.is_dir():
            raise StoreError(f"{self._path} is a directory. Name a file in it in ENGINE_URL.")
        with _faults_of(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            await self._lock.acquire(str(self._path), IN_USE)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))  # the secret in it is nobody else's
        return await self._run(self._write_thread, self._connect)

    def _connect(self) -> Opened:
        self._writer = db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        version = _version_of(db, self._path)  # before anything is changed in what may be another program's file
        _let_shrink(db, self._path)  # which a new file takes only before anything else
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = ON")  # what is deleted or pruned is not to be found in the file
        if version < len(sql.SCHEMA):
            _migrate(db, version)
            self._release_space(db)  # else the first message would wait while new indexes are copied from the log
        self._reader = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        self._reader.execute("PRAGMA query_only = ON")
        epoch, secret, rules, self._pruned = db.execute(sql.ROOM).fetchone()
        self._seq = (db.execute(sql.LAST_SEQ).fetchone() or (0,))[0]
        rows = self._reader.execute(sql.NEWEST, (FIRST, LAST, self._keep)).fetchall()  # so it opens its files now
        newest = [Message(*row) for row in reversed(rows)]
        since = newest[0].seq if len(newest) == self._keep else self._pruned
        deletions = [Deletion(*row) for row in db.execute(sql.DELETIONS, (since,))]
        return Opened(epoch, secret, self._seq, self._pruned, rules, newest, deletions, (self._seq, 0))

    async def append(self, drafts: Sequence[Draft]) -> list[Message]:
        return await self._run(self._write_thread, lambda: self._insert(drafts))

    def _insert(self, drafts: Sequence[Draft]) -> list[Message]:
        with _transaction(self._opened(self._writer)) as db:
            if not drafts:
                db.execute(sql.PROBE)
            messages = number(drafts, self._seq, _with_nonces(db, [draft for draft in drafts if draft.nonce]))
            # A nonce may occur in one batch twice.
            new = list({message.seq: message for message in messages if message.seq > self._seq}.values())
            if new:
                values = [value for message in new for value in _columns(message)]
                db.execute(sql.INSERT + ", ".join([sql.ROW] * len(new)), values)
        if new:
            self._seq = new[-1].seq
            self._echo(new)
        return messages

    async def apply(self, change: Change) -> Change | None:
        return await self._run(self._write_thread, lambda: self._change(change))

    def _change(self, change: Change) -> Change | None:
        deletions: list[Deletion] = []
        pruned = change.pruned if change.pruned > self._pruned else 0
        with _transaction(self._opened(self._writer)) as db:
            if (
                change.rules is not None
                and not db.execute(sql.REPLACE_RULES, (change.rules, change.old_rules)).rowcount
            ):
                return None
            for seq, message_id, _ in change.deletions:
                if db.execute(sql.DELETE, (self._seq, seq)).rowcount:
                    deletions.append(Deletion(seq, message_id, self._seq))
            if pruned:
                db.execute(sql.PRUNED, (pruned,))
                self._drop(db)  # first, so that nothing is overwritten that is dropped anyway
                db.execute(sql.FORGET, (self._pruned, pruned))
        if deletions or pruned:
            self._release_space(db)
        if not (deletions or pruned) and change.rules is None:
            return None
        self._pruned, self._changes = max(self._pruned, pruned), self._changes + 1
        done = Change(tuple(deletions), pruned, change.rules, change.old_rules, (self._seq, self._changes))
        self._echo(done)
        return done

    def _echo(self, stored: Stored) -> None:
        """Puts what was committed into the feed, from the thread, so that the order is that of the commits."""
        self._loop.call_soon_threadsafe(self._committed.put_nowait, stored)

    async def find(self, query: Query) -> list[Message]:
        statement = sql.FIND % query.by if query.by else sql.NEWEST if query.newest else sql.PAGE
        bounds = (query.after, query.before, *([query.value] if query.by else []), query.limit)

        def search() -> list[Message]:
            return [Message(*row) for row in self._opened(self._reader).execute(statement, bounds)]

        return await self._run(self._read_thread, search)

    async def feed(self) -> AsyncIterator[Stored]:
        while True:
            yield await self._committed.get()

    async def tidy(self) -> bool:
        return await self._run(self._write_thread, self._tidy)

    def _tidy(self) -> bool:
        with _transaction(self._opened(self._writer)) as db:
            dropped = self._drop(db)
        if dropped or self._log_is_full:
            self._release_space(db)
        return dropped == self._drop_step

    def _drop(self, db: sqlite3.Connection) -> int:
        """Drops pruned rows whose nonces are forgotten by now, a few of the oldest; returns how many."""
        return db.execute(sql.DROP, (self._drop_step, time.time() - NONCE_LIFETIME)).rowcount

    def _release_space(self, db: sqlite3.Connection) -> None:
        """Returns free pages to the file system, and empties the log. A failure is left to the next time."""
        self._log_is_full = True
        with contextlib.suppress(sqlite3.OperationalError):
            db.executescript("PRAGMA incremental_vacuum")  # all pages; `execute` would stop after the first
            db.execute("PRAGMA busy_timeout = 0")  # if something reads, the writer does not wait for it
            self._log_is_full = bool(db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])
        db.execute(f"PRAGMA busy_timeout = {BUSY}")

    async def close(self) -> None:
        reader, self._reader = self._reader, None
        if reader:
            reader.interrupt()  # nobody waits for a search any more
            await self._run(self._read_thread, reader.close)
        writer, self._writer = self._writer, None
        if writer:
            await self._run(self._write_thread, writer.close)
        self._read_thread.shutdown(wait=False)
        self._write_thread.shutdown(wait=False)
        self._lock.release()

    def _opened(self, db: sqlite3.Connection | None) -> sqlite3.Connection:
        if not db:
            raise StoreError(f"{self._path} is closed. The server is stopping.")
        return db

    async def _run(self, thread: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        def guarded() -> T:
            with _faults_of(self._path):
                return work()

        return await asyncio.get_running_loop().run_in_executor(thread, guarded)

    # For the command line, without `open`

    async def export(self) -> AsyncIterator[Message]:
        """All messages, oldest first, also beside a running server."""
        after = FIRST
        with _faults_of(self._path), contextlib.closing(self._open_read_only()) as db:
            # A page at once: while one statement reads, the server's log would grow.
            while page := db.execute(sql.PAGE, (after, LAST, EXPORT_PAGE)).fetchall():
                for message in (Message(*row) for row in page):
                    yield message
                    after = message.seq

    async def reserve(self) -> None:
        """Keeps servers away until `close`. Raises StoreError when one is there, and for a file that is not ours."""
        with _faults_of(self._path):
            self._open_read_only().close()
            await self._lock.acquire(str(self._real_path), "Stop the server first.")

    async def wipe(self) -> None:
        """Deletes the file, and the link's target where `path` is a link."""
        with _faults_of(self._path):
            for part in ("-wal", "-shm", ""):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{self._real_path}{part}")

    async def back_up(self, copy: Path) -> None:
        """Writes everything into a new file, also beside a running server. The file appears when it is whole."""
        with _faults_of(self._path), contextlib.closing(self._open_read_only()) as db, _faults_of(copy):
            _check_free(copy)
            _put(_copy(db, copy), copy)

    async def restore(self, copy: Path) -> Path | None:
        """Puts a copy in the place of the file, which is kept beside it as `….before-restore`. Returns that path.

        The room gets a new epoch, so that clients forget what they remember of the other one.
        """
        path, kept = self._real_path, None
        with _faults_of(copy), contextlib.closing(_open_to_read(copy, "Name a file that `backup` wrote.")) as db:
            if not _version_of(db, copy) or db.execute("PRAGMA integrity_check").fetchone()[0] != "ok":
                raise StoreError(f"{copy} is not a whole copy of a room. Nothing was changed.")
            with _faults_of(self._path):
                path.parent.mkdir(parents=True, exist_ok=True)
                await self._lock.acquire(str(path), "Stop the server first.")
                restored = _copy(db, path, epoch=str(uuid.uuid4()))
                if path.exists():
                    kept = _keep(path)
                _put(restored, path)
        return kept

    def _open_read_only(self) -> sqlite3.Connection:
        db = _open_to_read(self._real_path, "Check ENGINE_URL, and from which directory you start.")
        try:
            _version_of(db, self._real_path)
        except BaseException:
            db.close()
            raise
        return db


def _open_to_read(path: Path, advice: str) -> sqlite3.Connection:
    if not path.is_file():
        raise StoreError(f"{path} does not exist. {advice}")
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)


def _check_free(path: Path) -> None:
    if path.exists():
        raise StoreError(f"{path} exists already. Name another file, or remove it.")


def _copy(db: sqlite3.Connection, target: Path, epoch: str = "") -> Path:
    """Copies a database into a file beside the target, and returns its path."""
    part = target.with_name(f"{target.name}.part")
    for left in (part, Path(f"{part}-journal")):  # by a copy that was killed
        left.unlink(missing_ok=True)
    os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))  # the secret in it is nobody else's
    with contextlib.closing(sqlite3.connect(part, isolation_level=None)) as copy:
        db.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")  # so that one file is all
        if epoch:
            copy.execute(sql.NEW_EPOCH, (epoch,))
    return part


def _put(part: Path, target: Path) -> None:
    """Gives a copy its name, so that under this name there is never half a one."""
    _sync(part)
    os.replace(part, target)
    _sync(target.parent)


def _keep(path: Path) -> Path:
    """Gives a database that nobody uses a second name, and returns that. What its log holds is taken into it first.

    Under the first name it stays, because without a file the server would begin a new room. The log of a broken one,
    which SQLite would replay over the next file of that name, gets the second name, too.
    """
    kept = path.with_name(f"{path.name}.before-restore")
    with contextlib.suppress(sqlite3.DatabaseError), contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = DELETE")
    for part in ("", "-wal", "-shm"):
        Path(f"{kept}{part}").unlink(missing_ok=True)
    os.link(path, kept)
    for part in ("-wal", "-shm"):
        if os.path.exists(f"{path}{part}"):
            os.replace(f"{path}{part}", f"{kept}{part}")
    return kept


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _version_of(db: sqlite3.Connection, path: Path) -> int:
    """The schema's, 0 for an empty file. Raises StoreError for a file that can't be used, and changes nothing in it."""
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    if version > len(sql.SCHEMA):
        raise StoreError(
            f"{path} was made by a newer version of this program (its schema is {version}, this one knows up to "
            f"{len(sql.SCHEMA)}). Install that one, restore a backup from before, or name another file in ENGINE_URL."
        )
    columns = {name for (name,) in db.execute("SELECT name FROM pragma_table_info('room')")}
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not (columns >= sql.ROOM_COLUMNS and "message" in tables if version else not tables):
        raise StoreError(
            f"{path} was not made by this program, or by one before 0.1.0. "
            "Move it away, or name another file in ENGINE_URL."
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
