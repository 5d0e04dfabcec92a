"""A worker whose connections to Redis are reset, as a failover or a firewall does it."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from tests.conftest import Start
from tests.support.proxy import ResettingProxy
from tests.support.running import Client, RunningRedis, until

pytestmark = pytest.mark.anyio


async def post(client: Client, content: str) -> int:
    """Posts, again after a refusal, until the message comes back; its seq."""
    while True:
        await client.say(content, nonce=content)
        frame = await client.read("message", "error")
        if frame["type"] == "message":
            return int(frame["data"]["seq"])


async def test_reset_connections_are_an_outage_like_any_other(start: Start, redis: RunningRedis) -> None:
    """The transport of an idle connection is closed by then, of which uvloop makes a RuntimeError."""
    async with ResettingProxy(redis.port) as proxy:
        url = redis.url.replace(str(redis.port), str(proxy.port))
        server = await asyncio.to_thread(partial(start, ENGINE_URL=url))
        async with server.connect("ada") as ada:
            for number in range(1, 6):
                assert await post(ada, f"number-{number}") == number
                accepted = proxy.accepted
                proxy.reset()
                await until(lambda accepted=accepted: proxy.accepted > accepted)  # type: ignore[misc] # no type for a default
            assert await post(ada, "number-6") == 6
        server.terminate()
    assert "Traceback" not in server.log()
    said = [line for line in server.log().splitlines() if "[ERROR]" in line]
    assert [line for line in said if "Messages cannot be stored: redis://" not in line] == []
