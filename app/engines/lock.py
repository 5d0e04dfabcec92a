"""An exclusive lock file. The operating system releases it when its holder dies."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from pathlib import Path

from app.exceptions import StoreError

logger = logging.getLogger(__name__)


class Lock:
    """A lock that one process holds. `timeout`: seconds to wait for another process (a reload overlaps)."""

    def __init__(self, path: Path, timeout: float) -> None:
        self._path = path
        self._timeout = timeout
        self._file: int | None = None

    async def acquire(self, what: str, advice: str) -> None:
        """Waits for the lock. Raises StoreError, which says `what` is in use and gives `advice`, and OSError."""
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = asyncio.get_running_loop().time() + self._timeout
        if not _locked(self._file):
            logger.info("%s is in use; waiting up to %g s for the other process", what, self._timeout)
        while not _locked(self._file):
            if asyncio.get_running_loop().time() >= deadline:
                raise StoreError(f"{what} is in use by another process. {advice}")
            await asyncio.sleep(0.05)

    def release(self) -> None:
        """Releases the lock. Safe to call again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
