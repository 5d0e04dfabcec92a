"""Who is here, by name: sessions, the names that they hold, and who came and left.

`LocalPresence` knows the sessions of this process. It never waits, so that nothing changes between a check and what
follows.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from app.exceptions import UsernameTaken

Event = Literal["user_joined", "user_left"]


@dataclass(frozen=True, slots=True)
class PresenceTiming:
    """How long everything takes, in seconds."""

    leave_delay: float = 5.0  # within which a session may come back without having left
    hold: float = 60.0  # for which a name is held after its user left, when the user can prove to be the same


DEFAULT_TIMING = PresenceTiming()


@dataclass(slots=True, eq=False)
class Session:
    """One user, connected any number of times (tabs).

    `supports_tokens`: its client knows tokens. `limit_key`: of its newest address. `present`: the others take
    it to be here, which goes on for a moment after its last connection ended. `held_until`: when its name is free again
    after that, on the presence's clock. `granted`: the other workers' word on the name, where there are any.
    """

    username: str
    address: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    supports_tokens: bool = False
    role: str = "visitor"
    limit_key: str | None = None
    connections: int = 0
    present: bool = False
    held_until: float = 0.0
    granted: asyncio.Future[bool] | None = None

    @property
    def refused(self) -> bool:
        """Whether the name turned out to be another's."""
        return self.granted is not None and self.granted.done() and not self.granted.result()


class Listener(Protocol):
    """Who hears what happens to the presence."""

    def announce(self, event: Event, username: str) -> None:
        """A user came or left."""

    def users_changed(self) -> None:
        """The number of users may be another, or whether the owner is among them."""

    def evict(self, session: Session) -> None:
        """The name turned out to be somebody else's."""


class LocalPresence:
    """The sessions of this process. `owner`: the owner's username. `clock` is monotonic seconds."""

    def __init__(
        self,
        owner: str = "owner",
        clock: Callable[[], float] = time.monotonic,
        timing: PresenceTiming = DEFAULT_TIMING,
    ) -> None:
        self._timing = timing
        self.users = 0  # usernames connected now
        self.owner_online = False
        self._owner = owner.lower()
        self._clock = clock
        self._sessions: dict[str, Session] = {}
        self._leaving: dict[Session, asyncio.TimerHandle] = {}

    async def start(self, listener: Listener) -> None:
        """Begins to tell what happens."""
        self._listener = listener

    async def stop(self) -> None:
        """Forgets who was about to leave. Safe to call when `start` was not."""
        for timer in self._leaving.values():
            timer.cancel()

    def reset(self) -> None:
        """The store is another one now, which is nothing to this process's own sessions."""

    async def find(self, username: str) -> tuple[str, str | None] | None:
        """Session id and limit key of who has a name, or had it a moment ago. Raises StoreError."""
        session = self._sessions.get(username.lower())
        return (session.id, session.limit_key) if session else None

    async def claim(self, newcomer: Session) -> Session:
        """The session that a newcomer belongs to, for one more connection, which `release` gives back.

        Raises UsernameTaken.
        """
        holder = self._sessions.get(newcomer.username.lower())
        if holder and not is_same(holder, newcomer):
            if holder.connections or self._clock() < holder.held_until:
                raise UsernameTaken
            self._leave_now(holder)  # which frees the name
        session = self._sessions.setdefault(newcomer.username.lower(), newcomer)
        session.limit_key = newcomer.limit_key
        self._arrive(session)
        return session

    def _arrive(self, session: Session) -> None:
        if timer := self._leaving.pop(session, None):
            timer.cancel()
        session.connections += 1
        if session.connections == 1:
            self._count(session, 1)
        if not session.present:
            session.present = True
            self._listener.announce("user_joined", session.username)

    def release(self, session: Session) -> None:
        """One connection of a session ended."""
        session.connections -= 1
        if session.connections:
            return
        self._count(session, -1)
        session.held_until = self._clock() + (self._timing.hold if session.supports_tokens else 0.0)
        self._leaving[session] = asyncio.get_running_loop().call_later(
            self._timing.leave_delay, self._leave_now, session
        )

    def _count(self, session: Session, change: int) -> None:
        self.users += change
        if session.username.lower() == self._owner:
            self.owner_online = change > 0
        self._listener.users_changed()

    def _leave_now(self, session: Session) -> None:
        """A session did not come back: first the others learn it, then, unless its name is still held, it ends."""
        if timer := self._leaving.pop(session, None):
            timer.cancel()
        if session.present:
            session.present = False
            self._listener.announce("user_left", session.username)
        held = session.held_until - self._clock()
        if held > 0:
            self._leaving[session] = asyncio.get_running_loop().call_later(held, self._leave_now, session)
        else:
            del self._sessions[session.username.lower()]


def is_same(holder: Session, newcomer: Session) -> bool:
    """Whether a newcomer belongs to the session that holds the name already.

    It proves to, or it can't be told apart: same address, and the holder's client knows no tokens. A newcomer that does
    know them takes over only a session that lives.
    """
    told_apart = (
        holder.supports_tokens
        or holder.address != newcomer.address
        or not (holder.connections or not newcomer.supports_tokens)
    )
    return holder.id == newcomer.id or not told_apart


Presence = LocalPresence
Claim = Callable[[int], Awaitable[tuple[float, int]]]


class LocalClaim:
    """The claim of a process that is alone. `quiet`: seconds."""

    def __init__(self, quiet: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet = quiet
        self._clock = clock
        self._quiet_until = clock()
        self._told = 0

    async def __call__(self, seq: int) -> tuple[float, int]:
        now, told = self._clock(), self._told
        wait = max(0.0, self._quiet_until - now)
        if not wait and seq > told:
            self._told, self._quiet_until = seq, now + self._quiet
        return wait, told
