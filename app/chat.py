"""The room's rules: who joins and leaves, what is posted and delivered, what a newcomer sees.

Knows connections, the roster and the engine, nothing of ASGI.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Sequence
from functools import partial

from app import frames, security, tasks
from app.admission import Admission
from app.batch import Batch
from app.config import Settings
from app.credentials import Handshake
from app.engines import Engine
from app.exceptions import ChatError, CloseCode, Unavailable, UsernameTaken
from app.history import History
from app.message import Draft, Message
from app.outbox import Outbox
from app.registry import Connection, ConnectionRegistry
from app.roster import Event, Roster, Session

USER_COUNT_DELAY = 0.25  # seconds within which changes of the user count are joined
DRAIN_STEP = 0.02  # seconds

logger = logging.getLogger(__name__)


class Chat:
    """One room. `start` before the first connection, `stop` after the last."""

    def __init__(self, settings: Settings, registry: ConnectionRegistry, roster: Roster, engine: Engine) -> None:
        self._settings = settings
        self._registry = registry
        self._roster = roster
        self._engine = engine
        self.draining = False
        self._history: History  # from `start` on, as is what follows from the store's secret
        self._admission: Admission
        self._users_changed = asyncio.Event()
        self._counting: asyncio.Task[None] | None = None
        self._farewell: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Opens the engine, which tells the past first. Raises StoreError."""
        await self._engine.start(self)
        await self._roster.start(self)
        self._counting = tasks.spawn(self._count_users(), "user count")

    async def drain(self, spread: float) -> None:
        """Before the stop: what was accepted goes out, then everybody is told to come back, over `spread` seconds."""
        self.draining = True
        await self._engine.flush()
        await self._send_away(spread)

    async def _send_away(self, spread: float) -> None:
        outboxes = [outbox for _, outbox in self._registry.outboxes()]
        ends = self._registry.clock() + spread
        while outboxes:
            turns = max(1, int((ends - self._registry.clock()) / DRAIN_STEP))
            for _ in range(-(-len(outboxes) // turns)):
                outboxes.pop().close(CloseCode.RESTART)
            await asyncio.sleep(DRAIN_STEP if outboxes else 0)

    async def stop(self) -> None:
        """Stores and delivers what was accepted, and frees everything. Safe to call when `start` failed."""
        await self._roster.stop()
        await self._engine.stop()
        for task in (self._counting, self._farewell):
            if task:
                await tasks.end(task)

    @property
    def healthy(self) -> bool:
        """Whether messages can be stored now, and will be in a moment."""
        return self._engine.healthy and not self.draining

    @property
    def users(self) -> int:
        """Usernames connected now."""
        return self._roster.users

    @property
    def total(self) -> int:
        """Messages ever accepted."""
        return self._engine.seq

    # Coming and going

    async def admit(self, handshake: Handshake) -> Connection:
        """Takes a slot and a name for a newcomer; `leave` gives both back. Raises ConnectionRefused."""
        newcomer = self._admission.check(handshake)
        connection = self._registry.add(newcomer, handshake.limit_key)
        try:
            connection.session = await self._roster.claim(newcomer)
        except BaseException:
            self._registry.remove(connection)
            raise
        return connection

    def join(self, connection: Connection, outbox: Outbox, epoch: str | None, since: str | None) -> None:
        """Lets a connection in: history, session and user count, then everything that is delivered from now on.

        Nothing is awaited between the history and the first broadcast, so none is missed or doubled. Raises
        UsernameTaken when the name was taken back meanwhile.
        """
        session = connection.session
        if session.refused:
            raise UsernameTaken
        history = self._history.frame(since if epoch == self._engine.epoch else None)
        outbox.write(Batch([history, self._session_frame(session), self._count_frame()]))
        self._registry.open(connection, outbox)
        logger.info("User connected: %s", session.username)

    def leave(self, connection: Connection) -> None:
        """Lets a connection go, whether it had joined or not. Safe to call again."""
        if connection not in self._registry:
            return
        if self._registry.remove(connection):
            logger.info("User disconnected: %s", connection.session.username)
        self._roster.release(connection.session)

    def announce(self, event: Event, username: str) -> None:
        """Tells everybody else who came or left, unless so many are here that it would be noise."""
        if self.users > self._settings.announce_limit:
            return
        data = frames.SystemData(
            id=str(uuid.uuid4()),
            content=f"{username} {'joined' if event == 'user_joined' else 'left'} the chat",
            timestamp=time.time(),
            event=event,
            user=username,
        )
        batch = Batch([frames.encode(frames.SystemFrame(data=data))])
        for connection, outbox in self._registry.outboxes():
            if connection.session.username != username:
                outbox.write(batch)

    def users_changed(self) -> None:
        """The number of users is another, which everybody is told soon."""
        self._users_changed.set()

    def evict(self, session: Session) -> None:
        """Ends the connections of a session whose name turned out to be another's, after an outage of the store."""
        refusal = UsernameTaken()
        for connection, outbox in self._registry.outboxes():
            if connection.session is session:
                outbox.write(Batch([frames.error_frame(refusal)]))
                outbox.close(refusal.close_code)

    async def _count_users(self) -> None:
        while True:
            await self._users_changed.wait()
            await asyncio.sleep(USER_COUNT_DELAY)
            self._users_changed.clear()
            await self._broadcast(Batch([self._count_frame()]))

    def _count_frame(self) -> bytes:
        return frames.encode(frames.UserCountFrame(data=frames.UserCountData(count=self.users)))

    def _session_frame(self, session: Session) -> bytes:
        data = frames.SessionData(
            username=session.username,
            role="owner" if session.role == "owner" else "visitor",
            token=self._admission.token(session),
            epoch=self._engine.epoch,
            seq=self._history.seq,
            heartbeat_interval=self._settings.ws_heartbeat_interval,
            heartbeat_timeout=self._settings.ws_heartbeat_timeout,
            max_message_length=self._settings.max_message_length,
        )
        return frames.encode(frames.SessionFrame(data=data))

    # Messages

    def hear(self, connection: Connection) -> None:
        """Any frame shows that the client is alive."""
        connection.heard = self._registry.clock()

    def post(self, connection: Connection, outbox: Outbox, post: frames.Post) -> None:
        """Accepts a message and returns before it is stored. Raises ChatError."""
        if self.draining:
            raise Unavailable
        settings, session = self._settings, connection.session
        self._admission.check_rate(connection)
        text = security.clean_text(post.content, settings.max_message_length, settings.block_dangerous_markup)
        draft = Draft(
            id=str(uuid.uuid4()),
            session=session.id,
            username=session.username,
            content=security.escape(text),
            text=text,
            timestamp=time.time(),
            nonce=post.nonce,
            role=session.role,
        )
        self._engine.publish(draft, partial(self._answer, outbox, post.nonce))
        shown = text if settings.log_message_content else f"({len(text)} characters)"
        logger.info("Message from %s: %.80s", session.username, shown)

    def is_flood(self, connection: Connection, bad: bool) -> bool:
        """Counts a frame, or a bad frame once more; True when there were too many of late."""
        return self._admission.is_flood(connection, bad)

    def _answer(self, outbox: Outbox, nonce: str | None, answer: Message | ChatError) -> None:
        """Tells the sender alone what became of a draft that was not newly stored."""
        if isinstance(answer, ChatError):
            outbox.write(Batch([frames.error_frame(answer, nonce)]))
        else:
            outbox.write(Batch([frames.message_frame(frames.encode_data(answer))]))

    async def deliver(self, messages: Sequence[Message]) -> None:
        """Sends stored messages, oldest first, to everyone who is here."""
        datas = [frames.encode_data(message) for message in messages]
        self._history.add((message.seq, data) for message, data in zip(messages, datas, strict=True))
        await self._broadcast(Batch([frames.message_frame(data) for data in datas]))
        await asyncio.sleep(0)  # who answers at once shares the next batch

    def renew(self, past: Sequence[Message]) -> None:
        """The store was opened, or is another one now: then whoever knows the other one is sent back to the door."""
        settings, engine = self._settings, self._engine
        limits = (settings.history_limit, settings.recovery_limit, settings.ws_send_buffer // 2)
        self._history = History(engine.keep, *limits)
        self._history.add((message.seq, frames.encode_data(message)) for message in past)
        self._history.seq = engine.seq
        if not self._counting or self._admission.secret != engine.secret:
            self._admission = Admission(settings, self._registry, engine.secret)
        if self._counting:
            self._roster.renew()
            if self._farewell:
                self._farewell.cancel()
            self._farewell = tasks.spawn(self._send_away(settings.shutdown_spread), "farewell")

    def trouble(self) -> None:
        """Tells everybody that nothing new arrives for now."""
        error = Unavailable("Messages can't be sent or received at the moment. What is missed comes later by itself.")
        for _ in self._registry.broadcast(Batch([frames.error_frame(error)])):
            pass

    async def _broadcast(self, batch: Batch) -> None:
        for _ in self._registry.broadcast(batch):
            await asyncio.sleep(0)
