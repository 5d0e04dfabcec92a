"""A chat in this process: a room on a store in memory, unless a test names another one, and the visitors in it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

from app.chat.credentials import Credentials, Handshake
from app.chat.moderation import Moderation
from app.chat.registry import YIELD_AFTER, Connection, ConnectionRegistry
from app.chat.room import Room
from app.chat.rules import Rules
from app.chat.timing import RoomTiming
from app.config import Settings
from app.engines import open_backend
from app.engines.presence import LocalPresence, PresenceTiming
from app.engines.store import Opened
from app.message import Change, Message
from app.wire.client_frames import Post
from tests.support.fakes import FakeSender, at_once
from tests.support.running import UNLIMITED

# Visitors who leave have left, and changes are announced, at the event loop's next turn.
AT_ONCE: dict[str, Any] = {
    "timing": RoomTiming(announce_delay=0, rules_retry=0, delete_pause=0),
    "presence": PresenceTiming(leave_delay=0),
}


class Visitor:
    """A client in a room, and everything that it was sent."""

    def __init__(self, room: Room, handshake: Handshake, epoch: str | None, since: str | None) -> None:
        self.room = room
        self.sender = FakeSender()
        self.connection: Connection = at_once(room.admit(handshake))
        room.join(self.connection, self.sender, epoch, since)

    def post(self, text: str, nonce: str | None = None) -> None:
        """Sends a message, and does not wait until it is stored."""
        self.room.post(self.connection, self.sender, Post(type="message", content=text, nonce=nonce))

    async def leave(self) -> None:
        """Ends the connection."""
        self.room.leave(self.connection)
        await self.sender.release()

    @property
    def history(self) -> dict[str, Any]:
        """The first frame."""
        return self.sender.frames[0]

    @property
    def seqs(self) -> list[int]:
        """Of all messages that it knows: those of the history, then those that came live."""
        live = [frame["data"] for frame in self.sender.of("message")]
        return [data["seq"] for data in self.history["data"] + live]

    @property
    def events(self) -> list[tuple[str, str]]:
        """The joins and leaves that were announced to it."""
        return [(frame["data"]["event"], frame["data"]["user"]) for frame in self.sender.of("system")]

    @property
    def counts(self) -> list[int]:
        """The numbers of users that it was sent."""
        return [frame["data"]["count"] for frame in self.sender.of("user_count")]


class FakeNotifications:
    """Keeps what the owner may be notified of."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.removed: set[int] = set()
        self.cleared = 0

    def add(self, messages: Sequence[Message]) -> None:
        self.texts += [message.text for message in messages]

    def remove(self, seqs: Collection[int]) -> None:
        self.removed.update(seqs)

    def clear(self) -> None:
        self.cleared += 1


class RunningChat:
    """A room with its store, presence and registry. `room` and `moderation` are there once it is started."""

    room: Room
    opened: Opened

    def __init__(
        self,
        timing: RoomTiming | None = None,
        presence: PresenceTiming | None = None,
        yield_after: float = YIELD_AFTER,
        **settings: Any,
    ) -> None:
        self.settings = settings_of(**settings)
        self.timing = timing
        self.registry = ConnectionRegistry(self.settings.ws_max_connections, yield_after=yield_after)
        self.presence = LocalPresence(self.settings.owner_username, timing=presence or PresenceTiming())
        self.backend = open_backend(self.settings)._replace(presence=self.presence)
        self.engine = self.backend.engine
        self.notifications = FakeNotifications()

    async def start(self) -> None:
        """Opens the store, and the room on it."""
        self.opened = await self.engine.open()
        self.room = Room(self.settings, self.registry, self.backend, self.opened, self.notifications, self.timing)
        await self.room.start()

    @property
    def moderation(self) -> Moderation:
        return self.room.moderation

    def join(
        self,
        name: str = "ada",
        address: str = "a",
        limit_key: str | None = None,
        subprotocols: tuple[str, ...] = (),
        epoch: str | None = None,
        since: int | str | None = None,
    ) -> Visitor:
        """A visitor who comes in. `since` may be anything that a client can write."""
        handshake = Handshake(name, address, limit_key, subprotocols)
        return Visitor(self.room, handshake, epoch, None if since is None else str(since))

    async def fill(self, count: int, text: str = "Hello", name: str = "writer") -> None:
        """Stores so many messages of one visitor, who leaves."""
        writer = self.join(name)
        for _ in range(count):
            writer.post(text)
        await writer.sender.until("message", count)
        await writer.leave()

    async def replace_rules(self, rules: Rules) -> None:
        """Stores other rules of the owner's."""
        assert await self.engine.apply(Change(rules=rules.text(), old_rules=self.engine.rules))

    def reset(self, **changes: Any) -> None:
        """Resets the room, as the engine does: to another store, or with the same epoch because it missed something.

        `changes`: of the fields of Opened, which else are as at the start.
        """
        opened = self.opened._replace(**changes)
        self.engine.seq, self.engine.pruned, self.engine.rules = opened.seq, opened.pruned, opened.rules
        self.room.on_reset(opened)


StartChat = Callable[..., Awaitable[RunningChat]]


def settings_of(**changes: Any) -> Settings:
    """Settings for a store in memory, without the limits that the tests' clients would exceed."""
    unlimited = {name.lower(): int(value) for name, value in UNLIMITED.items()}
    return Settings.model_validate({"engine_url": "memory://", **unlimited, **changes})


class Ruled:
    """A moderation whose store is not opened, and holds the rules that a test sets."""

    def __init__(self, settings: Settings, rules: Rules) -> None:
        backend = open_backend(settings)
        self._engine = backend.engine
        self._engine.rules = rules.text()
        self.credentials = Credentials(settings, "secret")
        self.moderation = Moderation(settings, backend, self.credentials, RoomTiming())

    def set(self, rules: Rules) -> None:
        """The rules are others now."""
        self._engine.rules = rules.text()
        self.moderation.on_rules()


async def settle() -> None:
    """Lets everything happen that needs no time."""
    for _ in range(20):
        await asyncio.sleep(0)
