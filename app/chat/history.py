"""The newest messages, encoded, so that what a newcomer sees never touches the disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from app.message import Deletion, Message
from app.wire import frames

DELETIONS_LIMIT = 1000  # deletions that are kept for clients that come back
DELETION_BYTES = 40  # of one in a history frame


class Kept(NamedTuple):
    """A message in memory."""

    seq: int
    id: str
    data: bytes


class History:
    """The last `keep` messages. A plain history has `limit` of them, a recovery `recovery_limit`.

    `frame_limit`: bytes that one history frame may have. `seq`: the newest message's, also when none is kept.
    """

    def __init__(
        self, keep: int, limit: int, recovery_limit: int, frame_limit: int, deletions_limit: int = DELETIONS_LIMIT
    ) -> None:
        self.seq = 0
        self._limit = limit
        self._recovery_limit = recovery_limit
        self._frame_limit = frame_limit
        self._deletions_limit = deletions_limit
        self._keep = keep
        self._kept: deque[Kept] = deque()
        self._deletions: deque[Deletion] = deque()
        self._older = False  # whether the store may have older ones
        self._recoverable_from = 0  # a client that has everything up to this seq can be told all that happened since
        self._plain: bytes | None = None

    def add(self, messages: Iterable[tuple[Message, bytes]]) -> None:
        """Adds messages with their encoded data, oldest first."""
        for message, data in messages:
            self._kept.append(Kept(message.seq, message.id, data))
            self.seq = message.seq
        while len(self._kept) > self._keep:
            self._recoverable_from = max(self._recoverable_from, self._kept.popleft().seq)
            self._older = True
        self._plain = None

    def gap(self) -> tuple[int, int] | None:
        """The seq before which older messages are missing, and how many there is room for; None if there are none."""
        room = self._keep - len(self._kept)
        return (self._kept[0].seq if self._kept else self.seq + 1, room) if room and self._older else None

    def fill(self, older: Sequence[tuple[Message, bytes]]) -> None:
        """Puts messages into the gap, newest first. Recovery goes back no further than before."""
        self._older = len(older) == self._keep - len(self._kept)
        self._kept.extendleft(Kept(message.seq, message.id, data) for message, data in older)
        self._plain = None

    def delete(self, deletions: Sequence[Deletion]) -> None:
        """Removes messages, and remembers which for clients that come back."""
        ids = {deletion.id for deletion in deletions}
        # A message may be deleted before it could be added.
        self.seq = max([self.seq, *(deletion.at for deletion in deletions)])
        self._kept = deque(kept for kept in self._kept if kept.id not in ids)
        self._deletions += deletions
        while len(self._deletions) > self._deletions_limit:
            self._recoverable_from = max(self._recoverable_from, self._deletions.popleft().at + 1)
        while self._deletions and self._deletions[0].at < self._recoverable_from:
            self._deletions.popleft()
        self._plain = None

    def prune(self, seq: int) -> None:
        """Removes all messages up to `seq`."""
        while self._kept and self._kept[0].seq <= seq:
            self._kept.popleft()
        self._recoverable_from = max(self._recoverable_from, seq)
        self._plain = None

    def frame(self, since: str | None) -> bytes:
        """The history frame for a client that has everything up to `since`, which is as the client wrote it.

        It holds exactly what the client missed. If `since` is no such number, or something that was missed is not in
        memory any more, it is the plain history, and never a part of what was missed.
        """
        number = _whole_number(since)
        recovery = self._recovery(number) if number is not None else None
        if recovery is not None:
            return recovery
        self._plain = self._plain or frames.history_frame(self.newest())
        return self._plain

    def newest(self, limit: int | None = None) -> list[bytes]:
        """The data of the newest messages, as many as a plain history has, or `limit` if that is less; oldest first."""
        return self._newest(min(limit or self._limit, self._limit), self._frame_limit)

    def _recovery(self, since: int) -> bytes | None:
        if not self._recoverable_from <= since <= self.seq:
            return None
        hidden = [deletion.id for deletion in self._deletions if deletion.seq <= since <= deletion.at]
        missed = [kept.data for kept in self._kept if kept.seq > since]
        room = self._frame_limit - DELETION_BYTES * len(hidden)
        fits = room >= frames.HISTORY_OVERHEAD and self._newest(len(missed), room) == missed
        if len(missed) > self._recovery_limit or not fits:
            return None
        return frames.history_frame(missed, hidden)

    def _newest(self, limit: int, room: int) -> list[bytes]:
        """The newest messages, `limit` at most and as many as fit into so many bytes, oldest first."""
        newest: list[bytes] = []
        room -= frames.HISTORY_OVERHEAD
        for kept in reversed(self._kept):
            room -= len(kept.data) + 1
            if len(newest) == limit or room < 0:
                break
            newest.append(kept.data)
        return newest[::-1]


def _whole_number(raw: str | None) -> int | None:
    """A number from 0 to 2^53, which every client can count to, or None."""
    if raw is None or not raw.isascii() or not raw.isdigit() or len(raw) > 16 or int(raw) > 2**53:
        return None
    return int(raw)
