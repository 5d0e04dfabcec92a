"""The room: how users join and leave, what becomes of a post, and what everybody is sent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Sequence
from functools import partial
from typing import Protocol

from app import metrics
from app.chat.admission import Admission
from app.chat.announcer import Announcer
from app.chat.blocklist import Blocklist
from app.chat.credentials import OWNER_SESSION, Credentials, Handshake
from app.chat.drafts import make_draft
from app.chat.history import History
from app.chat.moderation import Moderation
from app.chat.registry import Connection, ConnectionRegistry
from app.chat.throttle import FairThrottle
from app.chat.timing import RoomTiming
from app.config import Settings
from app.engines import Backend
from app.engines.engine import Answer
from app.engines.presence import Session
from app.engines.store import Opened, Query
from app.exceptions import Banned, ChatError, StoreError, Unavailable, UsernameTaken
from app.message import Change, Draft, Message
from app.wire import client_frames, frames
from app.wire.frames import PreparedFrames
from app.wire.sender import Sender

logger = logging.getLogger(__name__)


class Notifications(Protocol):
    """The messages that the owner has not seen, and may be notified of."""

    def add(self, messages: Sequence[Message]) -> None:
        """Called with newly stored messages while the owner is away."""

    def remove(self, seqs: Collection[int]) -> None:
        """Called when messages were deleted."""

    def clear(self) -> None:
        """Called when the owner comes, and so sees everything."""


class Room:
    """One room, on a backend whose store was `opened`. `start` before the first connection, `stop` after the last."""

    def __init__(
        self,
        settings: Settings,
        registry: ConnectionRegistry,
        backend: Backend,
        opened: Opened,
        notifications: Notifications,
        timing: RoomTiming | None = None,
    ) -> None:
        self._settings = settings
        self.timing = timing = timing or RoomTiming()
        self._registry = registry
        self._engine, self._presence, _ = backend
        self._notifications = notifications
        self._blocklist = Blocklist(settings.blocked_words)
        self._credentials = Credentials(settings, opened.secret)
        self.moderation = Moderation(settings, backend, self._credentials, timing)
        self.admission = Admission(settings, registry, self._credentials, self.moderation)
        self.admission.on_rules()
        limit, delay = settings.announce_limit, timing.announce_delay
        self.announcer = Announcer(registry, self._presence, self.moderation, limit, delay, notifications.clear)
        self.throttle = FairThrottle()  # for messages that may be expensive to check
        self.draining = False
        self._owner_posts: dict[str, Answer] = {}  # of posts over HTTP that wait to be stored, by the draft's id
        self._epoch = opened.epoch
        self._history = self._new_history(opened)

    async def start(self) -> None:
        """Begins to deliver. Raises StoreError."""
        await self.announcer.start()
        self._engine.start(self)

    async def drain(self, spread: float) -> None:
        """Accepts no more posts, delivers those that were accepted, then sends everybody away over `spread` seconds."""
        self.draining = True
        await self._engine.flush()
        await self.announcer.send_away(spread)

    async def stop(self) -> None:
        """Ends what `start` began, but for the engine. Safe to call when `start` failed."""
        await self.announcer.stop()

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

    # Joining and leaving

    async def admit(self, handshake: Handshake) -> Connection:
        """Takes a slot and a name for a newcomer; `leave` frees both. Raises ConnectionRefused."""
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
        if self.moderation.is_banned(connection):  # since it was admitted
            raise Banned
        data = frames.SessionData(
            username=session.username,
            role="owner" if session.role == "owner" else "visitor",
            token=None if session.role == "owner" else self._credentials.issue(session.username, session.id),
            epoch=self._epoch,
            seq=self._history.seq,
            heartbeat_interval=self._settings.ws_heartbeat_interval,
            heartbeat_timeout=self._settings.ws_heartbeat_timeout,
            max_message_length=self._settings.max_message_length,
            author=self._credentials.author_of(session.id),
            **self.announcer.room().model_dump(),
        )
        history = self._history.frame(since if epoch == self._epoch else None)
        session_frame = frames.encode(frames.SessionFrame(data=data))
        sender.write(PreparedFrames([history, session_frame, self.announcer.count_frame()]))
        self._registry.open(connection, sender)
        logger.info("User connected: %s", session.username)

    def leave(self, connection: Connection) -> None:
        """Lets a connection go, whether it had joined or not. Safe to call again."""
        if connection not in self._registry:
            return
        if self._registry.remove(connection):
            logger.info("User disconnected: %s", connection.session.username)
        self._presence.release(connection.session)

    def peek(self, limit: int | None) -> bytes:
        """Returns what a newcomer would see, as a HistoryPage; `limit` messages at most."""
        messages = self._history.newest(limit)
        return frames.history_page(messages, self.announcer.room(), self._epoch, self._history.seq, self.users)

    # Messages

    def hear(self, connection: Connection) -> None:
        """Called with any frame, which shows that the client is alive."""
        connection.last_seen = self._registry.clock()

    def post(self, connection: Connection, sender: Sender, post: client_frames.Post) -> None:
        """Accepts a message and returns before it is stored. Raises ChatError."""
        self.admission.check_rate(connection)
        draft = make_draft(self._settings, self._blocklist, connection.session, post.content, post.nonce)
        self._publish(draft, partial(self._answer, connection.session, sender, post.nonce))
        self.admission.on_accepted(connection.session)

    async def post_as_owner(self, content: str, nonce: str | None) -> tuple[Message, bool]:
        """Posts over HTTP. Returns the stored message, and whether it is new. Raises ChatError."""
        session = Session(self._settings.owner_username, "", OWNER_SESSION, role="owner")
        draft = make_draft(self._settings, self._blocklist, session, content, nonce)
        answered: asyncio.Future[Message | ChatError] = asyncio.get_running_loop().create_future()
        self._owner_posts[draft.id] = answer = partial(_settle, answered)
        try:
            self._publish(draft, answer)
            message = await asyncio.wait_for(answered, self.timing.post_timeout)
        except TimeoutError:
            raise Unavailable from None
        finally:
            del self._owner_posts[draft.id]
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
        """Answers a post that was not newly stored, to its sender alone."""
        self.admission.on_not_stored(session)
        if isinstance(answer, ChatError):
            frame = frames.error_frame(answer, nonce)
        elif answer.deleted:
            frame = frames.hidden_frame(answer.id, nonce)
        else:
            frame = frames.message_frame(self._encode(answer))
        sender.write(PreparedFrames([frame]))

    def _encode(self, message: Message) -> bytes:
        return frames.encode_data(message, self._credentials.author_of(message.session))

    # What the engine delivers

    async def on_messages(self, messages: Sequence[Message]) -> None:
        """Sends newly stored messages, in seq order, to everybody who is here."""
        datas = [self._encode(message) for message in messages]
        self._history.add(zip(messages, datas, strict=True))
        self.admission.on_stored(messages)
        metrics.deliveries.inc(len(messages) * self._registry.audience)
        await self._broadcast([frames.message_frame(data) for data in datas])
        if not self._presence.owner_online:
            self._notifications.add(messages)
        for message in messages if self._owner_posts else ():
            if answer := self._owner_posts.get(message.id):
                answer(message)
        await asyncio.sleep(0)  # clients that answer at once share the next batch

    async def on_change(self, change: Change) -> None:
        """Applies new rules, removes pruned messages from the history, and announces deletions."""
        if change.rules is not None and self._apply_rules():
            await self.announcer.remove_banned()
        if change.pruned:
            self._history.prune(change.pruned)
        if change.deletions:
            self._history.delete(change.deletions)
            self._notifications.remove({deletion.seq for deletion in change.deletions})
            await self._broadcast([frames.hidden_frame(deletion.id) for deletion in change.deletions])
            await self._fill_history()

    def on_reset(self, opened: Opened) -> None:
        """Takes over a store that is another one now, and sends everybody away: what they know is outdated."""
        secret = self._settings.secret_key or opened.secret
        if secret != self._credentials.secret:
            self._credentials.secret = secret
            self._registry.forget_address_hashes()
        self._apply_rules()
        self._presence.reset()
        # At once in the same epoch: a client that heard the next message could recover without the missed ones.
        self.announcer.begin_anew(None if opened.epoch == self._epoch else self._settings.shutdown_spread)
        self._epoch = opened.epoch
        self._history = self._new_history(opened)

    def on_outage(self) -> None:
        """Tells everybody that nothing new arrives for now."""
        error = Unavailable("Messages can't be sent or received at the moment. What is missed comes later by itself.")
        list(self._registry.broadcast(PreparedFrames([frames.error_frame(error)])))  # at once

    def _apply_rules(self) -> bool:
        """Returns whether the new rules may ban users who are here."""
        may_ban = self.moderation.on_rules()
        self.admission.on_rules()
        self.announcer.on_rules()
        return may_ban

    def _new_history(self, opened: Opened) -> History:
        settings = self._settings
        keep = max(settings.history_limit, settings.recovery_limit)
        history = History(keep, settings.history_limit, settings.recovery_limit, settings.ws_send_buffer // 2)
        history.prune(opened.pruned)
        history.add((message, self._encode(message)) for message in opened.messages)
        history.delete(opened.deletions)
        history.seq = opened.seq
        return history

    async def _fill_history(self) -> None:
        """Fetches older messages in the place of those that were deleted, for newcomers."""
        if gap := self._history.gap():
            seq, limit = gap
            with contextlib.suppress(StoreError):  # newcomers see fewer then
                older = await self._engine.find(Query(before=seq, limit=limit, newest=True))
                self._history.fill([(message, self._encode(message)) for message in older])

    async def _broadcast(self, news: Sequence[bytes]) -> None:
        for _ in self._registry.broadcast(PreparedFrames(news)):
            await asyncio.sleep(0)


def _settle(answered: asyncio.Future[Message | ChatError], answer: Message | ChatError) -> None:
    if not answered.done():
        answered.set_result(answer)
