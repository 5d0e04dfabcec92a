"""The contract of both claims of notifications."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from app.engines.claim import LocalClaim, NotificationClaim
from app.engines.redis.claim import RedisClaim
from app.engines.redis.client import RedisClient

pytestmark = pytest.mark.anyio

New = Callable[[float], NotificationClaim]


@pytest.fixture(params=["local", "redis"])
async def new(request: pytest.FixtureRequest) -> AsyncIterator[New]:
    """`new(quiet)`: a claim of which nothing has been given yet."""
    async with AsyncExitStack() as stack:

        def new_claim(quiet: float) -> NotificationClaim:
            if request.param == "local":
                return LocalClaim(quiet)
            client = RedisClient(request.getfixturevalue("redis_url"))
            stack.push_async_callback(client.close)
            return RedisClaim(client, quiet)

        yield new_claim


async def test_first_claim_is_given_and_begins_a_quiet_time(new: New) -> None:
    claim = new(60.0)
    assert await claim(3) == (0.0, 0)
    wait, notified = await claim(5)
    assert (50 < wait <= 60, notified) == (True, 3)


async def test_next_claim_is_given_after_the_quiet_time(new: New) -> None:
    claim = new(0.03)
    await claim(3)
    async with asyncio.timeout(10):
        while (answer := await claim(5))[0]:
            await asyncio.sleep(answer[0])
    assert answer == (0.0, 3)
    assert (await claim(6))[1] == 5


async def test_claim_of_what_was_notified_begins_no_quiet_time(new: New) -> None:
    claim = new(0.001)
    await claim(3)
    await asyncio.sleep(0.01)
    for _ in range(3):
        assert await claim(2) == (0.0, 3)


async def test_without_a_quiet_time_every_claim_is_given(new: New) -> None:
    claim = new(0.0)
    assert [await claim(seq) for seq in (1, 2, 2, 3)] == [(0.0, 0), (0.0, 1), (0.0, 2), (0.0, 2)]
