"""The room's rules: who joins and leaves, what is posted and delivered, what a newcomer sees.

Knows connections, the presence and the engine, nothing of ASGI.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from functools import partial

from app import metrics
from app.chat.admission import Admission
from app.chat.announcer import Announcer
from app.chat.credentials import OWNER_SESSION, Handshake
from app.chat.drafts import Composer
from app.chat.history import History
from app.chat.registry import Connection, ConnectionRegistry
from app.chat.rules import Rules
from app.chat.throttle import FairThrottle
from app.config import Settings
from app.engines import Answer, Engine
from app.engines.presence import LocalPresence, Session
from app.exceptions import Banned, ChatError, StoreError, Unavailable, UsernameTaken
from app.message import Change, Deletion, Draft, Message
from app.owner.notifier import open_notifier
from app.wire import client_frames, frames
from app.wire.prepared import PreparedFrames
from app.wire.sender import Sender

POST_PATIENCE = 10.0  # seconds; the engine's own ends before, unless the room is another one now

logger = logging.getLogger(__name__)


class Chat:
    """One room. `start` before the first connection, `stop` after the last."""

    def __init__(
        self, settings: Settings, registry: ConnectionRegistry, presence: LocalPresence, engine: Engine
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._presence = presence
        self._engine = engine
        self._notifier = open_notifier(settings, engine)
        self.announcer = Announcer(registry, presence, settings.announce_limit, self._notifier.owner_came)
        self._composer = Composer(settings)
        self.throttle = FairThrottle()  # for messages that may be expensive to check
        self._posting: dict[str, Answer] = {}  # over HTTP, by draft: who waits for it to be stored
        self.draining = False
        self.admission: Admission  # from `start` on, as is what follows from the store's secret
        self._history: History
        self._epoch = ""  # of the room that all who are here know

    async def start(self) -> None:
        """Opens the engine, which tells the past first. Raises StoreError."""
        await self._engine.start(self)
        await self.announcer.start()
        self._notifier.start()

    async def drain(self, spread: float) -> None:
        """Before the stop: what was accepted goes out, then everybody is told to come back, over `spread` seconds."""
        self.draining = True
        await self._engine.flush()
        await self.announcer.send_away(spread)

    async def stop(self) -> None:
        """Stores and delivers what was accepted, and frees everything. Safe to call when `start` failed."""
        await self._notifier.stop()
        await self.announcer.stop()
        await self._engine.stop()

    @property
    def healthy(self) -> bool:
        """Whether messages can be stored now, and will be in a moment."""
        return self._engine.healthy and not self.draining

    @property
    def users(self) -> int:
        """Usernames connected now."""
        return self._presence.users

    @property
    def total(self) -> int:
        """Messages ever accepted."""
        return self._engine.seq

    # Coming and going

    async def admit(self, handshake: Handshake) -> Connection:
        """Takes a slot and a name for a newcomer; `leave` gives both back. Raises ConnectionRefused."""
        newcomer = self.admission.check(handshake)
        connection = self._registry.add(newcomer, handshake.limit_key)
        try:
            connection.session = await self._presence.claim(newcomer)
        except BaseException:
            self._registry.remove(connection)
            raise
        return connection

    def join(self, connection: Connection, sender: Sender, epoch: str | None, since: str | None) -> None:
        """Lets a connection in: history, session and user count, then everything that is delivered from now on.

        Nothing is awaited between the history and the first broadcast, so none is missed or doubled. Raises
        UsernameTaken when the name was taken back meanwhile, and Banned.
        """
        session = connection.session
        if session.refused:
            raise UsernameTaken
        if self.admission.is_banned(connection):  # since it was let in at the door
            raise Banned
        history = self._history.frame(since if epoch == self._engine.epoch else None)
        sender.write(PreparedFrames([history, self._session_frame(session), self.announcer.count_frame()]))
        self._registry.open(connection, sender)
        logger.info("User connected: %s", session.username)

    def leave(self, connection: Connection) -> None:
        """Lets a connection go, whether it had joined or not. Safe to call again."""
        if connection not in self._registry:
            return
        if self._registry.remove(connection):
            logger.info("User disconnected: %s", connection.session.username)
        self._presence.release(connection.session)

    def _session_frame(self, session: Session) -> bytes:
        data = frames.SessionData(
            username=session.username,
            role="owner" if session.role == "owner" else "visitor",
            token=self.admission.token(session),
            epoch=self._engine.epoch,
            seq=self._history.seq,
            heartbeat_interval=self._settings.ws_heartbeat_interval,
            heartbeat_timeout=self._settings.ws_heartbeat_timeout,
            max_message_length=self._settings.max_message_length,
            **self.announcer.room().model_dump(),
        )
        return frames.encode(frames.SessionFrame(data=data))

    # Messages

    def hear(self, connection: Connection) -> None:
        """Any frame shows that the client is alive."""
        connection.last_seen = self._registry.clock()

    def post(self, connection: Connection, sender: Sender, post: client_frames.Post) -> None:
        """Accepts a message and returns before it is stored. Raises ChatError."""
        self.admission.check_rate(connection)
        draft = self._composer.compose(connection.session, post.content, post.nonce)
        self._publish(draft, partial(self._answer, connection.session, sender, post.nonce))
        self.admission.note_post(connection.session)

    async def post_as_owner(self, content: str, nonce: str | None) -> tuple[Message, bool]:
        """Posts over HTTP. The stored message, and whether it is new. Raises ChatError."""
        session = Session(self._settings.owner_username, "", OWNER_SESSION, role="owner")
        draft = self._composer.compose(session, content, nonce)
        answered: asyncio.Future[Message | ChatError] = asyncio.get_running_loop().create_future()
        self._posting[draft.id] = answer = partial(_settle, answered)
        try:
            self._publish(draft, answer)
            message = await asyncio.wait_for(answered, POST_PATIENCE)
        except TimeoutError:
            raise Unavailable from None
        finally:
            del self._posting[draft.id]
        if isinstance(message, ChatError):
            raise message
        return message, message.id == draft.id

    def _publish(self, draft: Draft, answer: Answer) -> None:
        if self.draining:
            raise Unavailable
        self._engine.publish(draft, answer)
        shown = draft.text if self._settings.log_message_content else f"({len(draft.text)} characters)"
        logger.info("Message from %s: %.80s", draft.username, shown)

    def _answer(self, session: Session, sender: Sender, nonce: str | None, answer: Message | ChatError) -> None:
        """Tells the sender alone what became of a draft that was not newly stored."""
        self.admission.forget_post(session)
        sender.write(PreparedFrames([frames.answer_frame(answer, nonce)]))

    async def deliver(self, messages: Sequence[Message]) -> None:
        """Sends stored messages, oldest first, to everyone who is here."""
        datas = [frames.encode_data(message) for message in messages]
        self._history.add(zip(messages, datas, strict=True))
        self.admission.note_stored(messages)
        metrics.deliveries.inc(len(messages) * self._registry.audience)
        await self._broadcast(PreparedFrames([frames.message_frame(data) for data in datas]))
        if not self._presence.owner_online:
            self._notifier.hear(messages)
        for message in messages if self._posting else ():
            if answer := self._posting.get(message.id):
                answer(message)
        await asyncio.sleep(0)  # who answers at once shares the next batch

    async def change(self, change: Change) -> None:
        """Messages were hidden or pruned, or the owner's rules are others."""
        if change.rules is not None and self._obey():
            await self.announcer.remove(self.admission.is_banned)
        if change.pruned:
            self._history.prune(change.pruned)
        if change.hidden:
            self._history.hide(change.hidden)
            self._notifier.hide({hiding.seq for hiding in change.hidden})
            await self._broadcast(PreparedFrames([frames.hidden_frame(hiding.id) for hiding in change.hidden]))
            await self._fill_history()

    async def _fill_history(self) -> None:
        """Newcomers see what was said before the messages that were hidden."""
        if gap := self._history.gap():
            with contextlib.suppress(StoreError):  # then they see less
                older = await self._engine.before(*gap)
                self._history.fill([(message, frames.encode_data(message)) for message in older])

    def _obey(self) -> bool:
        """Applies the store's rules. True: their bans may concern connections that are open."""
        rules = Rules.parse(self._engine.rules)
        self.announcer.obey(rules)
        return self.admission.obey(rules)

    def renew(self, past: Sequence[Message], hidden: Sequence[Deletion]) -> None:
        """As Listener has it. All who are here are sent back to the door: what they know is not the room any more."""
        settings, engine = self._settings, self._engine
        keep = max(settings.history_limit, settings.recovery_limit)
        self._history = History(keep, settings.history_limit, settings.recovery_limit, settings.ws_send_buffer // 2)
        self._history.prune(engine.pruned)
        self._history.add((message, frames.encode_data(message)) for message in past)
        self._history.hide(hidden)
        self._history.seq = engine.seq
        if not self._epoch or self.admission.secret != engine.secret:
            self.admission = Admission(settings, self._registry, engine.secret)
            self._registry.forget_marks()
        self._obey()
        if self._epoch:
            self._presence.renew()
            # At once in the same epoch: a client that heard what comes next could recover without what is missing.
            spread = None if engine.epoch == self._epoch else settings.shutdown_spread
            self.announcer.begin_anew(self.admission.is_banned, spread)
        self._epoch = engine.epoch

    def trouble(self) -> None:
        """Tells everybody that nothing new arrives for now."""
        error = Unavailable("Messages can't be sent or received at the moment. What is missed comes later by itself.")
        list(self._registry.broadcast(PreparedFrames([frames.error_frame(error)])))  # at once

    async def _broadcast(self, prepared: PreparedFrames) -> None:
        for _ in self._registry.broadcast(prepared):
            await asyncio.sleep(0)


def _settle(answered: asyncio.Future[Message | ChatError], answer: Message | ChatError) -> None:
    if not answered.done():
        answered.set_result(answer)
