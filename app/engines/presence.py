"""Presence: the sessions that are connected, the names that they hold, and the joins and leaves that follow.

Read `Presence` first. `LocalPresence` serves one process alone; `redis/presence.py` has the one for many workers.
"""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field
from typing import Literal, Protocol

from app.exceptions import UsernameTaken

Event = Literal["user_joined", "user_left"]


@dataclass(frozen=True, slots=True)
class PresenceTiming:
    """How long everything takes, in seconds. The last four concern several workers alone."""

    leave_delay: float = 5.0  # within which a session may come back without having left
    hold: float = 60.0  # for which a name is held after its user's last connection, when the user has a token to show
    lease: float = 9.0  # after which a worker that has sent nothing is dead
    refresh: float = 3.0  # between two extensions of the lease
    retry: float = 0.5  # between two tries to reach Redis
    claim_timeout: float = 2.0  # after which a newcomer is let in although Redis has not answered


DEFAULT_TIMING = PresenceTiming()


@dataclass(slots=True, eq=False)
class Session:
    """One user, connected any number of times (tabs).

    `supports_tokens`: its client sends session tokens back. `limit_key`: of its newest address. `refused`: its name
    turned out to be another's after it was let in, which happens with several workers alone.
    """

    username: str
    address: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    supports_tokens: bool = False
    role: str = "visitor"
    limit_key: str | None = None
    connections: int = 0
    refused: bool = False


class PresenceListener(Protocol):
    """What a presence calls when something changes. No method may wait or raise."""

    def announce(self, event: Event, username: str) -> None:
        """A user joined or left."""

    def users_changed(self) -> None:
        """`users` or `owner_online` changed."""

    def evict(self, session: Session) -> None:
        """The name of a session turned out to be another's: its connections must end."""


class Presence(Protocol):
    """The users of the room, over all its workers."""

    users: int  # usernames connected now
    owner_online: bool

    async def start(self, listener: PresenceListener) -> None:
        """Begins to call the listener. Raises StoreError."""

    async def stop(self) -> None:
        """Ends all tasks and timers, so nothing is announced any more. Safe to call when `start` failed or was not."""

    def reset(self) -> None:
        """Called when the store is another one: the sessions that are connected have to be made known to it."""

    async def find(self, username: str) -> tuple[str, str | None] | None:
        """Returns session id and limit key of the user who holds a name, connected or not. Raises StoreError."""

    async def claim(self, newcomer: Session) -> Session:
        """Adds a connection. Returns the session that it belongs to: the newcomer's own, or that of the same user.

        `release` must be called once for each connection. Raises UsernameTaken.
        """

    def release(self, session: Session) -> None:
        """Removes a connection. After the last one the user leaves the count at once, and has left after the delay."""


def is_same(holder: Session, newcomer: Session) -> bool:
    """Tells whether a newcomer is the user whose session holds the name. presence.lua has the same rule.

    So it is when the newcomer has shown the holder's token. Without tokens the address decides: a client that knows
    none keeps its name at its address, and a newcomer that knows them takes over only a session that is connected.
    """
    if holder.id == newcomer.id:
        return True
    can_differ = holder.supports_tokens or holder.address != newcomer.address
    return not can_differ and (holder.connections > 0 or not newcomer.supports_tokens)


@dataclass(slots=True)
class _Absence:
    """A session without connections: it leaves when the timer fires, and ends when its name is not held any more."""

    timer: asyncio.TimerHandle
    held_until: float  # event loop time
    announced: bool = False


class LocalPresence:
    """The presence of a process that is alone. It never waits, so nothing changes between a check and what follows."""

    def __init__(self, owner: str, timing: PresenceTiming = DEFAULT_TIMING) -> None:
        self.users = 0
        self.owner_online = False
        self._owner = owner.lower()
        self._timing = timing
        self._sessions: dict[str, Session] = {}  # by username in small letters
        self._absences: dict[Session, _Absence] = {}

    async def start(self, listener: PresenceListener) -> None:
        """See `Presence.start`. Never fails."""
        self._listener = listener

    async def stop(self) -> None:
        """See `Presence.stop`."""
        for absence in self._absences.values():
            absence.timer.cancel()

    def reset(self) -> None:
        """Does nothing: the sessions of this process do not depend on the store."""

    async def find(self, username: str) -> tuple[str, str | None] | None:
        """See `Presence.find`. Never fails."""
        session = self._sessions.get(username.lower())
        return (session.id, session.limit_key) if session else None

    async def claim(self, newcomer: Session) -> Session:
        """See `Presence.claim`."""
        name = newcomer.username.lower()
        holder = self._sessions.get(name)
        if holder and not is_same(holder, newcomer):
            if holder.connections or asyncio.get_running_loop().time() < self._absences[holder].held_until:
                raise UsernameTaken
            self._leave(holder)  # which frees the name
        session = self._sessions.setdefault(name, newcomer)
        session.limit_key = newcomer.limit_key
        session.connections += 1
        if session.connections == 1:
            absence = self._absences.pop(session, None)
            if absence:
                absence.timer.cancel()
            self._count(session, 1)
            if not absence or absence.announced:
                self._listener.announce("user_joined", session.username)
        return session

    def release(self, session: Session) -> None:
        """See `Presence.release`."""
        session.connections -= 1
        if session.connections:
            return
        self._count(session, -1)
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._timing.leave_delay, self._leave, session)
        self._absences[session] = _Absence(timer, loop.time() + self._timing.hold * session.supports_tokens)

    def _count(self, session: Session, change: int) -> None:
        self.users += change
        if session.username.lower() == self._owner:
            self.owner_online = change > 0
        self._listener.users_changed()

    def _leave(self, session: Session) -> None:
        """Announces that a session did not come back, and ends it, now or when its name is not held any more."""
        absence, loop = self._absences[session], asyncio.get_running_loop()
        absence.timer.cancel()
        if not absence.announced:
            absence.announced = True
            self._listener.announce("user_left", session.username)
        if loop.time() < absence.held_until:
            absence.timer = loop.call_at(absence.held_until, self._leave, session)
        else:
            del self._absences[session], self._sessions[session.username.lower()]
