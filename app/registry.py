"""Who is here: connections, the sessions that they belong to, capacity, names, and fan-out.

Synchronous throughout, so that nothing changes between a check and what follows from it, and no lock is needed.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from app.batch import Batch
from app.exceptions import ServerFull, TooManyConnections, UsernameTaken
from app.limits import Window
from app.outbox import Outbox

HOLD = 60.0  # seconds that a name is held after its user left, when the user can prove to be the same
FLOOD_FRAMES = 200  # frames of any kind, and
FLOOD_BAD_FRAMES = 20  # frames that are none, that a client may not send within
FLOOD_SECONDS = 10.0
BREATH = 0.004  # seconds of fan-out after which the event loop is given back


@dataclass(slots=True, eq=False)
class Session:
    """One user, connected any number of times (tabs). Its name is held until the registry is told to forget it.

    `provable`: its client knows tokens. `present`: the others take it to be here, which goes on for a moment after its
    last connection ended. `held_until`: when its name is free again after that, on the registry's clock.
    """

    username: str
    address: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    provable: bool = False
    role: str = "visitor"
    connections: int = 0
    present: bool = False
    held_until: float = 0.0


@dataclass(slots=True, eq=False)
class Connection:
    """One WebSocket. `heard` is when its client last sent anything, on the registry's clock."""

    session: Session
    heard: float
    limit_key: str | None
    frames: Window = field(default_factory=lambda: Window(FLOOD_FRAMES, FLOOD_SECONDS))
    bad_frames: Window = field(default_factory=lambda: Window(FLOOD_BAD_FRAMES, FLOOD_SECONDS))


class ConnectionRegistry:
    """All connections of this process: `max_connections` at most, `max_per_address` from one address (0: no limit).

    `clock` is monotonic seconds.
    """

    def __init__(
        self, max_connections: int, max_per_address: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.clock = clock
        self.users = 0  # usernames connected now
        self._max_connections = max_connections
        self._max_per_address = max_per_address
        self._slots: set[Connection] = set()
        self._addresses: Counter[str] = Counter()
        self._outboxes: dict[Connection, Outbox] = {}
        self._sessions: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self._slots)

    def holder(self, username: str) -> Session | None:
        """The session that has or last had a name."""
        return self._sessions.get(username.lower())

    def check_capacity(self, limit_key: str | None) -> None:
        """Raises ServerFull or TooManyConnections when no slot is free. Nothing may be awaited before `admit`."""
        if len(self._slots) >= self._max_connections:
            raise ServerFull
        if limit_key and 0 < self._max_per_address <= self._addresses[limit_key]:
            raise TooManyConnections

    def admit(self, newcomer: Session, limit_key: str | None) -> Connection:
        """Takes a slot and a name, to be given back by `remove`. Raises UsernameTaken.

        The connection belongs to the session that holds the name already, if `newcomer` is the same, or can't be told
        apart from it: same address, and the holder's client knows no tokens.
        """
        holder = self.holder(newcomer.username)
        if holder and (holder.id == newcomer.id or (not holder.provable and holder.address == newcomer.address)):
            newcomer = holder
        elif holder and (holder.connections or self.clock() < holder.held_until):
            raise UsernameTaken
        self._sessions[newcomer.username.lower()] = newcomer
        newcomer.connections += 1
        self.users += newcomer.connections == 1
        connection = Connection(newcomer, self.clock(), limit_key)
        self._slots.add(connection)
        if limit_key:
            self._addresses[limit_key] += 1
        return connection

    def open(self, connection: Connection, outbox: Outbox) -> None:
        """From now on the connection receives broadcasts."""
        self._outboxes[connection] = outbox

    def remove(self, connection: Connection) -> bool:
        """Gives the slot back. True: it had been open. Safe to call again."""
        was_open = self._outboxes.pop(connection, None) is not None
        if connection in self._slots:
            self._slots.remove(connection)
            self._release(connection.session, connection.limit_key)
        return was_open

    def _release(self, session: Session, limit_key: str | None) -> None:
        session.connections -= 1
        if not session.connections:
            self.users -= 1
            session.held_until = self.clock() + (HOLD if session.provable else 0.0)
        if limit_key:
            self._addresses[limit_key] -= 1
            if not self._addresses[limit_key]:
                del self._addresses[limit_key]

    def forget(self, session: Session) -> None:
        """Lets go of a session's name, unless it is connected or the name is another's by now."""
        if not session.connections and self.holder(session.username) is session:
            del self._sessions[session.username.lower()]

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
