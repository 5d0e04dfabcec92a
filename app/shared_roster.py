"""Who is here, over all workers: the roster of a room in Redis.

Redis decides about names; what is here knows this worker's own sessions and the count. What it has to say to Redis
waits in one queue, so that it is said in order, all at once, and again after an outage.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from app import tasks
from app.config import Settings
from app.engines import Engine
from app.exceptions import StoreError, UsernameTaken
from app.roster import HOLD, LEAVE_DELAY, Listener, Roster, Session, is_same

if TYPE_CHECKING:  # Redis' driver may be missing
    from app.engines.redis import RedisEngine
    from app.engines.redis_room import Entry

LEASE = 9.0  # seconds after which a worker that is not heard of is dead
BEAT = 3.0  # seconds between two signs of life
RETRY = 0.5  # seconds between two tries to reach Redis
CLAIM_PATIENCE = 2.0  # seconds after which a newcomer is let in on this worker's word alone
BATCH_LIMIT = 200  # operations at once

logger = logging.getLogger(__name__)


class Operation(NamedTuple):
    """What Redis is told of a session: `claim` or `release`."""

    verb: str
    session: Session

    def parts(self) -> list[Any]:
        """As presence.lua takes it."""
        session = self.session
        parts = [self.verb, session.username, session.id]
        return [*parts, session.address, session.provable] if self.verb == "claim" else parts


class SharedRoster(Roster):
    """One worker's part of it. `announce_limit`: up to how many users the workers tell each other who came and left.

    Names are Redis's to give. While it does not answer, a worker gives them on its own word, and takes them back
    (`evict`) when they turn out to be another's.
    """

    def __init__(self, engine: RedisEngine, announce_limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._engine = engine
        self._announce_limit = announce_limit
        self._operations: deque[Operation] = deque()
        self._wake = asyncio.Event()
        self._version = -1
        self._worker, self._fresh = str(uuid.uuid4()), True
        self._beating: asyncio.Task[None] | None = None

    async def start(self, listener: Listener) -> None:
        """Takes a lease. Raises StoreError."""
        await super().start(listener)
        await self._exchange()
        self._engine.on_events = self.hear
        self._beating = tasks.spawn(self._beat(), "roster")

    async def stop(self) -> None:
        """Gives the lease back, so that the users leave the count at once. Safe to call when `start` failed."""
        if self._beating:
            await tasks.end(self._beating)
            try:
                await self._send([["end"]])
            except StoreError:
                logger.warning("Redis does not answer, so the users of this worker leave the count in %g s", LEASE)

    def renew(self) -> None:
        """Takes another lease, and claims the names of all who are here anew."""
        self._worker, self._fresh, self._version = str(uuid.uuid4()), True, -1
        self._operations = deque(Operation("claim", session) for session in self._sessions.values())
        self._wake.set()

    async def claim(self, newcomer: Session) -> Session:
        """As Roster has it, for all workers."""
        session = self._sessions.setdefault(newcomer.username.lower(), newcomer)
        if not is_same(session, newcomer):
            raise UsernameTaken
        if not session.granted:
            session.granted = asyncio.get_running_loop().create_future()
            self._queue("claim", session)
        session.connections += 1
        try:
            await asyncio.wait({session.granted}, timeout=CLAIM_PATIENCE)
            if session.granted.done() and not session.granted.result():
                raise UsernameTaken
        except BaseException:
            self.release(session)
            raise
        return session

    def release(self, session: Session) -> None:
        """As Roster has it."""
        session.connections -= 1
        if not session.connections:
            del self._sessions[session.username.lower()]
            self._queue("release", session)

    def hear(self, entries: Sequence[Entry]) -> None:
        """What the workers tell each other about who came and left."""
        for _, event in entries:
            self._count(int(event[b"version"]), int(event[b"count"]))
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
                logger.debug("Redis does not answer the roster")  # the engine tells the owner
            except Exception:
                logger.exception("The roster failed")  # our own fault; without a sign of life all users would leave
            await asyncio.sleep(RETRY)

    async def _exchange(self) -> None:
        """Tells Redis what waits, or only that this worker lives."""
        waiting, worker = self._operations, self._worker
        batch = list(itertools.islice(waiting, BATCH_LIMIT))
        results = await self._send([operation.parts() for operation in batch])
        if worker != self._worker:
            return  # everything is said anew
        if results is None:
            logger.warning("This worker was taken for dead, and comes back")
            self.renew()
            return
        self._fresh = False
        for operation, result in zip(batch, results, strict=True):
            waiting.popleft()
            if operation.verb == "claim":
                self._settle(operation.session, result)

    async def _send(self, operations: list[Any]) -> list[Any] | None:
        times = [int(1000 * seconds) for seconds in (LEASE, LEAVE_DELAY, HOLD)]
        reply = await self._engine.room.presence(self._worker, self._fresh, times, self._announce_limit, operations)
        if reply is None:
            return None
        version, users, results = reply
        self._count(version, users)
        return list(results)

    def _count(self, version: int, users: int) -> None:
        if version > self._version:
            self._version = version
            if users != self.users:
                self.users = users
                self._listener.users_changed()

    def _settle(self, session: Session, granted: Any) -> None:
        """Whether a session has its name, in the spelling and under the id of who came first."""
        if granted:
            session.username, session.id = granted
        else:
            self._listener.evict(session)
        if session.granted and not session.granted.done():
            session.granted.set_result(bool(granted))


def open_roster(settings: Settings, engine: Engine) -> Roster:
    """The roster that goes with an engine."""
    if settings.engine_url.startswith("redis"):
        return SharedRoster(cast("RedisEngine", engine), settings.announce_limit)
    return Roster()
