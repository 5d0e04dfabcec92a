"""The records that travel between modules, workers and disk. They know nothing of the wire or of a store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Draft:
    """A message as accepted, not yet stored.

    `text` is the plain text, `content` the same, safe as HTML; `timestamp` is Unix seconds; `nonce` is the
    client's own mark, unique within `session`.
    """

    id: str
    session: str
    username: str
    content: str
    text: str
    timestamp: float
    nonce: str | None = None
    role: str = "visitor"


@dataclass(frozen=True, slots=True)
class Message(Draft):
    """A stored message. `seq` counts 1, 2, 3, … in the order in which messages were stored."""

    seq: int = 0

    @property
    def gone(self) -> bool:
        """Whether it was hidden or pruned: all that is left then is its id and its nonce."""
        return not self.text


class Deletion(NamedTuple):
    """A message that was hidden when the room was at `at`: who has seen up to there may have seen it."""

    seq: int
    id: str
    at: int


class Change(NamedTuple):
    """What happens to a room beside messages.

    `pruned`: everything up to this seq is gone. `rules`: the owner's, as they are kept, None when they are as before.
    """

    hidden: tuple[Deletion, ...] = ()
    pruned: int = 0
    rules: str | None = None


def stored(draft: Draft, seq: int) -> Message:
    """The message that a draft becomes."""
    return Message(
        draft.id, draft.session, draft.username, draft.content, draft.text,
        draft.timestamp, draft.nonce, draft.role, seq,
    )  # fmt: skip
