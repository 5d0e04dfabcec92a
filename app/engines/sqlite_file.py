"""The database file: how it is opened, checked and brought up to date, and what its faults are called.

Knows nothing of the engine.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path

from app.engines import sql
from app.exceptions import StoreError

logger = logging.getLogger(__name__)


def connect(path: Path) -> sqlite3.Connection:
    """A connection whose transactions begin and end where it is told to, for any one thread at a time."""
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


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


def let_shrink(db: sqlite3.Connection, path: Path) -> None:
    """Sees to it that the file can give back what it does not need. One of an earlier version is written anew once."""
    if db.execute("PRAGMA auto_vacuum").fetchone()[0]:
        return
    db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    try:
        db.execute("VACUUM")
    except sqlite3.OperationalError as error:
        logger.warning("%s won't shrink until the disk has room for a second one: %s", path, error)


def migrate(db: sqlite3.Connection, version: int) -> None:
    """Takes a file of an older schema version, 0 for an empty one, to the newest."""
    with transaction(db):
        for number, step in enumerate(sql.SCHEMA[version:], version):
            for statement in filter(str.strip, step.split(";")):
                db.execute(statement)
            if number == 0:
                db.execute(sql.NEW_ROOM, (str(uuid.uuid4()), secrets.token_hex(32)))
        db.execute(f"PRAGMA user_version = {len(sql.SCHEMA)}")


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All that is done in it is stored, or nothing."""
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
