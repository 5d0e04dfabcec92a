"""A throttle for expensive work on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from weakref import WeakValueDictionary

LOOP_SHARE = 0.5  # of the event loop's time, which expensive work may have
TOLERANCE = 0.002  # seconds that a turn may begin before it is due


class FairThrottle:
    """Limits expensive work to LOOP_SHARE of the event loop's time, so that everything else runs in between.

    A key (an address, say) has one turn at a time, so that one with much to do delays no other by more than a turn.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._due = clock()  # of the next turn: when the work so far was no more than its share
        self._queues: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # by key
        self._next = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def turn(self, key: str) -> AsyncIterator[None]:
        """Waits for a turn, first come, first served. The body is the work; it must not await anything."""
        queue = self._queues.setdefault(key, asyncio.Lock())
        async with queue, self._next:
            if (wait := self._due - self._clock()) > TOLERANCE:
                await self._sleep(wait)
            began = self._clock()
            try:
                yield
            finally:
                self._due = max(self._due, began) + (self._clock() - began) / LOOP_SHARE
