"""Visitors who come to a presence and go, what it tells of them, and a Redis that can be cut off."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from app.engines.presence import Event, Presence, Session
from app.engines.redis.client import RedisClient
from app.exceptions import StoreError


class Visitors:
    """A presence with those who come to it, and all that it has told its listener."""

    def __init__(self, presence: Presence) -> None:
        self.presence = presence
        self.announced: list[str] = []
        self.counts: list[int] = []
        self.evicted: list[Session] = []
        self._changed = asyncio.Event()

    def announce(self, event: Event, username: str) -> None:
        self.announced.append(f"{username} {event.removeprefix('user_')}")
        self._changed.set()

    def users_changed(self) -> None:
        self.counts.append(self.presence.users)
        self._changed.set()

    def evict(self, session: Session) -> None:
        self.evicted.append(session)
        self._changed.set()

    async def come(self, name: str, address: str = "a", token: str = "", limit_key: str | None = None) -> Session:
        """One more connection. With a token, which is the session's id, its client knows tokens."""
        newcomer = Session(name, address, supports_tokens=bool(token), limit_key=limit_key)
        newcomer.id = token or newcomer.id
        return await self.presence.claim(newcomer)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Returns when a condition holds, which is looked at whenever something is told."""
        async with asyncio.timeout(10):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def until_announced(self, *announced: str) -> None:
        """Returns when exactly this has been announced, in this order."""
        await self.until(lambda: len(self.announced) >= len(announced))
        assert self.announced == list(announced)

    async def until_counted(self, users: int) -> None:
        """Returns when so many users are counted."""
        await self.until(lambda: self.presence.users == users)


class RedisLine(RedisClient):
    """The presence's way to Redis, which a test can cut. `calls`: keys and arguments of all answered presence calls."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.cut = False
        self.calls: list[tuple[Any, Any]] = []
        self._called = asyncio.Event()

    async def ask(self, answer: Awaitable[Any]) -> Any:
        reply = await super().ask(answer)
        if self.cut:
            raise StoreError("no answer")
        return reply

    async def run(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        if self.cut:
            raise StoreError("no answer")
        reply = await super().run(script, keys, arguments)
        if script == "presence":
            self.calls.append((keys, arguments))
            self._called.set()
        return reply

    async def next_call(self) -> None:
        """Returns when one more call has been answered."""
        seen = len(self.calls)
        async with asyncio.timeout(10):
            while len(self.calls) == seen:
                self._called.clear()
                await self._called.wait()
