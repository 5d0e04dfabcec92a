"""Who is here, over several workers on a real Redis: names, counts, announcements, and workers that die."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from app.engines.presence import Session
from app.engines.redis import presence
from app.engines.redis.client import RedisRoom
from app.engines.redis.presence import RedisPresence
from app.engines.redis.store import RedisEngine
from app.exceptions import StoreError, UsernameTaken
from tests.support.fakes import draft
from tests.support.running import until

pytestmark = pytest.mark.anyio


class Worker:
    """One worker's engine and presence, and what the presence tells."""

    def __init__(self, url: str) -> None:
        self.engine = RedisEngine(RedisRoom(url), 10, 500_000)
        self.presence = RedisPresence(self.engine, announce_limit=10, owner="owner")
        self.events: list[str] = []
        self.evicted: list[Session] = []
        self.run_presence = self.engine.room.run_presence

    def renew(self, past: object, hidden: object) -> None:
        """Nothing is remembered here."""

    async def change(self, change: object) -> None:
        """Nothing is changed here."""

    def trouble(self) -> None:
        """Nobody is told here."""

    async def deliver(self, messages: object) -> None:
        """Nobody reads here."""

    def announce(self, event: str, username: str) -> None:
        self.events.append(f"{username} {event.removeprefix('user_')}")

    def users_changed(self) -> None:
        """The count is looked at directly."""

    def evict(self, session: Session) -> None:
        self.evicted.append(session)

    async def come(self, name: str, address: str = "a", proof: str = "") -> Session:
        """A newcomer; one with a proof knows tokens."""
        newcomer = Session(name, address, proof, True) if proof else Session(name, address)
        return await self.presence.claim(newcomer)

    def cut_off(self) -> None:
        """From now on Redis does not answer."""

        async def silence(*_: object) -> Any:
            raise StoreError("no answer")

        self.engine.room.run_presence = silence  # type: ignore[assignment, method-assign] # a stand-in

    def reconnect(self) -> None:
        """Redis answers again."""
        self.engine.room.run_presence = self.run_presence  # type: ignore[method-assign] # the real one


Start = Callable[[], Awaitable[Worker]]


@pytest.fixture
async def worker(monkeypatch: pytest.MonkeyPatch, redis_url: str) -> AsyncIterator[Start]:
    """`await worker()`: one more worker in the room, whose clocks all go fast."""
    times = {"LEASE": 1.0, "BEAT": 0.05, "LEAVE_DELAY": 0.1, "HOLD": 0.5, "RETRY": 0.01, "CLAIM_PATIENCE": 0.1}
    for name, seconds in times.items():
        monkeypatch.setattr(presence, name, seconds)
    workers: list[Worker] = []

    async def start() -> Worker:
        workers.append(Worker(redis_url))
        await workers[-1].engine.start(workers[-1])
        await workers[-1].presence.start(workers[-1])
        return workers[-1]

    yield start
    for one in workers:
        one.reconnect()
        await one.presence.stop()
        await one.engine.stop()


async def counted(users: int, *workers: Worker) -> None:
    """Waits until all workers count so many users."""
    await until(lambda: [one.presence.users for one in workers] == [users] * len(workers), 5)


async def test_what_was_said_before_the_owner_came_or_left_counts_as_told(worker: Start) -> None:
    one, two = await worker(), await worker()
    room, told = one.engine.room, []
    await room.store(one.engine.epoch, [draft("one")], 0)
    owner = await one.come("owner")
    await until(lambda: two.presence.owner_online)
    told.append(await room.claim_notice(1, 60))
    await room.store(one.engine.epoch, [draft("two")], 1)
    one.presence.release(owner)
    await until(lambda: not two.presence.owner_online)
    told.append(await room.claim_notice(2, 60))
    told.append(await room.claim_notice(3, 60))
    assert told == [(0.0, 1), (0.0, 2), (0.0, 2)]


async def test_user_on_two_workers_counts_once_and_stays_until_the_last_goes(worker: Start) -> None:
    one, two = await worker(), await worker()
    first, second = await one.come("Ada"), await two.come("aDA")
    assert (second.username, second.id) == ("Ada", first.id)
    await two.come("bob")
    await counted(2, one, two)
    one.presence.release(first)
    await one.come("eve")
    await counted(3, one, two)
    two.presence.release(second)
    await counted(2, one, two)


async def test_name_is_refused_on_every_worker(worker: Start) -> None:
    one, two = await worker(), await worker()
    await one.come("ada")
    for here in (one, two):
        with pytest.raises(UsernameTaken):
            await here.come("ADA", "b")
    assert await two.come("bob", "b")
    await counted(2, one, two)


async def test_each_worker_announces_once_who_comes_and_goes(worker: Start) -> None:
    one, two = await worker(), await worker()
    ada = await one.come("ada")
    await two.come("ada")
    bob = await two.come("bob")
    two.presence.release(bob)
    await until(lambda: "bob left" in one.events and "bob left" in two.events)
    one.presence.release(ada)
    await one.come("eve")
    await until(lambda: "eve joined" in one.events and "eve joined" in two.events)
    assert one.events == two.events == ["ada joined", "bob joined", "bob left", "eve joined"]


async def test_session_that_comes_back_to_another_worker_neither_left_nor_joined(
    worker: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "LEAVE_DELAY", 0.3)
    one, two = await worker(), await worker()
    for _ in range(3):
        one.presence.release(await one.come("ada", proof="hers"))
        two.presence.release(await two.come("ada", "b", proof="hers"))
    await until(lambda: "ada left" in one.events)
    assert one.events == ["ada joined", "ada left"]


async def test_held_name_comes_free_with_time(worker: Start) -> None:
    one, two = await worker(), await worker()
    one.presence.release(await one.come("ada", proof="hers"))
    await until(lambda: one.events == two.events == ["ada joined", "ada left"])
    with pytest.raises(UsernameTaken):
        await two.come("ada", proof="mine")
    two.presence.release(await two.come("ada", proof="hers"))
    for _ in range(100):
        with contextlib.suppress(UsernameTaken):
            await one.come("ada", proof="mine")
            return
        await until_next_beat(one)
    raise AssertionError("the name is still held")


async def until_next_beat(one: Worker) -> None:
    """Waits until the worker has told Redis that it lives."""
    before = beats(one)
    await until(lambda: beats(one) != before)


def beats(one: Worker) -> bytes:
    room = one.engine.room
    return redis_says(room, "HGET {portfolio-chat}:room beat")


def redis_says(room: RedisRoom, command: str) -> bytes:
    """The second line of an answer: the first is its length."""
    port = room._client.connection_pool.connection_kwargs["port"]
    with socket.create_connection(("127.0.0.1", port), timeout=5) as line:
        line.sendall(command.encode() + b"\r\n")
        answer = line.makefile("rb")
        answer.readline()
        return answer.readline().strip()


async def test_who_can_prove_itself_does_not_inherit_from_one_who_left_and_could_not(worker: Start) -> None:
    one, two = await worker(), await worker()
    gone = await one.come("ada")
    one.presence.release(gone)
    assert (await two.come("ada", proof="hers")).id == "hers"
    await until(lambda: one.events == ["ada joined", "ada left", "ada joined"])
    with pytest.raises(UsernameTaken):
        await one.come("ada")


async def test_users_of_a_dead_worker_leave(worker: Start) -> None:
    one, two = await worker(), await worker()
    await one.come("ada")
    await two.come("bob")
    await counted(2, one, two)
    one.cut_off()
    await counted(1, two)
    await until(lambda: two.events == ["ada joined", "bob joined", "ada left"])


async def test_worker_that_was_taken_for_dead_brings_its_users_back(worker: Start) -> None:
    one, two = await worker(), await worker()
    ada, bob = await one.come("ada"), await one.come("bob")
    one.cut_off()
    await counted(0, two)
    one.presence.release(bob)
    one.reconnect()
    await counted(1, one, two)
    assert (ada.connections, one.evicted) == (1, [])


async def test_worker_that_ends_takes_its_users_along_at_once(worker: Start) -> None:
    one, two = await worker(), await worker()
    await one.come("ada")
    await counted(1, two)
    await one.presence.stop()
    await counted(0, two)


async def test_cut_off_worker_lets_people_in_on_its_own_word(worker: Start) -> None:
    one, two = await worker(), await worker()
    one.cut_off()
    ada = await one.come("ada")
    with pytest.raises(UsernameTaken):
        await one.come("ada", "b")
    one.reconnect()
    await counted(1, one, two)
    assert (one.evicted, ada.connections) == ([], 1)


async def test_name_given_twice_during_an_outage_stays_with_one_of_the_two(worker: Start) -> None:
    one, two = await worker(), await worker()
    one.cut_off()
    mine, hers = await one.come("ada", "a"), await two.come("ada", "b")
    one.reconnect()
    await until(lambda: one.evicted == [mine])
    assert two.evicted == []
    one.presence.release(mine)
    await counted(1, one, two)
    assert hers.connections == 1


async def test_newcomer_that_gives_up_while_it_waits_leaves_nothing(worker: Start) -> None:
    one, two = await worker(), await worker()
    one.cut_off()
    coming = asyncio.create_task(one.come("ada"))
    await asyncio.sleep(0)
    coming.cancel()
    await asyncio.wait({coming})
    one.reconnect()
    await until_next_beat(one)
    await until_next_beat(one)
    assert (one.presence.users, two.presence.users) == (0, 0)
    await two.come("ada", "b")


async def test_crowd_comes_and_goes_and_the_count_is_right(worker: Start) -> None:
    one, two = await worker(), await worker()
    crowd = [await (one if number % 2 else two).come(f"user{number}") for number in range(30)]
    await counted(30, one, two)
    for number, session in enumerate(crowd[:29]):
        (one if number % 2 else two).presence.release(session)
    await counted(1, one, two)
    assert len([event for event in one.events if event.endswith("joined")]) == 10  # more would be noise


async def test_late_copy_of_a_call_changes_nothing(worker: Start) -> None:
    """It was given up and sent again, and reached Redis after all that followed."""
    one, two = await worker(), await worker()
    calls: list[Any] = []

    async def noted(*call: Any) -> Any:
        calls.append(call)
        return await one.run_presence(*call)

    one.engine.room.run_presence = noted  # type: ignore[assignment, method-assign] # a stand-in
    one.presence.release(await one.come("ghost"))
    await until(lambda: any(parts[0] == "release" for call in calls for parts in call[1]))
    (claim,) = [call for call in calls if any(parts[0] == "claim" for parts in call[1])]
    assert await one.run_presence(*claim) is None
    await until(lambda: two.events == ["ghost joined", "ghost left"])
    await counted(0, one, two)


async def test_older_presence_is_put_right(worker: Start) -> None:
    """Redis is back with the messages, but with less of who came and left than it had acknowledged."""
    one, two = await worker(), await worker()
    ada, bob = await one.come("ada"), await one.come("bob")
    await counted(2, one, two)
    client = one.engine.room._client
    await client.srem("{portfolio-chat}:online", "bob")
    await client.hset("{portfolio-chat}:room", "version", "1")
    await until_next_beat(one)
    await counted(2, one, two)
    one.presence.release(ada)
    await counted(1, one, two)
    assert bob.connections == 1


async def test_visit_within_an_outage_leaves_nothing(worker: Start) -> None:
    """Under a name that the same address has on another worker, so that it joins that session and leaves in one go."""
    one, two = await worker(), await worker()
    await two.come("ada")
    one.cut_off()
    one.presence.release(await one.come("ada"))
    one.reconnect()
    await until_next_beat(one)
    await until_next_beat(one)
    two.presence.release(two.presence._sessions["ada"])
    await counted(0, one, two)
