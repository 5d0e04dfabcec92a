"""The contract of both presences: who shares a name, who holds one, who is counted, and what is announced.

Times that must pass are next to nothing, and awaited; times that must not pass are a minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from app.engines.presence import LocalPresence, Presence, PresenceTiming, Session
from app.engines.redis.client import RedisClient
from app.engines.redis.presence import RedisPresence
from app.exceptions import UsernameTaken
from tests.support.presence import Visitors

pytestmark = pytest.mark.anyio

Start = Callable[..., Awaitable[Visitors]]


@pytest.fixture(params=["local", "redis"])
async def start(request: pytest.FixtureRequest) -> AsyncIterator[Start]:
    """`await start(leave_delay=60, hold=60)`: the visitors of a presence that has begun."""
    async with AsyncExitStack() as stack:

        async def started(leave_delay: float = 60.0, hold: float = 60.0) -> Visitors:
            timing = PresenceTiming(leave_delay, hold, refresh=0.01, claim_timeout=10.0)
            presence: Presence = LocalPresence("Owner", timing)
            if request.param == "redis":
                client = RedisClient(request.getfixturevalue("redis_url"))
                stack.push_async_callback(client.close)
                presence = RedisPresence(client, "Owner", 50, timing)
            visitors = Visitors(presence)
            stack.push_async_callback(presence.stop)
            await presence.start(visitors)
            return visitors

        yield started


async def come_at_last(visitors: Visitors, *newcomer: str) -> Session:
    """Comes as soon as the name is free."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await visitors.come(*newcomer)
            except UsernameTaken:
                await asyncio.sleep(0.005)


async def until_forgotten(visitors: Visitors, username: str) -> None:
    """Returns when nobody holds the name any more."""
    async with asyncio.timeout(10):
        while await visitors.presence.find(username):
            await asyncio.sleep(0.005)


# Who is the same


async def test_name_is_shared_by_those_of_one_address_whose_clients_know_no_tokens(start: Start) -> None:
    here = await start()
    first = await here.come("Ada", "a")
    assert await here.come("aDA", "a") is first
    with pytest.raises(UsernameTaken):
        await here.come("ada", "b")
    assert (first.username, first.connections) == ("Ada", 2)


async def test_token_opens_the_session_from_any_address(start: Start) -> None:
    here = await start()
    first = await here.come("Ada", "a", "hers")
    assert await here.come("ada", "b", "hers") is first
    assert (first.username, first.id, first.connections) == ("Ada", "hers", 2)


async def test_session_with_a_token_is_shared_with_nobody_else(start: Start) -> None:
    here = await start()
    await here.come("ada", "a", "hers")
    for newcomer in (("ada", "a"), ("ADA", "a", "mine"), ("ada", "b"), ("ada", "b", "mine")):
        with pytest.raises(UsernameTaken):
            await here.come(*newcomer)


async def test_client_that_knows_tokens_shares_a_connected_session_without_one(start: Start) -> None:
    here = await start()
    first = await here.come("ada", "a")
    assert await here.come("ada", "a", "hers") is first
    assert first.id != "hers"
    with pytest.raises(UsernameTaken):
        await here.come("ada", "b", "hers")


async def test_client_that_knows_tokens_does_not_take_over_a_session_that_is_gone(start: Start) -> None:
    here = await start()
    here.presence.release(await here.come("ada", "a"))
    newcomer = await here.come("ada", "a", "hers")
    assert newcomer.id == "hers"
    await here.until_announced("ada joined", "ada left", "ada joined")
    for other in (("ada", "a"), ("ada", "a", "mine")):
        with pytest.raises(UsernameTaken):
            await here.come(*other)


async def test_owner_opens_one_session_from_everywhere(start: Start) -> None:
    here = await start()
    first = await here.come("Owner", "a", "the owner's")
    assert await here.come("owner", "b", "the owner's") is first
    with pytest.raises(UsernameTaken):
        await here.come("OWNER", "a")


# Who holds a name


async def test_session_without_a_token_comes_back_from_its_address_within_the_delay(start: Start) -> None:
    here = await start()
    first = await here.come("Ada", "a")
    here.presence.release(first)
    back = await here.come("ada", "a")
    assert (back.username, back.id, back.connections) == ("Ada", first.id, 1)
    await here.come("bob")
    await here.until_announced("Ada joined", "bob joined")


async def test_name_without_a_token_is_free_as_soon_as_it_is_left(start: Start) -> None:
    here = await start()
    first = await here.come("ada", "a")
    here.presence.release(first)
    other = await here.come("Ada", "b")
    assert (other.username, other.address) == ("Ada", "b")
    assert other.id != first.id
    await here.until_announced("ada joined", "ada left", "Ada joined")


@pytest.mark.parametrize("leave_delay", [0.0, 60.0])
async def test_name_with_a_token_is_held_for_its_holder(start: Start, leave_delay: float) -> None:
    here = await start(leave_delay)
    here.presence.release(await here.come("Ada", "a", "hers"))
    if not leave_delay:
        await here.until_announced("Ada joined", "Ada left")
    for other in (("ada", "a"), ("ADA", "a", "mine"), ("ada", "b", "mine")):
        with pytest.raises(UsernameTaken):
            await here.come(*other)
    back = await here.come("ada", "b", "hers")
    assert (back.username, back.id, back.connections) == ("Ada", "hers", 1)


@pytest.mark.parametrize("leave_delay", [0.0, 60.0])
async def test_held_name_comes_free_with_time(start: Start, leave_delay: float) -> None:
    here = await start(leave_delay, hold=0.05)
    here.presence.release(await here.come("ada", "a", "hers"))
    assert (await come_at_last(here, "ada", "b", "mine")).id == "mine"
    await here.until_announced("ada joined", "ada left", "ada joined")


async def test_holder_that_comes_back_holds_the_name_as_long_again(start: Start) -> None:
    here = await start(leave_delay=0.0)
    for address in ("a", "b"):
        here.presence.release(await here.come("ada", address, "hers"))
        await here.until(lambda: here.announced[-1:] == ["ada left"])
        with pytest.raises(UsernameTaken):
            await here.come("ada", "a", "mine")
    await here.until_announced("ada joined", "ada left", "ada joined", "ada left")


# Joins, leaves and the count


async def test_user_joins_with_the_first_connection_and_leaves_after_the_last(start: Start) -> None:
    here = await start(leave_delay=0.02)
    sessions = [await here.come("ada"), await here.come("ADA")]
    here.presence.release(sessions[0])
    await here.come("bob")
    await here.until_announced("ada joined", "bob joined")
    here.presence.release(sessions[1])
    await here.until_announced("ada joined", "bob joined", "ada left")


async def test_user_that_comes_back_within_the_delay_neither_left_nor_joined(start: Start) -> None:
    here = await start()
    for _ in range(3):
        here.presence.release(await here.come("ada", "a", "hers"))
    await here.come("bob")
    await here.until_announced("ada joined", "bob joined")


async def test_user_that_came_back_stays(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    here = await start(leave_delay=0.02)
    here.presence.release(await here.come("ada"))
    await here.come("ada")
    await here.until_announced("ada joined")
    await asyncio.sleep(0.05)
    assert (here.announced, here.presence.users, caplog.records) == (["ada joined"], 1, [])


async def test_user_that_comes_back_after_the_delay_joins_again(start: Start) -> None:
    here = await start(leave_delay=0.0)
    here.presence.release(await here.come("ada", "a", "hers"))
    await here.until_announced("ada joined", "ada left")
    await here.come("ada", "a", "hers")
    await here.until_announced("ada joined", "ada left", "ada joined")


async def test_user_is_counted_once_and_until_the_last_connection_ends(start: Start) -> None:
    here = await start()
    sessions = [await here.come(name) for name in ("ada", "ADA", "bob")]
    await here.until_counted(2)
    here.presence.release(sessions[0])
    here.presence.release(sessions[2])
    await here.until_counted(1)
    here.presence.release(sessions[1])
    await here.until_counted(0)
    assert here.counts == [1, 2, 1, 0]


async def test_refused_newcomer_is_neither_counted_nor_announced(start: Start) -> None:
    here = await start()
    ada = await here.come("ada", "a")
    with pytest.raises(UsernameTaken):
        await here.come("ada", "b")
    await here.come("bob")
    await here.until_announced("ada joined", "bob joined")
    assert (here.presence.users, ada.connections, here.evicted) == (2, 1, [])


async def test_owner_is_online_from_the_first_connection_to_the_last(start: Start) -> None:
    here = await start()
    online = []
    await here.come("ada")
    online.append(here.presence.owner_online)
    tabs = [await here.come("oWNER", "a", "the owner's") for _ in range(2)]
    online.append(here.presence.owner_online)
    here.presence.release(tabs[0])
    await here.come("bob")
    online.append(here.presence.owner_online)
    here.presence.release(tabs[1])
    await here.until(lambda: not here.presence.owner_online)
    assert (online, here.presence.users) == ([False, True, True], 2)


async def test_nothing_is_announced_after_the_stop(start: Start) -> None:
    here = await start(leave_delay=0.01)
    ada = await here.come("ada")
    await here.until_announced("ada joined")
    here.presence.release(ada)
    await here.presence.stop()
    announced = list(here.announced)
    await asyncio.sleep(0.03)
    assert here.announced == announced


async def test_reset_loses_nobody(start: Start) -> None:
    here = await start()
    ada, _ = await here.come("ada", "a"), await here.come("owner", "a", "the owner's")
    here.presence.reset()
    with pytest.raises(UsernameTaken):
        await here.come("ada", "b")
    await here.come("bob")
    await here.until(lambda: here.announced[-1] == "bob joined")
    assert (here.presence.users, here.presence.owner_online, here.evicted) == (3, True, [])
    here.presence.release(ada)
    await here.until_counted(2)


# Who has a name


async def test_find_knows_the_session_and_its_newest_address_in_any_spelling(start: Start) -> None:
    here = await start()
    assert await here.presence.find("ada") is None
    await here.come("Ada", "a", "hers", "net one")
    assert await here.presence.find("aDA") == ("hers", "net one")
    ada = await here.come("Ada", "b", "hers", "net two")
    await here.come("bob")  # whatever was asked before is done
    assert await here.presence.find("Ada") == ("hers", "net two")
    bob = await here.presence.find("bob")
    assert bob is not None
    assert bob[1] is None
    for _ in range(2):
        here.presence.release(ada)
    assert await here.presence.find("ADA") == ("hers", "net two")


async def test_name_is_forgotten_when_nobody_holds_it(start: Start) -> None:
    here = await start(leave_delay=0.0, hold=0.03)
    here.presence.release(await here.come("ada", "a", "hers"))
    here.presence.release(await here.come("bob", "a"))
    await until_forgotten(here, "bob")
    await until_forgotten(here, "ada")


@pytest.mark.parametrize("url", ["", "redis://127.0.0.1:1/0"])
async def test_stop_is_safe_without_a_start(url: str) -> None:
    client = RedisClient(url) if url else None
    presence: Presence = RedisPresence(client, "owner", 50) if client else LocalPresence("owner")
    await presence.stop()
    if client:
        await client.close()
