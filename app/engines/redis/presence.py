"""The presence of a room in Redis, over all its workers.

Redis decides about names (presence.lua); kept here are this worker's own sessions and the count. What Redis has to be
told waits in one queue, so that it is sent in order, all at once, and again after an outage.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, NamedTuple

from app import tasks
from app.engines.presence import DEFAULT_TIMING, PresenceListener, PresenceTiming, Session, is_same
from app.engines.redis.client import PREFIX, RedisClient
from app.exceptions import StoreError, UsernameTaken

BATCH_LIMIT = 200  # operations at once
KEEP_EVENTS = 1_000
READ_LIMIT = 256  # events at once

logger = logging.getLogger(__name__)


class Operation(NamedTuple):
    """One thing that Redis is told. A worker begins and ends without a session, and claims and releases names."""

    verb: Literal["begin", "claim", "release", "end"]
    session: Session | None = None

    def arguments(self) -> list[Any]:
        """Returns it as presence.lua takes it."""
        if not (session := self.session):
            return [self.verb]
        proof = [session.id, session.address, session.supports_tokens, session.limit_key or ""]
        return [self.verb, session.username, *(proof if self.verb == "claim" else ())]


class RedisPresence:
    """The presence of one worker among many.

    While Redis does not answer, a worker gives names by itself, and takes them back (`evict`) when they turn out to be
    another's. `announce_limit`: up to how many users the workers tell each other of joins and leaves.
    """

    def __init__(
        self, client: RedisClient, owner: str, announce_limit: int, timing: PresenceTiming = DEFAULT_TIMING
    ) -> None:
        self.users = 0
        self.owner_online = False
        self._client = client
        self._timing = timing
        times = [int(1000 * seconds) for seconds in (timing.lease, timing.leave_delay, timing.hold)]
        self._settings: list[int | str] = [*times, announce_limit, owner.lower()]
        self._worker = str(uuid.uuid4())
        self._calls = itertools.count(1)
        self._sessions: dict[str, Session] = {}  # by username in small letters; each has a connection
        self._unanswered: dict[Session, asyncio.Future[None]] = {}  # claims that Redis has not decided yet
        self._operations = deque([Operation("begin")])
        self._queued = asyncio.Event()
        self._version = 0  # of the count that is known; it grows with each change
        self._last_event = b""
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, listener: PresenceListener) -> None:
        """See `Presence.start`. Takes a lease."""
        self._listener = listener
        # Before the count is read, so that no change is missed.
        newest = await self._client.ask(self._client.commands.xrevrange(PREFIX + "events", count=1))
        self._last_event = bytes(newest[0][0]) if newest else b"0"
        await self._exchange()
        self._tasks = [
            tasks.spawn(self._repeat(self._send_queued), "presence"),
            tasks.spawn(self._repeat(self._read_events), "presence events"),
        ]

    async def stop(self) -> None:
        """See `Presence.stop`. Gives the lease back, so that this worker's users leave the count at once."""
        for task in self._tasks:
            await tasks.end(task)
        if self._tasks:
            try:
                await self._call([Operation("end")])
            except StoreError:
                lease = self._timing.lease
                logger.warning("Redis does not answer, so the users of this worker leave the count in %g s", lease)

    def reset(self) -> None:
        """See `Presence.reset`. Begins a new lease, and claims the names of all who are connected."""
        claims = [Operation("claim", session) for session in self._sessions.values()]
        self._operations, self._version = deque([Operation("begin"), *claims]), 0
        self._queued.set()

    async def find(self, username: str) -> tuple[str, str | None] | None:
        """See `Presence.find`."""
        entry = await self._client.ask(self._client.commands.hget(PREFIX + "names", username.lower()))
        holder = json.loads(entry) if entry else None
        return (holder["session"], holder["limit_key"] or None) if holder else None

    async def claim(self, newcomer: Session) -> Session:
        """See `Presence.claim`."""
        session = self._sessions.setdefault(newcomer.username.lower(), newcomer)
        if not is_same(session, newcomer):
            raise UsernameTaken
        if session is newcomer:
            self._unanswered[session] = asyncio.get_running_loop().create_future()
            self._queue("claim", session)
        elif session.limit_key != newcomer.limit_key:
            session.limit_key = newcomer.limit_key
            self._queue("claim", session)  # so that `find` knows it everywhere
        session.connections += 1
        try:
            if answer := self._unanswered.get(session):
                await asyncio.wait({answer}, timeout=self._timing.claim_timeout)
            if session.refused:
                raise UsernameTaken
        except BaseException:
            self.release(session)
            raise
        return session

    def release(self, session: Session) -> None:
        """See `Presence.release`."""
        session.connections -= 1
        if not session.connections:
            del self._sessions[session.username.lower()]
            self._unanswered.pop(session, None)
            self._queue("release", session)

    def _queue(self, verb: Literal["claim", "release"], session: Session) -> None:
        self._operations.append(Operation(verb, session))
        self._queued.set()

    async def _repeat(self, step: Callable[[], Awaitable[None]]) -> None:
        """Repeats a step for ever, and over every outage."""
        while True:
            try:
                await step()
                continue
            except StoreError:
                logger.debug("Redis does not answer the presence")  # the engine warns the owner
            except Exception:
                logger.exception("The presence failed")  # our own fault; if this ended, all users would leave
            await asyncio.sleep(self._timing.retry)

    async def _send_queued(self) -> None:
        """Waits for something to send, or for the time to extend the lease, and calls Redis."""
        if not self._operations:
            self._queued.clear()
            timer = asyncio.get_running_loop().call_later(self._timing.refresh, self._queued.set)
            await self._queued.wait()
            timer.cancel()
        await self._exchange()

    async def _exchange(self) -> None:
        """Sends what is queued, perhaps nothing, and takes it off the queue when Redis has answered."""
        queue = self._operations
        batch = list(itertools.islice(queue, BATCH_LIMIT))
        results = await self._call(batch)
        if queue is not self._operations:
            return  # there was a reset, so everything is sent anew
        if results is None:
            logger.warning("Redis does not know this worker's users any more, and is told again")
            self.reset()
            return
        for operation, result in zip(batch, results, strict=True):
            queue.popleft()
            if operation.verb == "claim" and operation.session:
                self._end_claim(operation.session, result)

    async def _call(self, operations: Sequence[Operation]) -> list[Any] | None:
        """Runs presence.lua. Returns a result for each operation, None when Redis does not know this worker."""
        keys = ["room", "names", "online", "workers", "leaving", "events", "turns"]
        batch = json.dumps([operation.arguments() for operation in operations])
        arguments = [
            PREFIX + "at:",
            self._worker,
            batch,
            next(self._calls),
            self._version,
            *self._settings,
            KEEP_EVENTS,
        ]
        reply = await self._client.run("presence", keys, arguments)
        if not reply:
            return None
        version, users, owner_online, results = reply
        self._set_count(version, users, bool(owner_online))
        return list(json.loads(results))

    async def _read_events(self) -> None:
        """Waits for what the workers tell each other about users, and passes it on."""
        streams: Any = {PREFIX + "events": self._last_event}
        block = int(1000 * self._client.read_timeout)
        found = await self._client.ask(self._client.reader.xread(streams, count=READ_LIMIT, block=block))
        for event_id, event in found[0][1] if found else ():
            self._last_event = event_id  # first, so that a faulty event is passed over
            self._set_count(int(event[b"version"]), int(event[b"count"]), event[b"owner"] == b"1")
            news = json.loads(event[b"news"])
            for username in news["left"]:  # first, because a name may pass from one user to another
                self._listener.announce("user_left", username)
            for username in news["joined"]:
                self._listener.announce("user_joined", username)

    def _set_count(self, version: int, users: int, owner_online: bool) -> None:
        if version > self._version:
            self._version = version
            if (users, owner_online) != (self.users, self.owner_online):
                self.users, self.owner_online = users, owner_online
                self._listener.users_changed()

    def _end_claim(self, session: Session, holder: Sequence[str] | None) -> None:
        """Takes Redis's answer: the name as its user first wrote it and the session's id, or nothing when refused."""
        if holder:
            session.username, session.id = holder
        session.refused = not holder
        if answer := self._unanswered.pop(session, None):
            answer.set_result(None)
        if session.refused:
            self._listener.evict(session)
