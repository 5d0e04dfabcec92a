"""The engine that forgets: for tests and demonstrations. Nothing outlives the process."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import tempfile
import uuid
from collections import OrderedDict
from pathlib import Path

from app.engines.base import Engine, number
from app.engines.lock import Lock
from app.exceptions import StoreError
from app.message import Draft, Message

NONCE_SECONDS = 24 * 3600.0  # how long a nonce is remembered (the wire contract's minimum)
ADVICE = "Several workers can't share it: start with a single worker, or set ENGINE_URL=redis://…"


class MemoryEngine(Engine):
    """Numbers drafts and remembers their nonces for a day. One of several workers refuses to be a room of its own."""

    def __init__(self, keep: int, batch_bytes: int, lock_timeout: float = 0.0) -> None:
        super().__init__(keep, batch_bytes)
        self._lock = Lock(
            Path(tempfile.gettempdir()) / f"portfolio-chat-{os.getuid()}-{os.getppid()}.lock", lock_timeout
        )
        self._nonces: OrderedDict[tuple[str, str], Message] = OrderedDict()

    async def _open(self) -> list[Message]:
        if _has_siblings():
            try:
                await self._lock.take("memory://", ADVICE)
            except OSError as error:
                raise StoreError(
                    f"{tempfile.gettempdir()}: {error.strerror}. Make it writable, or set TMPDIR"
                ) from error
        self.epoch, self.seq, self.secret = str(uuid.uuid4()), 0, secrets.token_hex(32)
        return []

    async def _store(self, drafts: list[Draft]) -> list[Message]:
        messages = number(drafts, self.seq, self._nonces)
        self._forget_before(drafts[-1].timestamp - NONCE_SECONDS if drafts else 0.0)
        return messages

    def _forget_before(self, horizon: float) -> None:
        while self._nonces and next(iter(self._nonces.values())).timestamp < horizon:
            self._nonces.popitem(last=False)

    async def _close(self) -> None:
        self._nonces.clear()
        self._lock.release()


def _has_siblings() -> bool:
    """Whether this process may be one of several workers, of uvicorn or of gunicorn."""
    return multiprocessing.parent_process() is not None or "gunicorn" in os.environ.get("SERVER_SOFTWARE", "")
