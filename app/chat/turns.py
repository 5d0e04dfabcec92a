"""Turns at expensive work: how much of the event loop it may have, and in which order. Knows nothing of the work."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from weakref import WeakValueDictionary

SHARE = 2  # of so many seconds, expensive work may have one
BURST = 0.002  # seconds by which it may be ahead of its share


class Turns:
    """Keeps expensive work to a part of the event loop's time, so that everything else comes between.

    One key (an address, say) has one turn at a time, so however much one asks for, another's is next.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._even = clock()  # when the work will have had no more than its share
        self._queues: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._next = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def take(self, key: str) -> AsyncIterator[None]:
        """Waits for a turn, which is the time spent inside. First come, first served. Nothing is awaited inside."""
        queue = self._queues.setdefault(key, asyncio.Lock())
        async with queue, self._next:
            if (ahead := self._even - self._clock()) > BURST:
                await self._sleep(ahead)
            began = self._clock()
            try:
                yield
            finally:
                self._even = max(self._even, began) + SHARE * (self._clock() - began)
