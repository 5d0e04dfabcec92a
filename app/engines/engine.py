"""The engine: one queue of drafts, one writer, and one reader of the store's feed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, Protocol, TypeVar

from app import metrics, tasks
from app.engines.store import SEARCH_TIMEOUT, STORE_TIMEOUT, Opened, Outage, Query, Reset, Store, Stored
from app.exceptions import ChatError, NonceReused, StoreError, Unavailable
from app.message import Change, Draft, Message, Position, deleted

T = TypeVar("T")

BATCH_LIMIT = 256  # drafts that are stored at once
FRAME_BYTES = 330  # of a message's frame, beside its text
CHAR_BYTES = 8  # that a character may take in a frame: four in `content` and four in `text`

logger = logging.getLogger(__name__)

Answer = Callable[[Message | ChatError], None]


@dataclass(frozen=True)
class EngineTiming:
    """Times (seconds) and limits of an engine."""

    store_timeout: float = STORE_TIMEOUT  # after which a draft that is not stored is refused
    search_timeout: float = SEARCH_TIMEOUT
    probe_idle: float = 8.0  # without a draft, after which the store is probed
    probe_broken: float = 5.0  # the same while the store fails
    retry: float = 0.25  # between two tries to read the feed
    queue_limit: int = 10_000  # drafts that may wait
    change_limit: int = 100  # changes that may wait


class Pending(NamedTuple):
    """A draft that waits, its deadline (event loop time), and whom to answer when it is not newly stored."""

    draft: Draft
    deadline: float
    answer: Answer


class Listener(Protocol):
    """What an engine calls, in the order of the feed."""

    async def on_messages(self, messages: Sequence[Message]) -> None:
        """Called with newly stored messages, in seq order."""

    async def on_change(self, change: Change) -> None:
        """Called with a newly stored change."""

    def on_reset(self, opened: Opened) -> None:
        """Called when the store is another one than before, or something in it was missed."""

    def on_outage(self) -> None:
        """Called once when the feed could not be read for `store_timeout`."""


class Engine:
    """Stores drafts in groups, and delivers what the store's feed yields, in `seq` order.

    `batch_bytes`: the frames of one delivery together, so that they fit into what may wait for a client. `healthy`
    tells whether the store took the last batch. `seq`, `pruned` and `rules` are those of Opened at first, and follow
    what is delivered.
    """

    seq: int
    pruned: int
    rules: str

    def __init__(self, store: Store, batch_bytes: int, timing: EngineTiming | None = None) -> None:
        self.healthy = True
        self._store = store
        self._batch_bytes = batch_bytes
        self._timing = timing or EngineTiming()
        self._pending: deque[Pending] = deque()
        self._undelivered: set[str] = set()  # ids of the drafts that are being stored and have not come out of the feed
        self._position: Position = (0, 0)  # of the newest thing that was delivered
        self._resets = 0
        self._storing = False
        self._changing = 0  # changes that are being made
        self._delivered = asyncio.Event()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = False
        self._outage_announced = False
        self._deadline: asyncio.TimerHandle
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> Opened:
        """Opens the store. Raises StoreError."""
        opened = await self._store.open()
        self._adopt(opened)
        return opened

    def start(self, listener: Listener) -> None:
        """Begins to store, and to deliver to `listener` what is stored after `open`."""
        self._listener = listener
        self._tasks = [tasks.spawn(self._write(), "engine writer"), tasks.spawn(self._read(), "engine reader")]

    def publish(self, draft: Draft, answer: Answer) -> None:
        """Queues a draft and returns at once. Raises Unavailable when too many wait already.

        A draft that gets stored is delivered, unless it is deleted before that. `answer` is called for any other: with
        the stored message that has the same session and nonce (perhaps `deleted`), with NonceReused when that one has
        another text, or with Unavailable after at most `store_timeout`, when it is not known to be stored.
        """
        if self._stopping or len(self._pending) >= self._timing.queue_limit:
            raise Unavailable
        self._pending.append(Pending(draft, self._now() + self._timing.store_timeout, answer))
        self._idle.clear()
        self._wake.set()

    async def flush(self) -> None:
        """Waits until everything that was accepted is delivered or refused, for `store_timeout` at most."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), self._timing.store_timeout)

    async def stop(self) -> None:
        """Stores and delivers what was accepted, then closes the store. Safe to call again, and if `open` failed."""
        self._stopping = True
        try:
            async with asyncio.timeout(2 * self._timing.store_timeout):
                await self._idle.wait()
                for task in self._tasks:
                    await tasks.end(task)
                await self._store.close()
        except TimeoutError:
            logger.error("The store does not answer, so it is left as it is")
        finally:
            for task in self._tasks:
                await tasks.end(task)

    async def find(self, query: Query) -> list[Message]:
        """The messages that a query selects. Raises StoreError."""
        query = query._replace(after=max(query.after, self.pruned))
        timeout = self._timing.search_timeout if query.by else self._timing.store_timeout
        return await _in_time(self._store.find(query), timeout)

    async def tidy(self) -> bool:
        """Releases what the store keeps in vain. Returns whether there may be more. Raises StoreError."""
        return await _in_time(self._store.tidy(), self._timing.store_timeout)

    async def apply(self, change: Change) -> Change | None:
        """Makes a change and waits until it is delivered. Returns what of it was new, as Store.apply does.

        Raises StoreError.
        """
        if self._stopping or self._changing >= self._timing.change_limit:
            raise StoreError("too much waits, or the server is stopping")
        self._changing += 1
        self._idle.clear()
        try:
            return await _in_time(self._apply_and_deliver(change), self._timing.store_timeout)
        finally:
            self._changing -= 1
            self._note_idle()

    async def _apply_and_deliver(self, change: Change) -> Change | None:
        resets = self._resets
        done = await self._store.apply(change)
        if done:
            await self._delivered_up_to(done.position, resets)
        return done

    async def _delivered_up_to(self, position: Position, resets: int) -> None:
        """Waits for the feed, so that no answer overtakes what was stored before it. Raises StoreError."""
        while self._position < position and self._resets == resets:
            self._delivered.clear()
            await self._delivered.wait()
        if self._resets != resets:
            raise StoreError("the store may have lost what it had just stored")

    # The writer

    async def _write(self) -> None:
        while True:
            await self._wait_for_drafts()
            batch = [self._pending.popleft() for _ in range(self._fitting(one.draft for one in self._pending))]
            self._storing = True
            await self._write_batch(batch)
            self._storing = False
            self._note_idle()

    async def _wait_for_drafts(self) -> None:
        """Waits for a draft, or until it is time to probe the store with an empty batch."""
        if self._pending:
            return
        self._wake.clear()
        delay = self._timing.probe_idle if self.healthy else self._timing.probe_broken
        timer = asyncio.get_running_loop().call_later(delay, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()

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
        """Stores a batch and answers those senders whose drafts were not newly stored. Never raises."""
        try:
            messages = await self._store_batch(batch)
        except StoreError as error:
            self._note(error)
            _refuse(batch)
            return
        except Exception:
            logger.exception("The store failed")  # a fault of our own, but the next batch may still be stored
            _refuse(batch)
            return
        self._note(None)
        for message, (draft, _, answer) in zip(messages, batch, strict=False):  # batch is empty when it was refused
            if message.id != draft.id or message.deleted:
                answer(message if message.deleted or message.text == draft.text else NonceReused())

    async def _store_batch(self, batch: list[Pending]) -> list[Message]:
        """Stores a batch, and waits until it came out of the feed.

        While the store hangs, the batch is refused and then emptied, and so is what waits behind it too long.
        """
        drafts = [pending.draft for pending in batch]
        self._undelivered = {draft.id for draft in drafts}
        deadline = batch[0].deadline if batch else self._now() + self._timing.store_timeout
        self._deadline = asyncio.get_running_loop().call_at(deadline, self._overdue, batch, deadline)
        try:
            with metrics.storing(len(drafts)):
                messages = await self._append(drafts)
        finally:
            self._deadline.cancel()
        # A stored draft that never came out of the feed was deleted by another worker before it could.
        undelivered = self._undelivered
        messages = [deleted(one, one.id, one.seq) if one.id in undelivered else one for one in messages]
        pairs = zip(messages, drafts, strict=True)
        metrics.messages.inc(sum(one.id == draft.id and not one.deleted for one, draft in pairs))
        return messages

    async def _append(self, drafts: list[Draft]) -> list[Message]:
        """Appends drafts and waits for the feed. A store that becomes another one meanwhile is tried again."""
        while True:
            resets = self._resets
            try:
                messages = await self._store.append(drafts)
            except StoreError:
                if self._resets == resets:
                    raise
            else:
                if messages:
                    await self._delivered_up_to((max(message.seq for message in messages), 0), resets)
                return messages

    def _overdue(self, batch: list[Pending], due: float) -> None:
        timeout = self._timing.store_timeout
        again = self._now() + timeout / 50
        self._deadline = asyncio.get_running_loop().call_at(again, self._overdue, batch, again)
        if self._now() - due > timeout / 10:
            return  # it was the event loop that stood still; perhaps the store has answered meanwhile
        self._note(StoreError("the store does not answer"))
        _refuse(batch)
        batch.clear()
        while self._pending and self._pending[0].deadline <= self._now():
            self._pending.popleft().answer(Unavailable())

    def _note_idle(self) -> None:
        if not (self._pending or self._storing or self._changing):
            self._idle.set()

    def _note(self, error: StoreError | None) -> None:
        if self.healthy and error:
            logger.error("Messages cannot be stored: %s", error)
        elif not self.healthy and not error:
            logger.info("Messages are stored again")
        self.healthy = error is None

    # The reader

    async def _read(self) -> None:
        while True:
            try:
                async for stored in self._store.feed():
                    await self._deliver(stored)
            except Exception:
                logger.exception("Reading the feed failed")  # a fault of our own; the rest must still be delivered
            await asyncio.sleep(self._timing.retry)

    async def _deliver(self, stored: Stored) -> None:
        if isinstance(stored, Outage):
            self._note_outage(stored)
        elif isinstance(stored, Reset):
            self._resets += 1
            self._adopt(stored.opened)
            self._undelivered.difference_update(message.id for message in stored.opened.messages)
            self._listener.on_reset(stored.opened)
        elif isinstance(stored, Change):
            await self._deliver_change(stored)
        else:
            await self._deliver_messages(stored)
        self._delivered.set()

    async def _deliver_messages(self, messages: list[Message]) -> None:
        while messages:
            count = self._fitting(messages)
            part, messages = messages[:count], messages[count:]
            self.seq = part[-1].seq
            self._undelivered.difference_update(message.id for message in part)
            await self._call(self._listener.on_messages(part))
            self._position = (self.seq, 0)

    async def _deliver_change(self, change: Change) -> None:
        self.seq = max(self.seq, change.position[0])
        self.pruned = max(self.pruned, change.pruned)
        if change.rules is not None:
            self.rules = change.rules
        await self._call(self._listener.on_change(change))
        self._position = max(self._position, change.position)

    async def _call(self, listener: Awaitable[None]) -> None:
        try:
            await listener
        except Exception:
            logger.exception("Delivery failed")  # a fault of our own; what comes next must still be delivered

    def _note_outage(self, outage: Outage) -> None:
        if self.healthy or outage.since is None:
            self._wake.set()  # the writer finds out at once whether it can store
        if outage.since is None:
            self._outage_announced = False
        elif self._now() - outage.since > self._timing.store_timeout and not self._outage_announced:
            self._outage_announced = True
            self._listener.on_outage()

    def _adopt(self, opened: Opened) -> None:
        self.seq, self.pruned, self.rules = opened.seq, opened.pruned, opened.rules
        self._position = opened.position

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


async def _in_time(work: Awaitable[T], timeout: float) -> T:
    try:
        return await asyncio.wait_for(work, timeout)
    except TimeoutError:
        raise StoreError("the store does not answer") from None


def _refuse(batch: Iterable[Pending]) -> None:
    for pending in batch:
        pending.answer(Unavailable())
