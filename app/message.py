"""The records that travel between packages, workers and disk. They know nothing of the wire or of a store."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

Position = tuple[int, int]
"""A place in the order of everything stored: (seq, 0) of a message, (seq before it, its own number) of a change."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A message as accepted, not yet stored.

    `text` is the plain text, `content` the same, safe as HTML; `timestamp` is Unix seconds; `nonce` is chosen by the
    client and unique within `session`.
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
    """A stored message. `seq` counts 1, 2, 3, … in the order in which messages were stored.

    Of a `deleted` (or pruned) message only id, session, nonce and seq are known.
    """

    seq: int = 0
    deleted: bool = False


class Deletion(NamedTuple):
    """A message that was deleted when the newest seq was `at`: clients that have seen up to there may show it."""

    seq: int
    id: str
    at: int = 0


class Change(NamedTuple):
    """A change of the room other than a new message.

    `pruned`: all messages up to this seq are removed. `rules`: the owner's rules as text, None if they stay; they
    replace `old_rules` (compare and set). `position` is given by the store.
    """

    deletions: tuple[Deletion, ...] = ()
    pruned: int = 0
    rules: str | None = None
    old_rules: str = ""
    position: Position = (0, 0)


def stored(draft: Draft, seq: int) -> Message:
    """The message that a draft becomes."""
    return Message(
        draft.id, draft.session, draft.username, draft.content, draft.text,
        draft.timestamp, draft.nonce, draft.role, seq,
    )  # fmt: skip


def deleted(draft: Draft, message_id: str, seq: int) -> Message:
    """What is left of a deleted message that was stored for the same session and nonce as `draft`."""
    return Message(message_id, draft.session, "", "", "", 0.0, draft.nonce, draft.role, seq, deleted=True)


def number(drafts: Sequence[Draft], seq: int, known: MutableMapping[tuple[str, str], Message]) -> list[Message]:
    """The messages that drafts become, numbered on from `seq`, or the message that is `known` for session and nonce."""
    messages = []
    for draft in drafts:
        key = (draft.session, draft.nonce or "")
        message = known.get(key)
        if not message:
            seq += 1
            message = stored(draft, seq)
            if draft.nonce:
                known[key] = message
        messages.append(message)
    return messages
