"""A worker that lags while what it has not read is pruned: it takes the room anew. All other gaps are passed over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest

from app.engines.redis.client import PREFIX, RedisClient
from app.engines.redis.store import RedisStore
from app.engines.store import Opened
from app.message import Change, Message
from tests.support.engines import Recorder
from tests.support.fakes import draft
from tests.support.running import until

pytestmark = pytest.mark.anyio


class Worker(Recorder):
    """One worker. `events`: all that its listener is told, in order."""

    def __init__(self, url: str) -> None:
        client = RedisClient(url, read_timeout=0.05)
        super().__init__(RedisStore(client, 100))
        self.client = client
        self.events: list[str] = []
        self.ids: dict[str, str] = {}  # of messages, by their text
        self._flowing = asyncio.Event()
        self._paused = asyncio.Event()

    def on_reset(self, opened: Opened) -> None:
        super().on_reset(opened)
        self.events.append(f"reset: {' '.join(message.text for message in opened.messages)}")

    async def on_messages(self, messages: Sequence[Message]) -> None:
        self.ids |= {message.text: message.id for message in messages}
        self.events += [message.text for message in messages]

    async def on_change(self, change: Change) -> None:
        self.events += [f"deleted: {deletion.seq}" for deletion in change.deletions]
        self.events += [f"pruned: {change.pruned}"] if change.pruned else []
        self.events += [f"rules: {change.rules}"] if change.rules else []

    async def post(self, *texts: str) -> None:
        for text in texts:
            self.publish(draft(text))
        await until(lambda: set(texts) <= set(self.events))

    async def delete_texts(self, *texts: str) -> None:
        for text in texts:
            assert await self.delete("id", self.ids[text]) == 1

    async def pause(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Returns when it reads nothing more from Redis; what it is told from then on is in `events` alone."""
        xread = self.client.reader.xread

        async def wait(*arguments: Any, **options: Any) -> Any:
            self._paused.set()
            await self._flowing.wait()
            return await xread(*arguments, **options)

        monkeypatch.setattr(self.client.reader, "xread", wait)
        await self._paused.wait()
        self.events.clear()

    def go_on(self) -> None:
        """Ends a pause."""
        self._flowing.set()


Start = Callable[[], Awaitable[Worker]]


@pytest.fixture
async def worker(redis_url: str) -> AsyncIterator[Start]:
    """`await worker()`: one more worker in the room."""
    started: list[Worker] = []

    async def start() -> Worker:
        started.append(Worker(redis_url))
        await started[-1].start()
        return started[-1]

    yield start
    for one in started:
        await one.stop()


@pytest.fixture
async def workers(worker: Start, monkeypatch: pytest.MonkeyPatch) -> tuple[Worker, Worker]:
    """One worker that writes, and one that has read message 1 and then lags."""
    other, lagging = await worker(), await worker()
    await other.post("1")
    await until(lambda: "1" in lagging.events)
    await lagging.pause(monkeypatch)
    return other, lagging


async def test_message_that_was_pruned_unread_is_found_out(workers: tuple[Worker, Worker]) -> None:
    other, lagging = workers
    await other.post("2")
    await other.prune(2)
    lagging.go_on()
    await until(lambda: lagging.events == ["reset: "])
    await other.post("3")
    await until(lambda: lagging.events == ["reset: ", "3"])


async def test_deletion_that_was_pruned_unread_is_found_out(workers: tuple[Worker, Worker]) -> None:
    """Its entry stood before the message that was pruned, which is the only one that is missing."""
    other, lagging = workers
    await other.delete_texts("1")
    await other.post("2")
    await other.prune(2)
    lagging.go_on()
    await until(lambda: lagging.events == ["reset: "])


async def test_many_that_were_pruned_unread_are_found_out_before_the_next_is_delivered(
    workers: tuple[Worker, Worker],
) -> None:
    other, lagging = workers
    await other.delete_texts("1")
    await other.post("2", "3", "4", "5", "6", "7", "8")
    await other.prune(6)
    lagging.go_on()
    await until(lambda: lagging.events == ["reset: 7 8"])
    await other.post("9")
    await until(lambda: lagging.events == ["reset: 7 8", "9"])


async def test_messages_that_were_deleted_unread_are_no_loss(workers: tuple[Worker, Worker]) -> None:
    other, lagging = workers
    await other.post("2", "3", "4")
    await other.delete_texts("2", "3", "4")
    await other.post("5")
    lagging.go_on()
    await until(lambda: lagging.events == ["deleted: 2", "deleted: 3", "deleted: 4", "5"])


async def test_rules_that_newer_ones_replaced_are_no_loss(workers: tuple[Worker, Worker]) -> None:
    other, lagging = workers
    await other.post("2")
    for old, new in (("", "a"), ("a", "b"), ("b", "c")):
        assert await other.replace_rules(old, new)
    await other.post("3")
    lagging.go_on()
    await until(lambda: lagging.events == ["2", "rules: c", "3"])


async def test_pruning_of_what_was_read_is_no_loss(workers: tuple[Worker, Worker]) -> None:
    other, lagging = workers
    await other.delete_texts("1")
    await other.prune(1)
    await other.post("2")
    lagging.go_on()
    await until(lambda: lagging.events == ["deleted: 1", "pruned: 1", "2"])


async def test_number_that_was_left_out_is_no_loss_when_it_is_pruned(worker: Start) -> None:
    """A room that lost its newest messages counts on from the newest that was seen."""
    await (await worker()).post("1")
    await (await worker()).client.run("open", ["room"], [PREFIX, "fresh", "", "", 50, "", "", 0])
    late = await worker()
    await late.prune(40)
    await late.post("51")
    assert late.events == ["reset: 1", "pruned: 40", "51"]
