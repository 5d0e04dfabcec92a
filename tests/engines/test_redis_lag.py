"""A worker that lags while what it has not read is pruned: it takes the room anew. All other gaps are passed over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest

from app.engines.redis.client import RedisRoom
from app.engines.redis.store import RedisEngine
from app.message import Change, Deletion, Message
from tests.support.fakes import draft
from tests.support.running import until

pytestmark = pytest.mark.anyio


class Worker:
    """One worker. `told`: all that its room is told, in order."""

    def __init__(self, url: str) -> None:
        self.engine = RedisEngine(RedisRoom(url), 100, 500_000)
        self.told: list[str] = []
        self.ids: dict[str, str] = {}  # of messages, by their text
        self._flowing = asyncio.Event()
        self._paused = asyncio.Event()

    def renew(self, past: Sequence[Message], hidden: Sequence[Deletion]) -> None:
        self.told.append(f"renewed: {' '.join(message.text for message in past)}")

    async def deliver(self, messages: Sequence[Message]) -> None:
        self.ids |= {message.text: message.id for message in messages}
        self.told += [message.text for message in messages]

    async def change(self, change: Change) -> None:
        self.told += [f"hidden: {hiding.seq}" for hiding in change.hidden]
        self.told += [f"pruned: {change.pruned}"] if change.pruned else []
        self.told += [f"rules: {change.rules}"] if change.rules else []

    def trouble(self) -> None:
        """Nothing fails here."""

    async def post(self, *texts: str) -> None:
        for text in texts:
            self.engine.publish(draft(text), lambda _: None)
        await until(lambda: set(texts) <= set(self.told))

    async def hide(self, *texts: str) -> None:
        for text in texts:
            assert await self.engine.hide("id", self.ids[text]) == 1

    async def pause(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Returns when it asks Redis for nothing more; what it is told from then on is in `told` alone."""
        read = self.engine.room.read

        async def wait(*position: Any) -> Any:
            self._paused.set()
            await self._flowing.wait()
            return await read(*position)

        monkeypatch.setattr(self.engine.room, "read", wait)
        await self._paused.wait()
        self.told.clear()

    def go_on(self) -> None:
        """Ends a pause."""
        self._flowing.set()


Start = Callable[[], Awaitable[Worker]]


@pytest.fixture
async def worker(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    """`await worker()`: one more worker in the room."""
    monkeypatch.setattr("app.engines.redis.client.READ_SECONDS", 0.05)
    started: list[Worker] = []

    async def start() -> Worker:
        started.append(Worker(redis_url))
        await started[-1].engine.start(started[-1])
        return started[-1]

    yield start
    for one in started:
        await one.engine.stop()


@pytest.fixture
async def workers(worker: Start, monkeypatch: pytest.MonkeyPatch) -> tuple[Worker, Worker]:
    """One worker that writes, and one that has read message 1 and then lags."""
    other, lagging = await worker(), await worker()
    await other.post("1")
    await until(lambda: "1" in lagging.told)
    await lagging.pause(monkeypatch)
    return other, lagging


async def test_message_that_was_pruned_unread_is_found_out(workers: tuple[Worker, Worker]) -> None:
    other, lagging = workers
    await other.post("2")
    await other.engine.prune(2)
    lagging.go_on()
    await until(lambda: lagging.told == ["renewed: "])
    await other.post("3")
    await until(lambda: lagging.told == ["renewed: ", "3"])


async def test_hiding_that_was_pruned_unread_is_found_out(workers: tuple[Worker, Worker]) -> None:
    """Its entry stood before the message that was pruned, which is the only one that is missing."""
    other, lagging = workers
    await other.hide("1")
    await other.post("2")
    await other.engine.prune(2)
    lagging.go_on()
    await until(lambda: lagging.told == ["renewed: "])


async def test_many_that_were_pruned_unread_are_found_out_before_the_next_is_told(
    workers: tuple[Worker, Worker],
) -> None:
    other, lagging = workers
    await other.hide("1")
    await other.post("2", "3", "4", "5", "6", "7", "8")
    await other.engine.prune(6)
    lagging.go_on()
    await until(lambda: lagging.told == ["renewed: 7 8"])
    await other.post("9")
    await until(lambda: lagging.told == ["renewed: 7 8", "9"])


async def test_messages_that_were_hidden_unread_are_no_loss(workers: tuple[Worker, Worker]) -> None:
    other, lagging = workers
    await other.post("2", "3", "4")
    await other.hide("2", "3", "4")
    await other.post("5")
    lagging.go_on()
    await until(lambda: lagging.told == ["hidden: 2", "hidden: 3", "hidden: 4", "5"])


async def test_rules_that_newer_ones_replaced_are_no_loss(workers: tuple[Worker, Worker]) -> None:
    other, lagging = workers
    await other.post("2")
    for old, new in (("", "a"), ("a", "b"), ("b", "c")):
        assert await other.engine.amend(old, new)
    await other.post("3")
    lagging.go_on()
    await until(lambda: lagging.told == ["2", "rules: c", "3"])


async def test_pruning_of_what_was_read_is_no_loss(workers: tuple[Worker, Worker]) -> None:
    other, lagging = workers
    await other.hide("1")
    await other.engine.prune(1)
    await other.post("2")
    lagging.go_on()
    await until(lambda: lagging.told == ["hidden: 1", "pruned: 1", "2"])


async def test_number_that_was_left_out_is_no_loss_when_it_is_pruned(worker: Start) -> None:
    """A room that lost its newest messages counts on from the newest that was seen."""
    await (await worker()).post("1")
    await (await worker()).engine.room.open("", "", 50, "", 0, "")
    late = await worker()
    await late.engine.prune(40)
    await late.post("51")
    assert late.told == ["renewed: 1", "pruned: 40", "51"]
