"""The right to notify the owner, which one worker has at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol


class NotificationClaim(Protocol):
    """Asks for the right to notify the owner of all messages up to a seq."""

    async def __call__(self, seq: int) -> tuple[float, int]:
        """Returns the seconds to wait because a quiet time runs, and the seq up to which the owner had been notified.

        With 0.0 the right is given; if `seq` is a later one, it counts as notified now and a quiet time begins. The
        answer is atomic over all workers. Raises StoreError.
        """


class LocalClaim:
    """The claim of a process that is alone. `quiet` is the quiet time in seconds."""

    def __init__(self, quiet: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet = quiet
        self._clock = clock
        self._quiet_until = clock()
        self._notified = 0

    async def __call__(self, seq: int) -> tuple[float, int]:
        """See `NotificationClaim`. Never fails."""
        now, notified = self._clock(), self._notified
        wait = max(0.0, self._quiet_until - now)
        if not wait and seq > notified:
            self._notified, self._quiet_until = seq, now + self._quiet
        return wait, notified
