"""Token buckets: how often something may be done, by session or by address. Knows nothing of who asks or what for."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

REMEMBERED = 50_000  # keys; past that the one that asked least recently is forgotten
FORGOTTEN_AT_ONCE = 2  # keys, at each take: more than one, so that a table shrinks while it is used


class Buckets:
    """A bucket a key: `limit` at once, and as many again in `window` seconds. 0: no limit.

    A bucket belongs to its key, not to a connection, so that coming back does not refill it.
    """

    def __init__(
        self, limit: int, window: float, clock: Callable[[], float] = time.monotonic, remembered: int = REMEMBERED
    ) -> None:
        self._limit = limit
        self._window = window
        self._clock = clock
        self._remembered = remembered
        self._spent: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key: tokens taken, as of when; by time

    def wait(self, key: str) -> float:
        """Seconds until a token is there, rounded up to milliseconds; 0.0 when one is."""
        if not self._limit:
            return 0.0
        missing = self._taken(key) + 1 - self._limit
        return max(0.0, math.ceil(1000 * missing * self._window / self._limit - 1e-6) / 1000)

    def take(self, key: str) -> None:
        """Takes a token, which `wait` has found to be there."""
        if self._limit:
            self._set(key, self._taken(key) + 1)
            self.forget(FORGOTTEN_AT_ONCE)
            if len(self._spent) > self._remembered:
                self._spent.popitem(last=False)

    def give_back(self, key: str) -> None:
        """Gives a token back that was taken."""
        if key in self._spent:
            self._set(key, max(0.0, self._taken(key) - 1))

    def forget(self, most: int) -> None:
        """Drops up to `most` buckets that are full again, as each one is `window` seconds after its last take."""
        horizon = self._clock() - self._window
        for _ in range(most):
            if not self._spent or next(iter(self._spent.values()))[1] > horizon:
                return
            self._spent.popitem(last=False)

    def _set(self, key: str, taken: float) -> None:
        self._spent[key] = (taken, self._clock())
        self._spent.move_to_end(key)

    def _taken(self, key: str) -> float:
        taken, since = self._spent.get(key, (0.0, 0.0))
        return max(0.0, taken - (self._clock() - since) * self._limit / self._window)


class Window:
    """Tells when `limit` things happened within `seconds`, exactly."""

    __slots__ = ("_limit", "_seconds", "_times")

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit = limit
        self._seconds = seconds
        self._times: list[float] = []

    def full(self, now: float) -> bool:
        """Notes that it happened now; True when that is once too often."""
        times, horizon = self._times, now - self._seconds
        if times and times[-1] <= horizon:
            times.clear()
        times.append(now)
        if len(times) > self._limit:
            del times[0]
        return len(times) == self._limit and times[0] > horizon
