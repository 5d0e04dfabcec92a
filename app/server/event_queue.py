"""The queue of WebSocket events between the protocol and the endpoint."""

from __future__ import annotations

import asyncio
import time
from typing import Any

YIELD_AFTER = 0.004  # seconds of reading without a pause after which the event loop is given back


class EventQueue:
    """A queue for one reader at a time. An asyncio.Queue would cost each idle connection 3 KiB more."""

    __slots__ = ("_events", "_next", "_waiter", "_yield_at")

    def __init__(self) -> None:
        self._events: list[Any] = []
        self._next = 0  # index of the oldest event that has not been read
        self._yield_at = 0.0
        self._waiter: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._events) - self._next

    def put_nowait(self, event: Any) -> None:
        """Adds an event, and wakes the reader."""
        self._events.append(event)
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> Any:
        """Returns the oldest event; waits for one. Now and then gives other tasks a turn, however many there are."""
        if self and time.monotonic() > self._yield_at:
            await asyncio.sleep(0)
            self._yield_at = time.monotonic() + YIELD_AFTER
        while not self:
            self._events.clear()
            self._next = 0
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
            self._waiter = None
            self._yield_at = time.monotonic() + YIELD_AFTER
        self._next += 1
        return self._events[self._next - 1]
