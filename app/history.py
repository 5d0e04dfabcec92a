"""The newest messages, encoded, so that what a newcomer sees never touches the disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from app import frames


class History:
    """The last `keep` messages. A plain history has `limit` of them, a recovery `recovery_limit`.

    `frame_limit`: bytes that one history frame may have. `seq`: the newest message's, also when none is kept.
    """

    def __init__(self, keep: int, limit: int, recovery_limit: int, frame_limit: int) -> None:
        self.seq = 0
        self._limit = limit
        self._recovery_limit = recovery_limit
        self._frame_limit = frame_limit
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=keep)
        self._plain: bytes | None = None

    def add(self, messages: Iterable[tuple[int, bytes]]) -> None:
        """Adds messages as (seq, encoded data), oldest first."""
        for seq, data in messages:
            self._kept.append((seq, data))
            self.seq = seq
        self._plain = None

    def frame(self, since: str | None) -> bytes:
        """The history frame for a client that has everything up to `since`, which is as the client wrote it.

        Exactly what it missed, or, when `since` is no such number or something it missed is not at hand, the plain
        history: never a part of what it missed.
        """
        number = _whole_number(since)
        missed = self._missed(number) if number is not None else None
        if missed is not None:
            return frames.history_frame(missed, recovered=True)
        self._plain = self._plain or frames.history_frame(self._newest(self._limit), recovered=False)
        return self._plain

    def _missed(self, since: int) -> list[bytes] | None:
        oldest = self._kept[0][0] if self._kept else self.seq + 1
        everything_kept = len(self._kept) < (self._kept.maxlen or 0)
        if since > self.seq or (since < oldest - 1 and not everything_kept):
            return None
        missed = [data for seq, data in self._kept if seq > since]
        return missed if len(missed) <= self._recovery_limit and self._newest(len(missed)) == missed else None

    def _newest(self, limit: int) -> list[bytes]:
        """The newest messages, `limit` at most and as many as fit into a frame, oldest first."""
        newest: list[bytes] = []
        room = self._frame_limit - frames.HISTORY_BYTES
        for _, data in reversed(self._kept):
            room -= len(data) + 1
            if len(newest) == limit or room < 0:
                break
            newest.append(data)
        return newest[::-1]


def _whole_number(raw: str | None) -> int | None:
    """A number from 0 to 2^53, which every client can count to, or None."""
    if raw is None or not raw.isascii() or not raw.isdigit() or len(raw) > 16 or int(raw) > 2**53:
        return None
    return int(raw)
