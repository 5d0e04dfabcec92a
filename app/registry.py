"""Who is here: connections, the sessions that they belong to, capacity, names, and fan-out.

Synchronous throughout, so that nothing changes between a check and what follows from it, and no lock is needed.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from app.exceptions import ServerFull, UsernameTaken
from app.frames import Batch
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

    def admit(self, username: str, address: str) -> Connection:
        """Takes a slot and a name, to be given back by `remove`. Raises ServerFull or UsernameTaken.

        Without proof of identity, a name that is held is shared with its holder's address alone.
        """
        if len(self._slots) >= self._max_connections:
            raise ServerFull
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

    def remove(self, connection: Connection) -> None:
        """Gives the slot back. Safe to call again."""
        self._outboxes.pop(connection, None)
        if connection in self._slots:
            self._slots.remove(connection)
            connection.session.connections -= 1
            self.users -= connection.session.connections == 0

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
        turn = self.clock() + BREATH
        for number, (connection, outbox) in enumerate(self.outboxes()):
            if connection is not skip:
                outbox.write(batch)
            if number % 64 == 63 and self.clock() > turn:
                yield
                turn = self.clock() + BREATH
