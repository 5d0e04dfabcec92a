"""The store that forgets: for tests and demonstrations. Nothing outlives the process."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import secrets
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from app.engines.lock import Lock
from app.engines.store import NONCE_LIFETIME, Opened, Query, Stored
from app.exceptions import StoreError
from app.message import Change, Draft, Message, deleted, stored

IN_USE = "Several workers can't share it: start with a single worker, or set ENGINE_URL=redis://…"


class MemoryStore:
    """Messages in two dicts. One of several workers refuses to be a room of its own.

    `lock_timeout`: seconds to wait for another worker to end.
    """

    def __init__(self, lock_timeout: float = 0.0) -> None:
        name = f"portfolio-chat-{os.getuid()}-{os.getppid()}.lock"
        self._lock = Lock(Path(tempfile.gettempdir()) / name, lock_timeout)
        self._messages: dict[int, Message] = {}  # by seq; without those that are deleted or pruned
        # Seq and id of the message with a session and nonce, and when it was stored; in this order.
        self._by_nonce: dict[tuple[str, str], tuple[int, str, float]] = {}
        self._seq = self._pruned = self._changes = 0
        self._rules = ""
        self._feed: asyncio.Queue[Stored] = asyncio.Queue()

    async def open(self) -> Opened:
        if _has_siblings():
            try:
                await self._lock.acquire("memory://", IN_USE)
            except OSError as error:
                directory = tempfile.gettempdir()
                raise StoreError(f"{directory}: {error.strerror}. Make it writable, or set TMPDIR") from error
        return Opened(str(uuid.uuid4()), secrets.token_hex(32), 0, 0, "")

    async def append(self, drafts: Sequence[Draft]) -> list[Message]:
        first = self._seq
        messages = [self._add(draft) for draft in drafts]
        if new := [message for message in messages if message.seq > first]:
            self._feed.put_nowait(list(dict.fromkeys(new)))
        return messages

    def _add(self, draft: Draft) -> Message:
        if known := self._by_nonce.get((draft.session, draft.nonce or "")):
            seq, message_id, _ = known
            return self._messages.get(seq) or deleted(draft, message_id, seq)
        self._seq += 1
        self._messages[self._seq] = message = stored(draft, self._seq)
        if draft.nonce:
            self._by_nonce[draft.session, draft.nonce] = self._seq, draft.id, time.monotonic()
        return message

    async def apply(self, change: Change) -> Change | None:
        if change.rules is not None and change.old_rules != self._rules:
            return None
        self._rules = self._rules if change.rules is None else change.rules
        deletions = tuple(one._replace(at=self._seq) for one in change.deletions if self._messages.pop(one.seq, None))
        pruned = self._prune(change.pruned)
        if not (deletions or pruned) and change.rules is None:
            return None
        self._changes += 1
        done = Change(deletions, pruned, change.rules, change.old_rules, (self._seq, self._changes))
        self._feed.put_nowait(done)
        return done

    def _prune(self, seq: int) -> int:
        for old in list(itertools.takewhile(lambda old: old <= seq, self._messages)):
            del self._messages[old]
        if seq <= self._pruned:
            return 0
        self._pruned = seq
        return seq

    async def find(self, query: Query) -> list[Message]:
        return list(itertools.islice(self._selected(query), query.limit))

    def _selected(self, query: Query) -> Iterator[Message]:
        for seq in reversed(self._messages) if query.newest else self._messages:
            if query.after < seq < query.before and query.selects(self._messages[seq]):
                yield self._messages[seq]

    async def feed(self) -> AsyncIterator[Stored]:
        while True:
            yield await self._feed.get()

    async def tidy(self) -> bool:
        horizon = time.monotonic() - NONCE_LIFETIME
        for key in list(itertools.takewhile(lambda key: self._by_nonce[key][2] < horizon, self._by_nonce)):
            del self._by_nonce[key]
        return False

    async def close(self) -> None:
        self._lock.release()


def _has_siblings() -> bool:
    """Whether this process may be one of several workers, of uvicorn or of gunicorn."""
    return multiprocessing.parent_process() is not None or "gunicorn" in os.environ.get("SERVER_SOFTWARE", "")
