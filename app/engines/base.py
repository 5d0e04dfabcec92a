"""What every engine does: all drafts that wait are stored at once, and delivered in order; so are changes.

An engine knows drafts and messages, nothing of connections. A subclass says only how things are stored and found.
"""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, Protocol

from app import metrics
from app.engines.drafts import Pending, refuse
from app.engines.writer import Writer
from app.exceptions import NonceReused, StoreError
from app.message import Change, Draft, Hiding, Message

HIDE_STEP = 100  # messages that are hidden at once: others wait for 10 ms
SEARCH_PATIENCE = 30.0  # seconds for a search, which in a large store may look through all messages
HIDE_BYTES = 100  # of a frame that tells of one
HIDE_PAUSE = 0.01  # seconds between two steps, in which the clients may read
FIRST, LAST = 0, 2**63 - 1  # below and above every seq

logger = logging.getLogger(__name__)

By = Literal["id", "username", "session"]


class Listener(Protocol):
    """Who hears what an engine has stored."""

    def renew(self, past: Sequence[Message], hidden: Sequence[Hiding]) -> None:
        """The store was opened, or is another one now, or what was not told yet of it is not there any more.

        `past`: its newest messages; `hidden`: what was hidden since the first of them; both oldest first.
        """

    async def deliver(self, messages: Sequence[Message]) -> None:
        """These were stored after all that was told before."""

    async def change(self, change: Change) -> None:
        """This was, after all that was told before."""

    def trouble(self) -> None:
        """For some seconds now, what others store may not arrive."""


class Engine(Writer):
    """Stores drafts and delivers them as messages.

    `epoch` names the store, `seq` is the newest message's, up to `pruned` all are gone, `secret` is a random one that
    is kept with the store, as are the owner's `rules`. All of them hold from `start` on.
    """

    epoch: str
    seq: int
    pruned: int
    secret: str
    rules: str
    prune_step = 250  # messages that are to be pruned at once

    def __init__(self, keep: int, batch_bytes: int) -> None:
        super().__init__(batch_bytes)
        self.keep = keep

    async def start(self, listener: Listener) -> None:
        """Opens the store. Tells the newest `keep` messages, then everything as it is stored, in `seq` order.

        Raises StoreError when the store can't be opened.
        """
        self._listener = listener
        listener.renew(*await self._open())
        self._begin()

    async def page(self, after: int, limit: int) -> list[Message]:
        """The oldest messages after a seq, as far as they are neither hidden nor pruned. Raises StoreError."""
        return await self._look_up(max(after, self.pruned), LAST, limit, False)

    async def before(self, seq: int, limit: int) -> list[Message]:
        """The newest messages before a seq, newest first, that are neither hidden nor pruned. Raises StoreError."""
        return await self._look_up(self.pruned, seq, limit, True)

    async def find(self, by: By, value: str, limit: int) -> list[Message]:
        """The newest messages with this id, session, or username (in any case), newest first. Raises StoreError."""
        return await self._look_up(FIRST, LAST, limit, True, by, value)

    async def hide(self, by: By, value: str) -> int:
        """Hides all messages that `find` would find; how many. Raises StoreError.

        Nothing is left of them but what tells a post that is sent again from a new one.
        """
        step = 1 if by == "id" else min(HIDE_STEP, self._drafts.batch_bytes // HIDE_BYTES)
        count, before = 0, LAST
        while found := await self._look_up(FIRST, before, step, True, by, value):
            count, before = count + await self._do(partial(self._hide, found)), found[-1].seq
            if by == "id" or len(found) < step:
                break
            await asyncio.sleep(HIDE_PAUSE)
        return count

    async def prune(self, seq: int) -> None:
        """Forgets all messages up to a seq. Raises StoreError."""
        await self._do(partial(self._change, Change(pruned=seq)))

    async def tidy(self) -> bool:
        """Forgets some of what was kept of messages that are gone; whether there may be more. Raises StoreError."""
        return False

    async def amend(self, old: str, new: str) -> bool:
        """Puts new rules in the place of old ones; False if it is others that hold. Raises StoreError."""
        return await self._do(partial(self._change, Change(rules=new), old)) is not None

    @abstractmethod
    async def _open(self) -> tuple[list[Message], list[Hiding]]:
        """Opens the store, sets what holds from `start` on, returns what `Listener.renew` is told."""

    @abstractmethod
    async def _store(self, drafts: list[Draft]) -> list[Message]:
        """Stores all drafts or none, durably. Returns for each its message, or the one that has its nonce.

        An empty list tries whether the store can be written to. Raises StoreError.
        """

    @abstractmethod
    async def _find(
        self, after: int, before: int, limit: int, newest: bool, by: By | None = None, value: str = ""
    ) -> list[Message]:
        """Messages between two seqs, newest or oldest first; with `by` those alone that it selects. Raises StoreError.

        `by` goes with `newest`.
        """

    @abstractmethod
    async def _apply(self, change: Change, old: str) -> Change | None:
        """Stores a change, durably; what of it was new, None when it is not `old` rules that its own would replace.

        Raises StoreError.
        """

    async def _look_up(self, after: int, before: int, limit: int, newest: bool, *by: Any) -> list[Message]:
        seconds = SEARCH_PATIENCE if by else None
        return await self._in_time(self._find(after, before, limit, newest, *by), seconds)

    async def _hide(self, messages: Sequence[Message]) -> int:
        done = await self._change(Change(tuple(Hiding(message.seq, message.id, self.seq) for message in messages)))
        return len(done.hidden) if done else 0

    async def _change(self, change: Change, old: str = "") -> Change | None:
        done = await self._apply(change, old)
        if done:
            await self._tell(done)
        return done

    async def _write_batch(self, batch: list[Pending]) -> None:
        drafts = [pending.draft for pending in batch]
        try:
            messages = await self._patiently(self._store(drafts), batch)
        except StoreError as error:
            self._note(error)
            refuse(batch)
            return
        except Exception:
            logger.exception("The engine failed")  # our own fault, but the next batch may still be stored
            refuse(batch)
            return
        self._note(None)
        new = [one for one, draft in zip(messages, drafts, strict=True) if one.id == draft.id and not one.gone]
        if new:
            metrics.messages.inc(len(new))
            await self._hand_out(new)
        for message, (draft, _, answer) in zip(messages, batch, strict=False):  # batch is empty when it was refused
            if message.id != draft.id or message.gone:
                answer(message if message.gone or message.text == draft.text else NonceReused())

    async def _hand_out(self, messages: Sequence[Message]) -> None:
        """Delivers what was newly stored."""
        self.seq = messages[-1].seq
        try:
            await self._listener.deliver(messages)
        except Exception:
            logger.exception("Delivery failed")  # our own fault; what comes next must still be stored and delivered

    async def _tell(self, change: Change) -> None:
        """Tells of a change that was newly stored."""
        self.pruned = max(self.pruned, change.pruned)
        if change.rules is not None:
            self.rules = change.rules
        try:
            await self._listener.change(change)
        except Exception:
            logger.exception("A change failed")  # as above
