"""The database file without its engine: all that is in it, or nothing any more."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

from app.engines import sql
from app.engines.base import FIRST, LAST
from app.engines.lock import Lock
from app.engines.sqlite_file import faults_of, lock_file, version_of
from app.exceptions import StoreError
from app.message import Message

PAGE = 1000  # messages


class SQLiteArchive:
    """A file without its engine. Everything raises StoreError."""

    def __init__(self, path: str) -> None:
        self._path = Path(os.path.realpath(path))
        self._lock = Lock(lock_file(path), 0.0)

    async def messages(self) -> AsyncIterator[Message]:
        """All that is stored, oldest first, also beside a running server."""
        after = FIRST
        with faults_of(self._path), contextlib.closing(self._open()) as db:
            # A page at once: while one statement reads, the server's log would grow.
            while page := db.execute(sql.PAGE, (after, LAST, PAGE)).fetchall():
                for row in page:
                    yield Message(*row)
                after = page[-1][-1]

    async def claim(self) -> None:
        """Keeps servers off until `close`; an error when one is there, and when the file is not ours to delete."""
        with faults_of(self._path):
            self._open().close()
            await self._lock.take(str(self._path), "Stop the server first.")

    async def wipe(self) -> None:
        """Deletes everything."""
        with faults_of(self._path):
            for part in ("-wal", "-shm", ""):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{self._path}{part}")

    def _open(self) -> sqlite3.Connection:
        if not self._path.is_file():
            raise StoreError(f"{self._path} does not exist. Check ENGINE_URL, and from which directory you start.")
        db = sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            version_of(db, self._path)
        except BaseException:
            db.close()
            raise
        return db

    async def close(self) -> None:
        """Frees what was taken. Safe to call again."""
        self._lock.release()
