"""The pruner: one task that has the store forget what is too old or too much, a little at a time.

Knows the store, nothing of the room.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable

from app.engines import Engine
from app.exceptions import StoreError
from app.message import Message

PAUSE = 0.01  # seconds between two steps, which are everybody's
INTERVAL = 60.0  # seconds between two looks
DAY = 86_400.0  # seconds

logger = logging.getLogger(__name__)


class Pruner:
    """Keeps messages for `days`, and `limit` of them at most; 0: for ever, no limit. `clock` is Unix seconds."""

    def __init__(
        self,
        engine: Engine,
        days: float,
        limit: int,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._engine = engine
        self._days = days
        self._limit = limit
        self._clock = clock
        self._sleep = sleep

    async def run(self) -> None:
        """Prunes until cancelled."""
        while True:
            more = False
            try:
                more = await self.step()
            except StoreError as error:
                logger.debug("Not pruned: %s", error)  # the engine says that it fails, and it is tried again
            except Exception:
                logger.exception("The pruner failed")  # our own fault, and no reason to let the store grow
            await self._sleep(PAUSE if more else INTERVAL)

    async def step(self) -> bool:
        """Prunes `engine.prune_step` messages at most; whether there may be more to prune. Raises StoreError."""
        engine, step = self._engine, self._engine.prune_step
        surplus = engine.seq - self._limit - engine.pruned if self._limit else 0
        if surplus > 0:
            await engine.prune(engine.pruned + min(surplus, step))
        if surplus > step:  # what comes meanwhile waits, else in a full room each message would cost a prune
            return True
        old = await self._old(1) and await self._old(step)  # mostly there is none, and one tells
        if not old:
            return await engine.tidy()
        await engine.prune(old[-1].seq)
        return len(old) == step

    async def _old(self, limit: int) -> list[Message]:
        """The oldest messages that are too old."""
        if not self._days:
            return []
        horizon = self._clock() - self._days * DAY
        oldest = await self._engine.page(self._engine.pruned, limit)
        return list(itertools.takewhile(lambda message: message.timestamp < horizon, oldest))
