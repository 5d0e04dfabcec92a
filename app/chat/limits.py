"""Rate limits: token buckets by key (a session or an address), and a sliding window."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

MAX_KEYS = 50_000  # keys remembered; past that the least recently used one is forgotten
FORGET_PER_TAKE = 2  # buckets; more than one, so that the table shrinks while it is used


class Buckets:
    """A token bucket for each key: `limit` tokens at once, and as many again in `window` seconds. 0: no limit.

    A bucket belongs to its key, not to a connection, so that reconnecting does not refill it.
    """

    def __init__(
        self, limit: int, window: float, clock: Callable[[], float] = time.monotonic, remembered: int = MAX_KEYS
    ) -> None:
        self._limit = limit
        self._window = window
        self._clock = clock
        self._remembered = remembered
        self._spent: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key: tokens taken, as of when; by time

    def wait(self, key: str) -> float:
        """Returns the seconds until a token is available, rounded up to milliseconds; 0.0 when one is."""
        if not self._limit:
            return 0.0
        missing = self._taken(key) + 1 - self._limit
        return max(0.0, math.ceil(1000 * missing * self._window / self._limit - 1e-6) / 1000)

    def take(self, key: str) -> None:
        """Takes a token. Call `wait` first."""
        if self._limit:
            self._set(key, self._taken(key) + 1)
            self.forget(FORGET_PER_TAKE)
            if len(self._spent) > self._remembered:
                self._spent.popitem(last=False)

    def give_back(self, key: str) -> None:
        """Refunds a token."""
        if key in self._spent:
            self._set(key, max(0.0, self._taken(key) - 1))

    def forget(self, most: int) -> None:
        """Drops up to `most` buckets that are full again, as each is `window` seconds after its last use."""
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
    """A sliding window that finds out exactly when `limit` events happen within `seconds`."""

    __slots__ = ("_limit", "_seconds", "_times")

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit, self._seconds = limit, seconds
        self._times: list[float] = []

    def record(self, now: float) -> bool:
        """Records an event at `now` and returns whether it is the `limit`th one within `seconds`."""
        times, horizon = self._times, now - self._seconds
        if times and times[-1] <= horizon:
            times.clear()
        times.append(now)
        if len(times) > self._limit:
            del times[0]
        return len(times) == self._limit and times[0] > horizon
