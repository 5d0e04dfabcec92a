"""What every engine does: one writer takes all drafts that wait, stores them at once, and delivers them in order.

An engine knows drafts and messages, nothing of connections. A subclass says only how a batch is stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from itertools import islice
from typing import NamedTuple, Protocol

from app import tasks
from app.exceptions import ChatError, NonceReused, StoreError, Unavailable
from app.message import Draft, Message, stored

QUEUE_LIMIT = 10_000  # drafts that may wait
BATCH_LIMIT = 256  # drafts in one batch
FRAME_BYTES = 300  # of a message's frame, beside its text
CHAR_BYTES = 8  # that a character may take in a frame: four in `content` and four in `text`
PATIENCE = 5.0  # seconds after which a draft that is not stored is refused
PROBE_IDLE = 8.0  # seconds without a draft after which the store is tried
PROBE_BROKEN = 5.0  # the same while it is broken

logger = logging.getLogger(__name__)

Answer = Callable[[Message | ChatError], None]


class Listener(Protocol):
    """Who hears what an engine has stored."""

    def renew(self, past: Sequence[Message]) -> None:
        """The store was opened, or is another one now: these are its newest messages, oldest first."""

    async def deliver(self, messages: Sequence[Message]) -> None:
        """These were stored after all that was told before."""

    def trouble(self) -> None:
        """For some seconds now, what others store may not arrive."""


class Pending(NamedTuple):
    """A draft that waits, until when (event loop time), and whom to tell when it is not newly stored."""

    draft: Draft
    deadline: float
    answer: Answer


class Engine(ABC):
    """Stores drafts and delivers them as messages.

    `epoch` names the store, `seq` is the newest message's, `secret` is a random one that is kept with the store, and
    `healthy` tells whether the store took the last batch. All of them hold from `start` on.
    """

    epoch: str
    seq: int
    secret: str

    def __init__(self, keep: int, batch_bytes: int) -> None:
        """`batch_bytes`: what the frames of one batch may take together, so that it fits into every outbox."""
        self.keep = keep
        self._batch_bytes = batch_bytes
        self.healthy = True
        self._pending: deque[Pending] = deque()
        self._wake = asyncio.Event()
        self._stopping = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._writer: asyncio.Task[None] | None = None

    async def start(self, listener: Listener) -> None:
        """Opens the store. Tells the newest `keep` messages, then every batch as it is stored, in `seq` order.

        Raises StoreError when the store can't be opened.
        """
        self._listener = listener
        listener.renew(await self._open())
        self._writer = tasks.spawn(self._write(), "engine writer")

    def publish(self, draft: Draft, answer: Answer) -> None:
        """Queues a draft and returns at once. Raises Unavailable when too many wait already.

        A draft that gets stored is delivered. `answer` is called for any other: with the stored message that has the
        same session and nonce, with NonceReused when that one has another text, or with Unavailable after at most
        PATIENCE seconds, when it is not known to be stored.
        """
        if len(self._pending) >= QUEUE_LIMIT or self._stopping:
            raise Unavailable
        deadline = asyncio.get_running_loop().time() + PATIENCE
        self._pending.append(Pending(draft, deadline, answer))
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
                if self._writer:
                    await asyncio.wait({self._writer})
                await self._close()
        except TimeoutError:
            logger.error("The store does not answer, so it is left as it is")
        finally:
            if self._writer:
                await tasks.end(self._writer)

    @abstractmethod
    async def _open(self) -> list[Message]:
        """Opens the store, sets `epoch` and `seq`, returns the newest `keep` messages, oldest first."""

    @abstractmethod
    async def _store(self, drafts: list[Draft]) -> list[Message]:
        """Stores all drafts or none, durably. Returns for each its message, or the one that has its nonce.

        An empty list tries whether the store can be written to. Raises StoreError.
        """

    @abstractmethod
    async def _close(self) -> None:
        """Frees everything that `_open` took."""

    async def _write(self) -> None:
        while not self._stopping or self._pending:
            await self._wait()
            batch = self._take()
            if batch or not self._stopping:
                await self._write_batch(batch)
            if not self._pending:
                self._idle.set()

    async def _wait(self) -> None:
        """Waits for a draft, or until it is time to see with an empty batch whether the store still works."""
        if self._pending or self._stopping:
            return
        self._wake.clear()
        idle = PROBE_IDLE if self.healthy else PROBE_BROKEN
        timer = asyncio.get_running_loop().call_later(idle, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()

    def _take(self) -> list[Pending]:
        fitting = self._fitting(pending.draft for pending in self._pending)
        return [self._pending.popleft() for _ in range(fitting)]

    def _fitting(self, drafts: Iterable[Draft]) -> int:
        """How many of these, from the first on, make one batch."""
        fitting, room = 0, self._batch_bytes
        for draft in islice(drafts, BATCH_LIMIT):
            room -= FRAME_BYTES + CHAR_BYTES * len(draft.text)
            if fitting and room < 0:
                break
            fitting += 1
        return fitting

    async def _write_batch(self, batch: list[Pending]) -> None:
        drafts = [pending.draft for pending in batch]
        try:
            messages = await self._patiently(drafts, batch)
        except StoreError as error:
            self._note(error)
            _refuse(batch)
            return
        except Exception:
            logger.exception("The engine failed")  # our own fault, but the next batch may still be stored
            _refuse(batch)
            return
        self._note(None)
        new = [message for message, draft in zip(messages, drafts, strict=True) if message.id == draft.id]
        if new:
            await self._hand_out(new)
        for message, (draft, _, answer) in zip(messages, batch, strict=False):  # batch is empty when it was refused
            if message.id != draft.id:
                answer(message if message.text == draft.text else NonceReused())

    async def _hand_out(self, messages: Sequence[Message]) -> None:
        """Delivers what was newly stored."""
        self.seq = messages[-1].seq
        try:
            await self._listener.deliver(messages)
        except Exception:
            logger.exception("Delivery failed")  # our own fault; what comes next must still be stored and delivered

    async def _patiently(self, drafts: list[Draft], batch: list[Pending]) -> list[Message]:
        """Stores drafts. While the store hangs, refuses the batch, which then is emptied, and who waits behind it."""
        loop = asyncio.get_running_loop()
        deadline = batch[0].deadline if batch else loop.time() + PATIENCE
        self._impatience = loop.call_at(deadline, self._lose_patience, batch, deadline)
        try:
            return await self._store(drafts)
        finally:
            self._impatience.cancel()

    def _lose_patience(self, batch: list[Pending], due: float) -> None:
        loop = asyncio.get_running_loop()
        again = loop.time() + PATIENCE / 50
        self._impatience = loop.call_at(again, self._lose_patience, batch, again)
        if loop.time() - due > PATIENCE / 10:
            return  # it was the event loop that stood still; perhaps the store has answered meanwhile
        self._note(StoreError("the store does not answer"))
        _refuse(batch)
        batch.clear()
        while self._pending and self._pending[0].deadline <= loop.time():
            self._pending.popleft().answer(Unavailable())

    def _note(self, error: StoreError | None) -> None:
        if self.healthy and error:
            logger.error("Messages cannot be stored: %s", error)
        elif not self.healthy and not error:
            logger.info("Messages are stored again")
        self.healthy = error is None


def number(drafts: list[Draft], seq: int, known: MutableMapping[tuple[str, str], Message]) -> list[Message]:
    """The messages that drafts become, numbered on from `seq`; for a nonce that is `known`, the one that has it.

    `known`, by session and nonce, gets the new ones.
    """
    messages = []
    for draft in drafts:
        message = known.get((draft.session, draft.nonce)) if draft.nonce else None
        if not message:
            seq += 1
            message = stored(draft, seq)
            if draft.nonce:
                known[draft.session, draft.nonce] = message
        messages.append(message)
    return messages


def _refuse(batch: list[Pending]) -> None:
    for pending in batch:
        pending.answer(Unavailable())
