"""Engines under test: a listener that records what it is told, and a store that fails or hangs when it is told to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from app.engines.engine import Engine, EngineTiming
from app.engines.memory import MemoryStore
from app.engines.redis.client import RedisClient
from app.engines.redis.store import RedisStore
from app.engines.sqlite import SQLiteStore
from app.engines.store import By, Opened, Query, Store, Stored
from app.exceptions import ChatError
from app.message import Change, Deletion, Draft, Message
from tests.support.fakes import draft

T = TypeVar("T")

BATCH_BYTES = 500_000


class FaultyStore:
    """A store, which `fault` makes fail, and `flowing` hang while it is not set. `drafts`: how many each append had."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.fault: Exception | None = None
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.entered = asyncio.Event()
        self.drafts: list[int] = []

    async def _pass(self, work: Callable[[], Awaitable[T]]) -> T:
        self.entered.set()
        await self.flowing.wait()
        if self.fault:
            raise self.fault
        return await work()

    async def open(self) -> Opened:
        return await self.store.open()

    async def append(self, drafts: Sequence[Draft]) -> list[Message]:
        self.drafts.append(len(drafts))
        return await self._pass(lambda: self.store.append(drafts))

    async def apply(self, change: Change) -> Change | None:
        return await self._pass(lambda: self.store.apply(change))

    async def find(self, query: Query) -> list[Message]:
        return await self._pass(lambda: self.store.find(query))

    def feed(self) -> AsyncIterator[Stored]:
        return self.store.feed()

    async def tidy(self) -> bool:
        return await self._pass(self.store.tidy)

    async def close(self) -> None:
        await self.store.close()

    async def probed(self, times: int) -> None:
        """Waits until an append without drafts has been tried so many times, and its outcome is noted."""
        seen = len(self.drafts)
        async with asyncio.timeout(5):
            while self.drafts[seen:].count(0) < times:
                self.entered.clear()
                await self.entered.wait()
        for _ in range(10):
            await asyncio.sleep(0.001)


class Recorder:
    """An engine with a listener: what it delivered, and what it answered.

    `order` is that of everything: `3` for a message, `-3` for its deletion.
    """

    client: RedisClient  # of a worker in Redis

    def __init__(self, store: Store, timing: EngineTiming | None = None) -> None:
        self.store = FaultyStore(store)
        self.engine = Engine(self.store, BATCH_BYTES, timing)
        self.opened: list[Opened] = []
        self.delivered: list[Message] = []
        self.answers: list[Message | ChatError] = []
        self.batches: list[int] = []
        self.changes: list[Change] = []
        self.order: list[int] = []
        self.outages = 0
        self.changed = asyncio.Event()
        self.busy = asyncio.Event()  # a delivery waits
        self.flowing = asyncio.Event()  # when not set, deliveries wait
        self.flowing.set()

    async def start(self) -> Recorder:
        self.on_reset(await self.engine.open())
        self.engine.start(self)
        return self

    async def stop(self) -> None:
        """Stops the engine. Closes the store, too, where the engine gave that up because something took too long."""
        await self.engine.stop()
        await self.store.close()

    async def on_messages(self, messages: Sequence[Message]) -> None:
        if not self.flowing.is_set():
            self.busy.set()
            await self.flowing.wait()
        self.delivered += messages
        self.order += [message.seq for message in messages]
        self.batches.append(len(messages))
        self.changed.set()

    async def on_change(self, change: Change) -> None:
        self.changes.append(change)
        self.order += [-deletion.seq for deletion in change.deletions]
        self.changed.set()

    def on_reset(self, opened: Opened) -> None:
        self.opened.append(opened)
        self.delivered = list(opened.messages)

    def on_outage(self) -> None:
        self.outages += 1

    def answer(self, answer: Message | ChatError) -> None:
        self.answers.append(answer)
        self.changed.set()

    def publish(self, *drafts: Draft) -> None:
        for new in drafts:
            self.engine.publish(new, self.answer)

    async def until(self, delivered: int = 0, answered: int = 0) -> None:
        async with asyncio.timeout(5):
            while len(self.delivered) < delivered or len(self.answers) < answered:
                self.changed.clear()
                await self.changed.wait()

    async def fill(self, count: int) -> list[Message]:
        """Posts as Ada and bob in turns."""
        names = ("bob", "Ada")
        self.publish(*[by(names[number % 2], f"{number}", f"n{number}") for number in range(1, count + 1)])
        await self.until(delivered=count)
        return list(self.delivered)

    async def page(self, after: int = 0, limit: int = 1000) -> list[int]:
        """The seqs of the oldest messages after one."""
        return [message.seq for message in await self.engine.find(Query(after=after, limit=limit))]

    async def find(self, by: By, value: str, limit: int = 1000) -> list[Message]:
        return await self.engine.find(Query(limit=limit, newest=True, by=by, value=value))

    async def delete(self, by: By, value: str) -> int:
        """How many messages were deleted."""
        found = await self.find(by, value)
        done = await self.engine.apply(Change(tuple(Deletion(message.seq, message.id) for message in found)))
        return len(done.deletions) if done else 0

    async def prune(self, seq: int) -> Change | None:
        return await self.engine.apply(Change(pruned=seq))

    async def replace_rules(self, old: str, new: str) -> bool:
        return await self.engine.apply(Change(rules=new, old_rules=old)) is not None

    def healthy(self) -> bool:
        return self.engine.healthy

    @property
    def epoch(self) -> str:
        return self.opened[-1].epoch

    @property
    def texts(self) -> list[str]:
        return [message.text for message in self.delivered]

    @property
    def seqs(self) -> list[int]:
        return [message.seq for message in self.delivered]

    @property
    def refusals(self) -> list[type[object]]:
        return [type(answer) for answer in self.answers]


def by(name: str, text: str, nonce: str | None = None) -> Draft:
    """A draft of somebody, whose session is the name in small letters."""
    plain = draft(text, nonce, session=name.lower(), timestamp=time.time())
    return Draft(plain.id, plain.session, name, text, text, plain.timestamp, nonce)


def sqlite_store(directory: Path, keep: int = 100, lock_timeout: float = 5.0) -> SQLiteStore:
    return SQLiteStore(str(directory / "new" / "chat.db"), keep, lock_timeout)


def make_store(kind: str, request: pytest.FixtureRequest, directory: Path) -> Store:
    """A new store of a kind: memory, sqlite or redis."""
    if kind == "redis":
        return RedisStore(RedisClient(request.getfixturevalue("redis_url")), 100)
    return sqlite_store(directory) if kind == "sqlite" else MemoryStore()


def redis_worker(
    url: str, keep: int = 100, read_timeout: float = 0.05, timing: EngineTiming | None = None, **options: Any
) -> Recorder:
    """One more worker in a room in Redis, which notices everything soon. `options`: of the store."""
    client = RedisClient(url, read_timeout)
    room = Recorder(RedisStore(client, keep, **{"retry": 0.01, **options}), timing)
    room.client = client
    return room
