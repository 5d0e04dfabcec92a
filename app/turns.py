"""Turns at expensive work: how much of the event loop it may have, and in which order. Knows nothing of the work."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from weakref import WeakValueDictionary

SHARE = 3  # of so many seconds, expensive work may have one
BURST = 0.002  # seconds by which it may be ahead of its share
BUSY_PATIENCE = 1.0  # seconds


class Turns:
    """Keeps expensive work to a part of the event loop's time, so that everything else comes between.

    One key (an address, say) has one turn at a time, so however much one asks for, another's is next. `busy` holds up
    all turns, each for BUSY_PATIENCE seconds at most.
    """

    def __init__(self, busy: Callable[[], bool], clock: Callable[[], float] = time.monotonic) -> None:
        self._busy = busy
        self._clock = clock
        self._even = clock()  # when the work will have had no more than its share
        self._queues: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._next = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def take(self, key: str) -> AsyncIterator[None]:
        """Waits for a turn, which is the time spent inside. First come, first served. Nothing is awaited inside."""
        patience = self._clock() + BUSY_PATIENCE
        queue = self._queues.setdefault(key, asyncio.Lock())
        async with queue, self._next:
            while pause := self._pause(patience):  # noqa: ASYNC110 - no event tells that time has passed
                await asyncio.sleep(pause)
            began = self._clock()
            try:
                yield
            finally:
                self._even = max(self._even, began) + SHARE * (self._clock() - began)

    def _pause(self, patience: float) -> float:
        now = self._clock()
        ahead = self._even - now
        return max(ahead, BURST) if ahead > BURST or (self._busy() and now < patience) else 0.0
