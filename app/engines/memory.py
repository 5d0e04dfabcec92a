"""The engine that forgets: for tests and demonstrations. Nothing outlives the process."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import tempfile
from pathlib import Path

from app.engines.lock import Lock
from app.engines.sqlite import SQLiteEngine
from app.exceptions import StoreError
from app.message import Hiding, Message

ADVICE = "Several workers can't share it: start with a single worker, or set ENGINE_URL=redis://…"


class MemoryEngine(SQLiteEngine):
    """A database in memory. One of several workers refuses to be a room of its own."""

    def __init__(self, keep: int, batch_bytes: int, lock_timeout: float = 0.0) -> None:
        super().__init__(":memory:", keep, batch_bytes, lock_timeout)
        name = f"portfolio-chat-{os.getuid()}-{os.getppid()}.lock"
        self._reading = self._writing  # there is but one connection to a database in memory
        self._lock = Lock(Path(tempfile.gettempdir()) / name, lock_timeout)

    async def _open(self) -> tuple[list[Message], list[Hiding]]:
        if _has_siblings():
            try:
                await self._lock.take("memory://", ADVICE)
            except OSError as error:
                raise StoreError(
                    f"{tempfile.gettempdir()}: {error.strerror}. Make it writable, or set TMPDIR"
                ) from error
        return await self._in_thread(self._connect)

    def _open_reader(self, writer: sqlite3.Connection) -> sqlite3.Connection:
        return writer


def _has_siblings() -> bool:
    """Whether this process may be one of several workers, of uvicorn or of gunicorn."""
    return multiprocessing.parent_process() is not None or "gunicorn" in os.environ.get("SERVER_SOFTWARE", "")
