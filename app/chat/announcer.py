"""Announces joins and leaves, the number of users, and the state of the room; and sends users away."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable

from app import metrics, tasks
from app.chat.moderation import Moderation
from app.chat.registry import ConnectionRegistry
from app.engines.presence import Event, Presence, Session
from app.exceptions import Banned, ChatError, CloseCode, UsernameTaken
from app.wire import frames
from app.wire.frames import PreparedFrames
from app.wire.sender import Sender

FAREWELL_STEP = 0.02  # seconds
REMOVAL_STEP = 0.001  # seconds after which the event loop is given back; fan-outs may have a share of the same turn


class Announcer:
    """Listens to the presence. Joins and leaves are announced up to `limit` users.

    Changes within `delay` seconds are announced together. `on_owner` is called when the owner comes.
    """

    def __init__(
        self,
        registry: ConnectionRegistry,
        presence: Presence,
        moderation: Moderation,
        limit: int,
        delay: float,
        on_owner: Callable[[], None] = lambda: None,
    ) -> None:
        self._registry = registry
        self._presence = presence
        self._moderation = moderation
        self._limit = limit
        self._delay = delay
        self._on_owner = on_owner
        self._room = self.room()
        self._room_changed = False
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._farewell: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins to announce. Raises StoreError."""
        await self._presence.start(self)
        self._tasks = [tasks.spawn(self._announce_changes(), "announcer")]

    async def stop(self) -> None:
        """Ends it. Safe to call when `start` failed."""
        await self._presence.stop()
        for task in (*self._tasks, *filter(None, [self._farewell])):
            await tasks.end(task)

    def announce(self, event: Event, username: str) -> None:
        """Announces a join or a leave to everybody else, unless so many users are here that it would be noise."""
        if self._presence.users > self._limit:
            return
        data = frames.SystemData(
            id=str(uuid.uuid4()),
            content=f"{username} {'joined' if event == 'user_joined' else 'left'} the chat",
            timestamp=time.time(),
            event=event,
            user=username,
        )
        prepared = PreparedFrames([frames.encode(frames.SystemFrame(data=data))])
        for connection, sender in self._registry.senders():
            if connection.session.username != username:
                sender.write(prepared)

    def users_changed(self) -> None:
        """Called when the number of users has changed, or the owner came or left."""
        self._changed.set()
        self.on_rules()

    def on_rules(self) -> None:
        """Called when the owner's rules have changed. Announces nothing when the room looks as before."""
        before, self._room = self._room, self.room()
        if self._room != before:
            self._room_changed = True
            self._changed.set()
        if self._room.owner_online and not before.owner_online:
            self._on_owner()

    def evict(self, session: Session) -> None:
        """Closes the connections of a session whose name turned out to be another's, after an outage of the store."""
        for connection, sender in self._registry.senders():
            if connection.session is session:
                _dismiss(sender, UsernameTaken(), UsernameTaken.close_code)

    async def remove_banned(self) -> None:
        """Closes the connections of all banned users, a millisecond at a time.

        Connections that open meanwhile are not looked at: each is checked when it joins.
        """
        began = self._registry.clock()
        for connection, sender in self._registry.senders():
            if self._moderation.is_banned(connection):
                _dismiss(sender, Banned(), CloseCode.REMOVED)
            if self._registry.clock() - began > REMOVAL_STEP:
                await asyncio.sleep(0)
                began = self._registry.clock()

    async def send_away(self, spread: float) -> None:
        """Closes all connections with 1012, which asks the clients to come back, over `spread` seconds."""
        senders = [sender for _, sender in self._registry.senders()]
        ends = self._registry.clock() + spread
        while senders:
            turns = max(1, int((ends - self._registry.clock()) / FAREWELL_STEP))
            for _ in range(-(-len(senders) // turns)):
                senders.pop().close(CloseCode.RESTART)
            await asyncio.sleep(FAREWELL_STEP if senders else 0)

    def begin_anew(self, spread: float | None) -> None:
        """The store is another one now: removes the users who are banned in it, and sends the others away.

        `spread`: seconds in the background; None for at once, so that no client hears anything more.
        """
        if spread is None:
            for connection, sender in self._registry.senders():
                if self._moderation.is_banned(connection):
                    _dismiss(sender, Banned(), CloseCode.REMOVED)
                sender.close(CloseCode.RESTART)
            return

        async def run(spread: float) -> None:
            await self.remove_banned()
            await self.send_away(spread)

        if self._farewell:
            self._farewell.cancel()
        self._farewell = tasks.spawn(run(spread), "farewell")

    async def _announce_changes(self) -> None:
        while True:
            metrics.users.set(self._presence.users)
            await self._changed.wait()
            await asyncio.sleep(self._delay)
            self._changed.clear()
            news = [self.count_frame()]
            if self._room_changed:
                self._room_changed = False
                news.append(frames.encode(frames.RoomFrame(data=self.room())))
            for _ in self._registry.broadcast(PreparedFrames(news)):
                await asyncio.sleep(0)

    def count_frame(self) -> bytes:
        """The frame with the number of users."""
        return frames.encode(frames.UserCountFrame(data=frames.UserCountData(count=self._presence.users)))

    def room(self) -> frames.RoomData:
        """The state of the room."""
        rules = self._moderation.rules
        return frames.RoomData(paused=rules.paused, slow_mode=rules.slow_mode, owner_online=self._presence.owner_online)


def _dismiss(sender: Sender, why: ChatError, code: CloseCode) -> None:
    sender.write(PreparedFrames([frames.error_frame(why)]))
    sender.close(code)
