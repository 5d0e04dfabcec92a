"""The drafts that wait to be stored: how many there may be, and how many make one batch.

Knows nothing of where they are stored.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, MutableMapping
from itertools import islice
from typing import NamedTuple

from app.exceptions import ChatError, Unavailable
from app.message import Draft, Message, stored

QUEUE_LIMIT = 10_000  # drafts that may wait
BATCH_LIMIT = 256  # drafts in one batch
FRAME_BYTES = 300  # of a message's frame, beside its text
CHAR_BYTES = 8  # that a character may take in a frame: four in `content` and four in `text`

Answer = Callable[[Message | ChatError], None]


class Pending(NamedTuple):
    """A draft that waits, until when (event loop time), and whom to tell when it is not newly stored."""

    draft: Draft
    deadline: float
    answer: Answer


class Drafts:
    """A queue. `batch_bytes`: what the frames of one batch may take together."""

    def __init__(self, batch_bytes: int) -> None:
        self.batch_bytes = batch_bytes
        self._pending: deque[Pending] = deque()

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, pending: Pending) -> None:
        """Raises Unavailable when too many wait already."""
        if len(self._pending) >= QUEUE_LIMIT:
            raise Unavailable
        self._pending.append(pending)

    def take(self) -> list[Pending]:
        """The next batch; empty when nothing waits."""
        fitting = self.fitting(pending.draft for pending in self._pending)
        return [self._pending.popleft() for _ in range(fitting)]

    def fitting(self, drafts: Iterable[Draft]) -> int:
        """How many of these, from the first on, make one batch."""
        fitting, room = 0, self.batch_bytes
        for draft in islice(drafts, BATCH_LIMIT):
            room -= FRAME_BYTES + CHAR_BYTES * len(draft.text)
            if fitting and room < 0:
                break
            fitting += 1
        return fitting

    def refuse_before(self, now: float) -> None:
        """Refuses those that have waited for too long (event loop time)."""
        while self._pending and self._pending[0].deadline <= now:
            self._pending.popleft().answer(Unavailable())


def refuse(batch: Iterable[Pending]) -> None:
    """Tells the senders that their drafts are not known to be stored."""
    for pending in batch:
        pending.answer(Unavailable())


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
