"""The seam between the engine and whatever keeps the messages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from app.message import Change, Deletion, Draft, Message, Position

FIRST, LAST = 0, 2**63 - 1  # below and above every seq
STORE_TIMEOUT = 5.0  # seconds that one operation of a store may take
SEARCH_TIMEOUT = 30.0  # seconds that a search may take, which in a large store looks through all messages
NONCE_LIFETIME = 2 * 24 * 3600  # seconds that a nonce is remembered: the wire contract's 24 h and a reserve

By = Literal["id", "username", "session"]


class Query(NamedTuple):
    """Selects messages with a seq between two others, oldest or `newest` first; deleted ones are never found.

    `by` selects those with this id, session, or username (in any case), and is only used with `newest`.
    """

    after: int = FIRST
    before: int = LAST
    limit: int = 1
    newest: bool = False
    by: By | None = None
    value: str = ""

    def selects(self, message: Message) -> bool:
        """Whether a message is one that `by` and `value` ask for."""
        return not self.by or str(getattr(message, self.by)).lower() == self.value.lower()


class Opened(NamedTuple):
    """A store as it was found.

    `seq`: the newest message's, 0 in an empty room. `pruned`: all messages up to this seq were removed. `secret`: a
    random key that is kept with the store. `messages`: the newest, oldest first. `deletions`: those since the first of
    these messages, oldest first. `position`: the feed begins after it.
    """

    epoch: str
    secret: str
    seq: int
    pruned: int
    rules: str
    messages: Sequence[Message] = ()
    deletions: Sequence[Deletion] = ()
    position: Position = (0, 0)


class Reset(NamedTuple):
    """The store is not the one that it was, or can't tell what this process has missed: begin anew with it."""

    opened: Opened


class Outage(NamedTuple):
    """The feed can't be read since a time (event loop seconds), or can be again (None)."""

    since: float | None


Stored = list[Message] | Change | Reset | Outage


class Store(Protocol):
    """Where messages are kept. One engine uses it; every method raises StoreError."""

    async def open(self) -> Opened:
        """Opens the store, which is made when there is none."""

    async def append(self, drafts: Sequence[Draft]) -> list[Message]:
        """Stores all drafts or none, durably. Returns the message of each, or the one that has its session and nonce.

        An empty list probes whether the store can be written to. Safe to call again with the same drafts.
        """

    async def apply(self, change: Change) -> Change | None:
        """Makes a change, durably. Returns what of it was new; None for nothing, or if `old_rules` are not current."""

    async def find(self, query: Query) -> list[Message]:
        """The messages that a query selects."""

    def feed(self) -> AsyncIterator[Stored]:
        """Everything that was stored since `open`, by any process, in order. Called again, it continues."""

    async def tidy(self) -> bool:
        """Releases some of what was kept of pruned messages for their nonces. Returns whether there may be more."""

    async def close(self) -> None:
        """Frees everything. Safe to call again, and when `open` failed."""


class Archive(Protocol):
    """A store that is not opened, for the command line. Every method raises StoreError."""

    def export(self) -> AsyncIterator[Message]:
        """All messages, oldest first, also beside a running server."""

    async def reserve(self) -> None:
        """Checks that no server uses the store, and keeps servers away until `close` where that is possible."""

    async def wipe(self) -> None:
        """Deletes everything. Needs `reserve`."""

    async def back_up(self, copy: Path) -> None:
        """Writes everything into a new file, also beside a running server. The file appears when it is whole."""

    async def restore(self, copy: Path) -> Path | None:
        """Puts what `back_up` wrote in the place of what is stored. Returns where that is kept, None if it was nothing.

        A kill at any time leaves the one or the other, and nothing of both. No server may use the store.
        """

    async def close(self) -> None:
        """Frees everything. Safe to call again."""
