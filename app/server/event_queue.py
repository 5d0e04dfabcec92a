"""What a client sent and the endpoint has not read yet. Knows nothing of what is in it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

YIELD_AFTER = 0.004  # seconds of reading without a pause after which the event loop is given back


class EventQueue:
    """The events for one endpoint. An asyncio.Queue would cost an idle connection 3 KiB for what it never uses."""

    __slots__ = ("_events", "_taken", "_turn", "_waiter")

    def __init__(self) -> None:
        self._events: list[Any] = []
        self._taken = 0
        self._turn = 0.0
        self._waiter: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._events) - self._taken

    def empty(self) -> bool:
        """As asyncio.Queue has it."""
        return not len(self)

    def put_nowait(self, event: Any) -> None:
        """Adds an event."""
        self._events.append(event)
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> Any:
        """The oldest event. For one reader at a time, who gives the event loop back when it has read for a while."""
        if not self.empty() and time.monotonic() > self._turn:
            await asyncio.sleep(0)
            self._turn = time.monotonic() + YIELD_AFTER
        while self.empty():
            self._events.clear()
            self._taken = 0
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
            self._waiter = None
            self._turn = time.monotonic() + YIELD_AFTER
        self._taken += 1
        return self._events[self._taken - 1]
