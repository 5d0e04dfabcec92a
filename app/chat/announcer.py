"""What everybody hears beside messages: who came and left, how many are here, how the room is. And who must go.

Knows the presence and the connections, nothing of messages.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable

from app import metrics, tasks
from app.chat.registry import Connection, ConnectionRegistry
from app.chat.rules import Rules
from app.engines.presence import Event, LocalPresence, Session
from app.exceptions import Banned, ChatError, CloseCode, UsernameTaken
from app.wire import frames
from app.wire.prepared import PreparedFrames
from app.wire.sender import Sender

DELAY = 0.25  # seconds within which changes are joined
FAREWELL_STEP = 0.02  # seconds
REMOVAL_STEP = 0.001  # seconds after which the event loop is given back; fan-outs may have a share of the same turn


class Announcer:
    """Listens to the presence. `limit`: up to how many users joins and leaves are announced.

    `on_owner` is called when the owner comes.
    """

    def __init__(
        self,
        registry: ConnectionRegistry,
        presence: LocalPresence,
        limit: int,
        on_owner: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_owner = on_owner
        self._registry = registry
        self._presence = presence
        self._limit = limit
        self._rules = Rules()
        self._owner_online = False
        self._changed = asyncio.Event()
        self._room_changed = False
        self._telling: asyncio.Task[None] | None = None
        self._farewell: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins to tell. Raises StoreError."""
        await self._presence.start(self)
        self._telling = tasks.spawn(self._tell(), "announcer")

    async def stop(self) -> None:
        """Ends it. Safe to call when `start` failed."""
        await self._presence.stop()
        for task in (self._telling, self._farewell):
            if task:
                await tasks.end(task)

    def announce(self, event: Event, username: str) -> None:
        """Tells everybody else who came or left, unless so many are here that it would be noise."""
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
        """The number of users is another, or the owner came or went, which everybody is told soon."""
        if self._presence.owner_online != self._owner_online:
            self._owner_online = self._presence.owner_online
            self._room_changed = True
            if self._owner_online:
                self._on_owner()
        self._changed.set()

    def evict(self, session: Session) -> None:
        """Ends the connections of a session whose name turned out to be another's, after an outage of the store."""
        for connection, sender in self._registry.senders():
            if connection.session is session:
                _dismiss(sender, UsernameTaken(), UsernameTaken.close_code)

    def obey(self, rules: Rules) -> None:
        """The owner's rules are others, which everybody is told soon."""
        if (rules.paused, rules.slow_mode) != (self._rules.paused, self._rules.slow_mode):
            self._room_changed = True
            self._changed.set()
        self._rules = rules

    async def remove(self, is_banned: Callable[[Connection], bool]) -> None:
        """Ends the connections of all who are banned.

        Connections that open meanwhile are not looked at: each is checked when it joins.
        """
        began = self._registry.clock()
        for connection, sender in self._registry.senders():
            if is_banned(connection):
                _dismiss(sender, Banned(), CloseCode.REMOVED)
            if self._registry.clock() - began > REMOVAL_STEP:
                await asyncio.sleep(0)
                began = self._registry.clock()

    async def send_away(self, spread: float) -> None:
        """Tells everybody to come back (1012), over `spread` seconds."""
        senders = [sender for _, sender in self._registry.senders()]
        ends = self._registry.clock() + spread
        while senders:
            turns = max(1, int((ends - self._registry.clock()) / FAREWELL_STEP))
            for _ in range(-(-len(senders) // turns)):
                senders.pop().close(CloseCode.RESTART)
            await asyncio.sleep(FAREWELL_STEP if senders else 0)

    def begin_anew(self, is_banned: Callable[[Connection], bool], spread: float | None) -> None:
        """The store is another one now: removes all who are banned in it, and sends the others away. Does not wait.

        `spread`: seconds, None for at once, so that nobody who is here hears anything more.
        """
        if spread is None:
            for connection, sender in self._registry.senders():
                if is_banned(connection):
                    _dismiss(sender, Banned(), CloseCode.REMOVED)
                sender.close(CloseCode.RESTART)
            return

        async def run(spread: float) -> None:
            await self.remove(is_banned)
            await self.send_away(spread)

        if self._farewell:
            self._farewell.cancel()
        self._farewell = tasks.spawn(run(spread), "farewell")

    async def _tell(self) -> None:
        while True:
            metrics.users.set(self._presence.users)
            await self._changed.wait()
            await asyncio.sleep(DELAY)
            self._changed.clear()
            news = [self.count_frame()]
            if self._room_changed:
                self._room_changed = False
                news.append(frames.encode(frames.RoomFrame(data=self.room())))
            for _ in self._registry.broadcast(PreparedFrames(news)):
                await asyncio.sleep(0)

    def count_frame(self) -> bytes:
        """How many are here."""
        return frames.encode(frames.UserCountFrame(data=frames.UserCountData(count=self._presence.users)))

    def room(self) -> frames.RoomData:
        """How the room is."""
        return frames.RoomData(
            paused=self._rules.paused, slow_mode=self._rules.slow_mode, owner_online=self._presence.owner_online
        )


def _dismiss(sender: Sender, why: ChatError, code: CloseCode) -> None:
    sender.write(PreparedFrames([frames.error_frame(why)]))
    sender.close(code)
