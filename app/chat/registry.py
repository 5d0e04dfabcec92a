"""The connections of this process: capacity, and fan-out.

Synchronous throughout, so that nothing changes between a check and what follows from it, and no lock is needed.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from app import metrics
from app.chat.limits import Window
from app.engines.presence import Session
from app.exceptions import ServerFull, TooManyConnections
from app.wire.frames import PreparedFrames
from app.wire.limits import FLOOD_BAD_FRAMES, FLOOD_FRAMES, FLOOD_SECONDS
from app.wire.sender import Sender

YIELD_AFTER = 0.004  # seconds of fan-out after which the event loop is given back


@dataclass(slots=True, eq=False)
class Connection:
    """One WebSocket. `last_seen` is when its client last sent anything, on the registry's clock.

    `address_hash` stands for its address in bans (see Credentials.address_hash); None until it is first needed.
    """

    session: Session
    last_seen: float
    limit_key: str | None
    address_hash: str | None = None
    frames: Window = field(default_factory=lambda: Window(FLOOD_FRAMES, FLOOD_SECONDS))
    bad_frames: Window = field(default_factory=lambda: Window(FLOOD_BAD_FRAMES, FLOOD_SECONDS))


class ConnectionRegistry:
    """All connections of this process: `max_connections` at most, `max_per_address` from one address (0: no limit).

    `clock` is monotonic seconds.
    """

    def __init__(
        self,
        max_connections: int,
        max_per_address: int = 0,
        clock: Callable[[], float] = time.monotonic,
        yield_after: float = YIELD_AFTER,
    ) -> None:
        self.clock = clock
        self._max_connections = max_connections
        self._max_per_address = max_per_address
        self._yield_after = yield_after
        self._slots: set[Connection] = set()
        self._addresses: Counter[str] = Counter()
        self._senders: dict[Connection, Sender] = {}

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, connection: Connection) -> bool:
        return connection in self._slots

    def check_capacity(self, limit_key: str | None) -> None:
        """Raises ServerFull or TooManyConnections when no slot is free. Nothing may be awaited before `add`."""
        if len(self._slots) >= self._max_connections:
            raise ServerFull
        if limit_key and 0 < self._max_per_address <= self._addresses[limit_key]:
            raise TooManyConnections

    def add(self, session: Session, limit_key: str | None) -> Connection:
        """Takes a slot that `check_capacity` found to be free; `remove` frees it."""
        connection = Connection(session, self.clock(), limit_key)
        self._slots.add(connection)
        if limit_key:
            self._addresses[limit_key] += 1
        metrics.connections.set(len(self._slots))
        return connection

    def open(self, connection: Connection, sender: Sender) -> None:
        """Lets the connection receive broadcasts from now on."""
        self._senders[connection] = sender

    def remove(self, connection: Connection) -> bool:
        """Frees the slot. Returns whether the connection was open. Safe to call again."""
        if connection in self._slots:
            self._slots.remove(connection)
            metrics.connections.set(len(self._slots))
            if key := connection.limit_key:
                self._addresses[key] -= 1
                if not self._addresses[key]:
                    del self._addresses[key]
        return self._senders.pop(connection, None) is not None

    def forget_address_hashes(self) -> None:
        """Called when the secret that the hashes are made with has changed."""
        for connection in self._slots:
            connection.address_hash = None

    def senders(self) -> list[tuple[Connection, Sender]]:
        """Every connection that is open now."""
        return list(self._senders.items())

    @property
    def audience(self) -> int:
        """How many connections are open now."""
        return len(self._senders)

    def broadcast(self, prepared: PreparedFrames) -> Iterator[None]:
        """Writes to every connection that is open now, and yields whenever the event loop should have its turn.

        A connection that opens meanwhile is left out: it got the same frames, or their effect, when it joined.
        """
        senders = list(self._senders.values())
        began, spent = self.clock(), 0.0  # without the time that others have the event loop
        for first in range(0, len(senders), 64):
            for sender in senders[first : first + 64]:
                sender.write(prepared)
            if (passed := self.clock() - began) > self._yield_after:
                spent += passed
                yield
                began = self.clock()
        metrics.fan_out_seconds.observe(spent + self.clock() - began)
