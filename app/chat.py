"""The room's rules: who joins and leaves, what is posted and delivered, what a newcomer sees.

Knows connections and the engine, nothing of ASGI. Only `deliver` and the count of users wait, and only for their turn.
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
from app.exceptions import ChatError, CloseCode, Unavailable
from app.history import History
from app.message import Draft, Message
from app.outbox import Outbox
from app.registry import HOLD, Connection, ConnectionRegistry, Session

USER_COUNT_DELAY = 0.25  # seconds within which changes of the user count are joined
LEAVE_DELAY = 5.0  # seconds in which a session may come back without having left
DRAIN_STEP = 0.02  # seconds

logger = logging.getLogger(__name__)


class Chat:
    """One room. `start` before the first connection, `stop` after the last."""

    def __init__(self, settings: Settings, registry: ConnectionRegistry, engine: Engine) -> None:
        self._settings = settings
        self._registry = registry
        self._engine = engine
        self.draining = False
        self._history = History(
            engine.keep, settings.history_limit, settings.recovery_limit, settings.ws_send_buffer // 2
        )
        self._leaving: dict[Session, asyncio.TimerHandle] = {}
        self._admission: Admission  # from `start` on, because the secret may come from the store
        self._users_changed = asyncio.Event()
        self._counting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Opens the engine, which delivers the past first. Raises StoreError."""
        await self._engine.start(self.deliver)
        self._history.seq = self._engine.seq
        self._admission = Admission(self._settings, self._registry, self._engine.secret)
        self._counting = tasks.spawn(self._count_users(), "user count")

    async def drain(self, spread: float) -> None:
        """Before the stop: what was accepted goes out, then everybody is told to come back, over `spread` seconds."""
        self.draining = True
        await self._engine.flush()
        outboxes = [outbox for _, outbox in self._registry.outboxes()]
        ends = self._registry.clock() + spread
        while outboxes:
            turns = max(1, int((ends - self._registry.clock()) / DRAIN_STEP))
            for _ in range(-(-len(outboxes) // turns)):
                outboxes.pop().close(CloseCode.RESTART)
            await asyncio.sleep(DRAIN_STEP if outboxes else 0)

    async def stop(self) -> None:
        """Stores and delivers what was accepted, and frees everything. Safe to call when `start` failed."""
        await self._engine.stop()
        if self._counting:
            await tasks.end(self._counting)
        for timer in self._leaving.values():
            timer.cancel()

    @property
    def healthy(self) -> bool:
        """Whether messages can be stored now, and will be in a moment."""
        return self._engine.healthy and not self.draining

    @property
    def users(self) -> int:
        """Usernames connected now."""
        return self._registry.users

    @property
    def total(self) -> int:
        """Messages ever accepted."""
        return self._engine.seq

    # Coming and going

    def admit(self, handshake: Handshake) -> Connection:
        """Takes a slot for a newcomer; `leave` gives it back. Raises ConnectionRefused."""
        newcomer = self._admission.check(handshake)
        before = self._registry.holder(newcomer.username)
        connection = self._registry.admit(newcomer, handshake.limit_key)
        if connection.session.connections == 1:
            self._users_changed.set()
        if before and before is not connection.session:
            self._leave_now(before)
        return connection

    def join(self, connection: Connection, outbox: Outbox, epoch: str | None, since: str | None) -> None:
        """Lets a connection in: history, session and user count, then everything that is delivered from now on.

        Nothing is awaited between the history and the first broadcast, so none is missed or doubled.
        """
        session = connection.session
        history = self._history.frame(since if epoch == self._engine.epoch else None)
        outbox.write(Batch([history, self._session_frame(session), self._count_frame()]))
        self._registry.open(connection, outbox)
        logger.info("User connected: %s", session.username)
        if timer := self._leaving.pop(session, None):
            timer.cancel()
        if not session.present:
            session.present = True
            self._announce("user_joined", session.username, skip=connection)

    def leave(self, connection: Connection) -> None:
        """Lets a connection go, whether it had joined or not. Safe to call again."""
        session = connection.session
        if self._registry.remove(connection):
            logger.info("User disconnected: %s", session.username)
        if session.connections:
            return
        self._users_changed.set()
        if session not in self._leaving:
            delay = LEAVE_DELAY if session.present else HOLD
            self._leaving[session] = asyncio.get_running_loop().call_later(delay, self._leave_now, session)

    def _leave_now(self, session: Session) -> None:
        """A session did not come back: first the others learn it, then, unless its name is still held, it ends."""
        if timer := self._leaving.pop(session, None):
            timer.cancel()
        if session.present:
            session.present = False
            self._announce("user_left", session.username)
        held = session.held_until - self._registry.clock()
        if held > 0 and self._registry.holder(session.username) is session:
            self._leaving[session] = asyncio.get_running_loop().call_later(held, self._leave_now, session)
        else:
            self._registry.forget(session)

    def _announce(self, event: str, username: str, skip: Connection | None = None) -> None:
        if self.users > self._settings.announce_limit:
            return
        data = frames.SystemData(
            id=str(uuid.uuid4()),
            content=f"{username} {'joined' if event == 'user_joined' else 'left'} the chat",
            timestamp=time.time(),
            event="user_joined" if event == "user_joined" else "user_left",
            user=username,
        )
        for _ in self._registry.broadcast(Batch([frames.encode(frames.SystemFrame(data=data))]), skip):
            pass  # few users are here, or nothing would be announced

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
        if not messages:
            return
        datas = [frames.encode_data(message) for message in messages]
        self._history.add((message.seq, data) for message, data in zip(messages, datas, strict=True))
        await self._broadcast(Batch([frames.message_frame(data) for data in datas]))
        await asyncio.sleep(0)  # who answers at once shares the next batch

    async def _broadcast(self, batch: Batch) -> None:
        for _ in self._registry.broadcast(batch):
            await asyncio.sleep(0)
