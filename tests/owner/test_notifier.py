"""When the owner is notified of which messages, by one worker and by many, on a clock of the test's own."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator

import pytest

from app import tasks
from app.engines.claim import LocalClaim, NotificationClaim
from app.exceptions import StoreError
from app.message import Message
from app.owner.formats import Notification
from app.owner.notifier import RETRY, Notifier
from app.owner.webhook import Webhook
from tests.support.fakes import Clock
from tests.support.receiver import Receiver

pytestmark = pytest.mark.anyio

QUIET = 300.0


def message(seq: int, role: str = "visitor") -> Message:
    return Message(str(seq), "session", f"user{seq}", "", f"text {seq}", 1e9 + seq, None, role, seq)


class World:
    """Notifiers that share a clock, and an owner who gets their notifications."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.notifications: list[Notification] = []
        self.sent: list[bool] = []
        self.works = True
        self._sleepers: list[tuple[float, asyncio.Event]] = []
        self._tasks: list[asyncio.Task[None]] = []

    def notifier(self, claim: NotificationClaim | None = None) -> Notifier:
        """One that runs."""
        claim = claim or LocalClaim(QUIET, self.clock)
        one = Notifier(self.send, claim, "https://example.com", self.sent.append, self.sleep)
        self._tasks.append(tasks.spawn(one.run(), "notifier"))
        return one

    async def send(self, notification: Notification) -> bool:
        self.notifications.append(notification)
        return self.works

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        over = asyncio.Event()
        self._sleepers.append((self.clock.now + seconds, over))
        await over.wait()

    async def settle(self) -> None:
        """Lets everything happen that needs no time."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def wait(self, seconds: float) -> None:
        """Lets time pass."""
        await self.settle()
        self.clock.now += seconds
        for until, over in self._sleepers:
            if until <= self.clock.now:
                over.set()
        await self.settle()

    async def counts(self) -> list[tuple[str, int]]:
        """Last user and count of each notification so far."""
        await self.settle()
        return [(notification.username, notification.count) for notification in self.notifications]

    async def stop(self) -> None:
        for task in self._tasks:
            await tasks.end(task)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    one = World()
    yield one
    await one.stop()


async def test_owner_is_notified_of_the_first_message_at_once(world: World) -> None:
    notifier = world.notifier()
    notifier.add([message(1)])
    await world.settle()
    assert world.notifications == [Notification("user1", "text 1", 1e9 + 1, 1, "https://example.com")]
    assert world.sent == [True]


async def test_batch_is_one_notification_of_its_last_message(world: World) -> None:
    world.notifier().add([message(1), message(2), message(3)])
    assert await world.counts() == [("user3", 3)]


async def test_messages_of_a_quiet_time_are_one_notification_at_its_end(world: World) -> None:
    notifier = world.notifier()
    notifier.add([message(1)])
    await world.wait(100)
    notifier.add([message(2)])
    notifier.add([message(3)])
    await world.wait(QUIET - 101)
    assert await world.counts() == [("user1", 1)]
    await world.wait(1)
    assert await world.counts() == [("user1", 1), ("user3", 2)]


async def test_that_notification_begins_a_quiet_time_too(world: World) -> None:
    notifier = world.notifier()
    notifier.add([message(1)])
    await world.wait(200)
    notifier.add([message(2)])
    await world.wait(100)
    assert await world.counts() == [("user1", 1), ("user2", 1)]
    notifier.add([message(3)])
    await world.wait(QUIET - 1)
    assert await world.counts() == [("user1", 1), ("user2", 1)]
    await world.wait(1)
    assert await world.counts() == [("user1", 1), ("user2", 1), ("user3", 1)]


async def test_message_after_a_quiet_time_without_any_is_sent_at_once(world: World) -> None:
    notifier = world.notifier()
    notifier.add([message(1)])
    await world.wait(QUIET)
    notifier.add([message(2)])
    assert await world.counts() == [("user1", 1), ("user2", 1)]


async def test_owner_who_comes_is_not_notified_of_earlier_messages(world: World) -> None:
    notifier = world.notifier()
    notifier.add([message(1)])
    await world.wait(10)
    notifier.add([message(2)])
    await world.wait(10)
    notifier.clear()
    await world.wait(QUIET)
    assert await world.counts() == [("user1", 1)]
    notifier.add([message(5)])
    assert await world.counts() == [("user1", 1), ("user5", 1)]


async def test_owner_who_came_and_went_is_notified_only_of_later_messages(world: World) -> None:
    notifier = world.notifier()
    for seq in (1, 2, 3):
        notifier.add([message(seq)])
        await world.settle()
    notifier.clear()
    notifier.add([message(4)])
    await world.wait(QUIET)
    assert await world.counts() == [("user1", 1), ("user4", 1)]


async def test_owner_is_not_notified_of_own_messages(world: World) -> None:
    notifier = world.notifier()
    notifier.add([message(1, "owner")])
    notifier.add([])
    assert await world.counts() == []
    notifier.add([message(2, "owner"), message(3), message(4, "owner")])
    assert await world.counts() == [("user3", 1)]


async def test_owner_is_not_notified_of_deleted_messages(world: World) -> None:
    notifier = world.notifier()
    notifier.add([message(2)])
    await world.settle()
    notifier.add([message(3), message(4), message(5)])
    notifier.remove({3, 5})
    await world.wait(QUIET)
    assert await world.counts() == [("user2", 1), ("user4", 1)]
    notifier.add([message(6)])
    notifier.remove({6})
    await world.wait(QUIET)
    assert await world.counts() == [("user2", 1), ("user4", 1)]


async def test_no_quiet_time_means_a_notification_for_each_batch(world: World) -> None:
    notifier = world.notifier(LocalClaim(0.0, world.clock))
    for seq in (1, 2, 3):
        notifier.add([message(seq)])
        await world.settle()
    assert await world.counts() == [("user1", 1), ("user2", 1), ("user3", 1)]


async def test_flood_is_counted_up_to_a_thousand(world: World) -> None:
    notifier = world.notifier()
    for seq in range(1, 1501):
        notifier.add([message(seq)])
    assert await world.counts() == [("user1500", 1000)]


async def test_many_workers_send_one_notification(world: World) -> None:
    claim = LocalClaim(QUIET, world.clock)
    workers = [world.notifier(claim) for _ in range(4)]
    for worker in workers:
        worker.add([message(1)])
    assert await world.counts() == [("user1", 1)]
    for worker in workers:
        worker.add([message(2)])
        worker.add([message(3)])
    await world.wait(QUIET)
    assert await world.counts() == [("user1", 1), ("user3", 2)]
    await world.wait(QUIET)
    assert len(world.notifications) == 2
    workers[3].add([message(4)])
    assert await world.counts() == [("user1", 1), ("user3", 2), ("user4", 1)]


async def test_late_worker_repeats_nothing_and_begins_no_quiet_time(world: World) -> None:
    claim = LocalClaim(QUIET, world.clock)
    early, late = world.notifier(claim), world.notifier(claim)
    early.add([message(1), message(2)])
    await world.wait(QUIET + 1)
    late.add([message(1)])
    late.add([message(2)])
    await world.settle()
    late.add([message(3)])
    assert await world.counts() == [("user2", 2), ("user3", 1)]


@pytest.mark.parametrize("seed", range(20))
async def test_every_message_is_counted_once_however_late_workers_are(world: World, seed: int) -> None:
    dice = random.Random(seed)
    claim = LocalClaim(5.0, world.clock)
    workers = [(world.notifier(claim), iter(range(1, 51))) for _ in range(3)]
    for _ in range(400):
        worker, seqs = dice.choice(workers)
        batch = [message(seq) for seq in (next(seqs, None) for _ in range(dice.randint(1, 3))) if seq]
        worker.add(batch)
        if dice.random() < 0.3:
            await world.wait(dice.random())
    await world.wait(6)
    await world.wait(6)
    assert sum(one.count for one in world.notifications) == 50
    assert world.notifications[-1].username == "user50"
    assert [one.timestamp for one in world.notifications] == sorted({one.timestamp for one in world.notifications})


class SlowClaim:
    """Answers what the test puts into `answers`."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.answers: asyncio.Queue[tuple[float, int] | StoreError] = asyncio.Queue()

    async def __call__(self, seq: int) -> tuple[float, int]:
        self.asked.append(seq)
        answer = await self.answers.get()
        if isinstance(answer, StoreError):
            raise answer
        return answer


async def test_message_that_comes_during_a_claim_is_left_for_the_next(world: World) -> None:
    claim = SlowClaim()
    notifier = world.notifier(claim)
    notifier.add([message(1)])
    await world.settle()
    notifier.add([message(2)])
    claim.answers.put_nowait((0.0, 0))
    assert await world.counts() == [("user1", 1)]
    assert claim.asked == [1, 2]
    claim.answers.put_nowait((0.0, 1))
    assert await world.counts() == [("user1", 1), ("user2", 1)]


async def test_owner_who_comes_during_a_claim_is_not_notified(world: World) -> None:
    claim = SlowClaim()
    notifier = world.notifier(claim)
    notifier.add([message(1)])
    await world.settle()
    notifier.clear()
    claim.answers.put_nowait((0.0, 0))
    assert await world.counts() == []


async def test_store_that_fails_is_asked_again_later(world: World) -> None:
    claim = SlowClaim()
    notifier = world.notifier(claim)
    notifier.add([message(1)])
    claim.answers.put_nowait(StoreError("gone"))
    await world.wait(RETRY - 1)
    notifier.add([message(2)])
    await world.settle()
    assert claim.asked == [1]
    await world.wait(1)
    assert claim.asked == [1, 2]
    claim.answers.put_nowait((0.0, 0))
    assert await world.counts() == [("user2", 2)]


async def test_notification_that_failed_is_counted_and_not_sent_again(world: World) -> None:
    world.works = False
    notifier = world.notifier()
    notifier.add([message(1)])
    await world.settle()
    assert world.sent == [False]
    world.works = True
    notifier.add([message(2)])
    await world.wait(QUIET)
    assert await world.counts() == [("user1", 1), ("user2", 1)]
    assert world.sent == [False, True]


async def test_nothing_is_sent_before_the_start_or_after_the_end(world: World) -> None:
    Notifier(world.send, LocalClaim(QUIET)).add([message(1)])
    notifier = world.notifier()
    notifier.add([message(1)])
    await world.settle()
    notifier.add([message(2)])
    await world.settle()
    await world.stop()
    notifier.add([message(3)])
    await world.wait(QUIET)
    assert await world.counts() == [("user1", 1)]


async def test_notifications_go_all_the_way(caplog: pytest.LogCaptureFixture) -> None:
    """A server that fails, works and hangs; the chat goes on and the stop waits for nobody."""
    results: asyncio.Queue[bool] = asyncio.Queue()

    async def no_time(seconds: float) -> None:
        await asyncio.sleep(0)

    async with Receiver(500, 500, 500, 204, "never") as receiver:
        hook = Webhook(receiver.url("/s3cret"), "json", sleep=no_time)
        notifier = Notifier(hook.send, LocalClaim(0.0), on_sent=results.put_nowait)
        running = tasks.spawn(notifier.run(), "notifier")
        async with asyncio.timeout(20):
            notifier.add([message(1)])
            assert not await results.get()
            notifier.add([message(2), message(3)])
            assert await results.get()
            notifier.add([message(4)])
            await receiver.until_asked(5)
            await tasks.end(running)
    assert [body["count"] for body in receiver.bodies()] == [1, 1, 1, 2, 1]
    assert results.empty()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        "The notification of a message could not be sent to 127.0.0.1: HTTP 500. Check NOTIFY_URL"
    ]
