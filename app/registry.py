"""Who is here: connections, the sessions that they belong to, capacity, names, and fan-out.

Synchronous throughout, so that nothing changes between a check and what follows from it, and no lock is needed.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from app.batch import Batch
from app.exceptions import ServerFull, UsernameTaken
from app.outbox import Outbox

BREATH = 0.004  # seconds of fan-out after which the event loop is given back


@dataclass(slots=True, eq=False)
class Session:
    """One user, connected any number of times (tabs). Its name is held until the registry is told to forget it.

    `present`: the others take it to be here, which goes on for a moment after its last connection ended.
    """

    username: str
    address: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    role: str = "visitor"
    connections: int = 0
    present: bool = False


@dataclass(slots=True, eq=False)
class Connection:
    """One WebSocket. `heard` is when its client last sent anything, on the registry's clock."""

    session: Session
    heard: float


class ConnectionRegistry:
    """All connections of this process, `max_connections` at most. `clock` is monotonic seconds."""

    def __init__(self, max_connections: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.users = 0  # usernames connected now
        self._max_connections = max_connections
        self._slots: set[Connection] = set()
        self._outboxes: dict[Connection, Outbox] = {}
        self._sessions: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self._slots)

    def check_capacity(self) -> None:
        """Raises ServerFull when no slot is free."""
        if len(self._slots) >= self._max_connections:
            raise ServerFull

    def admit(self, username: str, address: str) -> Connection:
        """Takes a slot and a name, to be given back by `remove`. Raises ServerFull or UsernameTaken.

        Without proof of identity, a name that is held is shared with its holder's address alone.
        """
        self.check_capacity()
        session = self._sessions.setdefault(username.lower(), Session(username, address))
        if session.address != address:
            raise UsernameTaken
        session.connections += 1
        self.users += session.connections == 1
        connection = Connection(session, self.clock())
        self._slots.add(connection)
        return connection

    def open(self, connection: Connection, outbox: Outbox) -> None:
        """From now on the connection receives broadcasts."""
        self._outboxes[connection] = outbox

    def remove(self, connection: Connection) -> bool:
        """Gives the slot back. True: it had been open. Safe to call again."""
        was_open = self._outboxes.pop(connection, None) is not None
        if connection in self._slots:
            self._slots.remove(connection)
            connection.session.connections -= 1
            self.users -= connection.session.connections == 0
        return was_open

    def forget(self, session: Session) -> None:
        """Lets go of a session's name, unless it is connected."""
        if not session.connections:
            self._sessions.pop(session.username.lower(), None)

    def outboxes(self) -> list[tuple[Connection, Outbox]]:
        """Every connection that is open now."""
        return list(self._outboxes.items())

    def broadcast(self, batch: Batch, skip: Connection | None = None) -> Iterator[None]:
        """Writes to every connection that is open now, and yields whenever the event loop should have its turn.

        Who comes meanwhile is not written to: it got the same frames, or their effect, when it came.
        """
        outboxes = list(self._outboxes.values())
        if skip in self._outboxes:
            outboxes.remove(self._outboxes[skip])
        turn = self.clock() + BREATH
        for first in range(0, len(outboxes), 64):
            for outbox in outboxes[first : first + 64]:
                outbox.write(batch)
            if self.clock() > turn:
                yield
                turn = self.clock() + BREATH
