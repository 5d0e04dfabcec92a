"""The one writer of an engine: a task that takes what waits, batch by batch, and bears with a store that hangs.

Knows nothing of what a store is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from app import tasks
from app.engines.drafts import Answer, Drafts, Pending, refuse
from app.exceptions import StoreError, Unavailable
from app.message import Draft

T = TypeVar("T")

ACTS_LIMIT = 100  # acts that may wait
PATIENCE = 5.0  # seconds after which a draft that is not stored is refused
PROBE_IDLE = 8.0  # seconds without a draft after which the store is tried
PROBE_BROKEN = 5.0  # the same while it is broken

logger = logging.getLogger(__name__)


class Writer(ABC):
    """Stores drafts, and does acts between them. `healthy` tells whether the store took the last batch.

    `batch_bytes`: what the frames of one batch may take together, so that it fits into every outbox.
    """

    def __init__(self, batch_bytes: int) -> None:
        self.healthy = True
        self._drafts = Drafts(batch_bytes)
        self._acts: deque[tuple[Callable[[], Awaitable[Any]], asyncio.Future[Any]]] = deque()
        self._wake = asyncio.Event()
        self._stopping = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None

    def publish(self, draft: Draft, answer: Answer) -> None:
        """Queues a draft and returns at once. Raises Unavailable when too many wait already.

        A draft that gets stored is delivered, unless it is hidden before that. `answer` is called for any other: with
        the stored message that has the same session and nonce (or what is left of it), with NonceReused when that one
        has another text, or with Unavailable after at most PATIENCE seconds, when it is not known to be stored.
        """
        if self._stopping:
            raise Unavailable
        self._drafts.add(Pending(draft, asyncio.get_running_loop().time() + PATIENCE, answer))
        self._idle.clear()
        self._wake.set()

    async def flush(self) -> None:
        """Waits until everything that was accepted is delivered or refused, for PATIENCE seconds at most."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), PATIENCE)

    async def stop(self) -> None:
        """Stores and delivers what was accepted, then closes the store. Safe to call when `start` failed."""
        self._stopping = True
        self._wake.set()
        try:
            async with asyncio.timeout(2 * PATIENCE):
                if self._task:
                    await asyncio.wait({self._task})
                await self._close()
        except TimeoutError:
            logger.error("The store does not answer, so it is left as it is")
        finally:
            if self._task:
                await tasks.end(self._task)

    @abstractmethod
    async def _close(self) -> None:
        """Closes the store."""

    @abstractmethod
    async def _write_batch(self, batch: list[Pending]) -> None:
        """Stores a batch, or refuses it. An empty one tries whether the store can be written to. Never raises."""

    def _begin(self) -> None:
        self._task = tasks.spawn(self._write(), "engine writer")

    async def _do(self, act: Callable[[], Awaitable[T]]) -> T:
        """Has the writer do something between two batches, in order with what it delivers. Raises StoreError."""
        if self._stopping or len(self._acts) >= ACTS_LIMIT:
            raise StoreError("too much waits, or the server is stopping")
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._acts.append((act, done))
        self._wake.set()
        return await self._in_time(done)

    async def _in_time(self, work: Awaitable[T], seconds: float | None = None) -> T:
        """Waits for the store, for so many seconds at most (PATIENCE if not given). Raises StoreError."""
        try:
            return await asyncio.wait_for(work, PATIENCE if seconds is None else seconds)
        except TimeoutError:
            raise StoreError("the store does not answer") from None

    async def _write(self) -> None:
        while not self._stopping or self._drafts or self._acts:
            await self._wait()
            if self._acts:
                await self._act(*self._acts.popleft())
            batch = self._drafts.take()
            if batch or not self._stopping:
                await self._write_batch(batch)
            if not self._drafts:
                self._idle.set()

    async def _wait(self) -> None:
        """Waits for work, or until it is time to see with an empty batch whether the store still works."""
        if self._drafts or self._acts or self._stopping:
            return
        self._wake.clear()
        idle = PROBE_IDLE if self.healthy else PROBE_BROKEN
        timer = asyncio.get_running_loop().call_later(idle, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()

    async def _act(self, act: Callable[[], Awaitable[T]], done: asyncio.Future[T]) -> None:
        if done.done():
            return  # who asked has gone
        try:
            result = await self._patiently(act(), [])
        except Exception as error:  # whatever it is, it is the asker's, and the writer goes on
            if not done.done():
                done.set_exception(error)
        else:
            if not done.done():
                done.set_result(result)

    async def _patiently(self, work: Awaitable[T], batch: list[Pending]) -> T:
        """Waits for the store. While it hangs, refuses the batch, which then is emptied, and who waits behind it."""
        loop = asyncio.get_running_loop()
        deadline = batch[0].deadline if batch else loop.time() + PATIENCE
        self._impatience = loop.call_at(deadline, self._lose_patience, batch, deadline)
        try:
            return await work
        finally:
            self._impatience.cancel()

    def _lose_patience(self, batch: list[Pending], due: float) -> None:
        loop = asyncio.get_running_loop()
        again = loop.time() + PATIENCE / 50
        self._impatience = loop.call_at(again, self._lose_patience, batch, again)
        if loop.time() - due > PATIENCE / 10:
            return  # it was the event loop that stood still; perhaps the store has answered meanwhile
        self._note(StoreError("the store does not answer"))
        refuse(batch)
        batch.clear()
        self._drafts.refuse_before(loop.time())

    def _note(self, error: StoreError | None) -> None:
        if self.healthy and error:
            logger.error("Messages cannot be stored: %s", error)
        elif not self.healthy and not error:
            logger.info("Messages are stored again")
        self.healthy = error is None
