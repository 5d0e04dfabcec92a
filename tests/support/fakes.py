"""Stand-ins for what surrounds the room, with time and sockets in the test's own hands."""

from __future__ import annotations

import asyncio
import functools
import json
import uuid
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

from app.chat.registry import Connection, ConnectionRegistry
from app.engines.presence import Session
from app.exceptions import CloseCode
from app.message import Draft
from app.wire.frames import PreparedFrames

T = TypeVar("T")

decoded = functools.lru_cache(maxsize=50_000)(json.loads)  # a broadcast frame is the same for everyone


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class FakeSender:
    """Keeps what is written to it, decoded."""

    def __init__(self) -> None:
        self.frames: list[dict[str, Any]] = []
        self.sizes: list[int] = []  # bytes, frame by frame
        self.code: CloseCode | None = None
        self._written = asyncio.Event()

    @property
    def closed(self) -> bool:
        return self.code is not None

    def write(self, prepared: PreparedFrames) -> None:
        if self.code is None:
            self.frames += [decoded(frame) for frame in prepared.frames]
            self.sizes += [len(frame) for frame in prepared.frames]
            self._written.set()

    def close(self, code: CloseCode) -> None:
        self.code = self.code or code
        self._written.set()

    async def release(self) -> None:
        self.code = self.code or CloseCode.NORMAL

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The frames of one type, so far."""
        return [frame for frame in self.frames if frame["type"] == kind]

    async def closed_with(self, code: CloseCode) -> None:
        """Returns when it was closed, and fails when that was with another code."""
        async with asyncio.timeout(5):
            while self.code is None:
                self._written.clear()
                await self._written.wait()
        assert self.code is code

    async def until(self, kind: str, count: int = 1) -> list[dict[str, Any]]:
        """The frames of one type, as soon as there are that many."""
        async with asyncio.timeout(5):
            while len(self.of(kind)) < count:
                self._written.clear()
                await self._written.wait()
        return self.of(kind)


def draft(text: str, nonce: str | None = None, session: str = "session", timestamp: float = 1e9) -> Draft:
    """A draft with an id of its own."""
    return Draft(str(uuid.uuid4()), session, "ada", text, text, timestamp, nonce)


def add(registry: ConnectionRegistry, username: str) -> Connection:
    """A slot for somebody."""
    registry.check_capacity(None)
    return registry.add(Session(username, "a"), None)


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return cast(T, end.value)
    raise AssertionError("it waited")
