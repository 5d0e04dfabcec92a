"""Who is here, over all workers: the presence of a room in Redis.

Redis decides about names; what is here knows this worker's own sessions and the count. What it has to say to Redis
waits in one queue, so that it is said in order, all at once, and again after an outage.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import uuid
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from app import tasks
from app.config import Settings
from app.engines import Engine
from app.engines.presence import HOLD, LEAVE_DELAY, Listener, LocalPresence, Session, is_same
from app.exceptions import StoreError, UsernameTaken

if TYPE_CHECKING:  # Redis' driver may be missing
    from app.engines.redis.client import Entry
    from app.engines.redis.store import RedisEngine

LEASE = 9.0  # seconds after which a worker that is not heard of is dead
BEAT = 3.0  # seconds between two signs of life
RETRY = 0.5  # seconds between two tries to reach Redis
CLAIM_PATIENCE = 2.0  # seconds after which a newcomer is let in on this worker's word alone
BATCH_LIMIT = 200  # operations at once

logger = logging.getLogger(__name__)


class Operation(NamedTuple):
    """What Redis is told: `begin`, `end`, or `claim` or `release` of a session."""

    verb: str
    session: Session | None = None

    def parts(self) -> list[Any]:
        """As presence.lua takes it."""
        if not (session := self.session):
            return [self.verb]
        proof = [session.id, session.address, session.supports_tokens, session.limit_key or ""]
        return [self.verb, session.username, *(proof if self.verb == "claim" else ())]


class RedisPresence(LocalPresence):
    """One worker's part of it. `announce_limit`: up to how many users the workers tell each other who came and left.

    Names are Redis's to give. While it does not answer, a worker gives them on its own word, and takes them back
    (`evict`) when they turn out to be another's.
    """

    def __init__(self, engine: RedisEngine, announce_limit: int, owner: str) -> None:
        super().__init__(owner)
        self._engine = engine
        self._announce_limit = announce_limit
        self._operations = deque([Operation("begin")])
        self._wake = asyncio.Event()
        self._version = 0
        self._worker = str(uuid.uuid4())
        self._turns = itertools.count(1)
        self._beating: asyncio.Task[None] | None = None

    async def start(self, listener: Listener) -> None:
        """Takes a lease. Raises StoreError."""
        await super().start(listener)
        await self._exchange()
        self._engine.on_events = self.hear
        self._beating = tasks.spawn(self._beat(), "presence")

    async def stop(self) -> None:
        """Gives the lease back, so that the users leave the count at once. Safe to call when `start` failed."""
        if self._beating:
            await tasks.end(self._beating)
            try:
                await self._send([Operation("end")])
            except StoreError:
                logger.warning("Redis does not answer, so the users of this worker leave the count in %g s", LEASE)

    def renew(self) -> None:
        """Begins anew, and claims the names of all who are here."""
        claims = [Operation("claim", session) for session in self._sessions.values()]
        self._operations, self._version = deque([Operation("begin"), *claims]), 0
        self._wake.set()

    async def find(self, username: str) -> tuple[str, str | None] | None:
        """As LocalPresence has it, for all workers."""
        holder = await self._engine.room.holder(username)
        return (holder["session"], holder["limit_key"] or None) if holder else None

    async def claim(self, newcomer: Session) -> Session:
        """As LocalPresence has it, for all workers."""
        session = self._sessions.setdefault(newcomer.username.lower(), newcomer)
        if not is_same(session, newcomer):
            raise UsernameTaken
        if session.granted and session.limit_key != newcomer.limit_key:
            session.limit_key = newcomer.limit_key
            self._queue("claim", session)  # which tells it; the name is its own already
        if not session.granted:
            session.granted = asyncio.get_running_loop().create_future()
            self._queue("claim", session)
        session.connections += 1
        try:
            await asyncio.wait({session.granted}, timeout=CLAIM_PATIENCE)
            if session.refused:
                raise UsernameTaken
        except BaseException:
            self.release(session)
            raise
        return session

    def release(self, session: Session) -> None:
        """As LocalPresence has it."""
        session.connections -= 1
        if not session.connections:
            del self._sessions[session.username.lower()]
            self._queue("release", session)

    def hear(self, entries: Sequence[Entry]) -> None:
        """What the workers tell each other about who came and left."""
        for _, event in entries:
            self._learn(int(event[b"version"]), int(event[b"count"]), event[b"owner"] == b"1")
            news = json.loads(event[b"news"])
            for username in news["left"]:  # first, because a name may pass from one to the other
                self._listener.announce("user_left", username)
            for username in news["joined"]:
                self._listener.announce("user_joined", username)

    def _queue(self, verb: str, session: Session) -> None:
        self._operations.append(Operation(verb, session))
        self._wake.set()

    async def _beat(self) -> None:
        while True:
            if not self._operations:
                self._wake.clear()
                timer = asyncio.get_running_loop().call_later(BEAT, self._wake.set)
                await self._wake.wait()
                timer.cancel()
            try:
                await self._exchange()
                continue
            except StoreError:
                logger.debug("Redis does not answer the presence")  # the engine tells the owner
            except Exception:
                logger.exception("The presence failed")  # our own fault; without a sign of life all users would leave
            await asyncio.sleep(RETRY)

    async def _exchange(self) -> None:
        """Tells Redis what waits, or only that this worker lives."""
        waiting = self._operations
        batch = list(itertools.islice(waiting, BATCH_LIMIT))
        results = await self._send(batch)
        if waiting is not self._operations:
            return  # everything is said anew
        if results is None:
            logger.warning("Redis does not know this worker's users any more, and is told again")
            self.renew()
            return
        for operation, result in zip(batch, results, strict=True):
            waiting.popleft()
            if operation.verb == "claim" and operation.session:
                self._settle(operation.session, result)

    async def _send(self, operations: Sequence[Operation]) -> list[Any] | None:
        parts = [operation.parts() for operation in operations]
        times = [int(1000 * seconds) for seconds in (LEASE, LEAVE_DELAY, HOLD)]
        settings: list[int | str] = [*times, self._announce_limit, self._owner]
        reply = await self._engine.room.run_presence(self._worker, parts, next(self._turns), self._version, settings)
        if reply is None:
            return None
        version, users, owner_online, results = reply
        self._learn(version, users, owner_online)
        return list(results)

    def _learn(self, version: int, users: int, owner_online: bool) -> None:
        if version > self._version:
            self._version = version
            if (users, owner_online) != (self.users, self.owner_online):
                self.users, self.owner_online = users, owner_online
                self._listener.users_changed()

    def _settle(self, session: Session, granted: Any) -> None:
        """Whether a session has its name, in the spelling and under the id of who came first."""
        if granted:
            session.username, session.id = granted
        if not session.granted or (session.granted.done() and session.granted.result() != bool(granted)):
            session.granted = asyncio.get_running_loop().create_future()
        if not session.granted.done():
            session.granted.set_result(bool(granted))
        if not granted:
            self._listener.evict(session)


def open_presence(settings: Settings, engine: Engine) -> LocalPresence:
    """The presence that goes with an engine."""
    if settings.engine_url.startswith("redis"):
        return RedisPresence(cast("RedisEngine", engine), settings.announce_limit, settings.owner_username)
    return LocalPresence(settings.owner_username)
