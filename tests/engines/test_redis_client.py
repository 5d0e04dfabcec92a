"""The room's connections to Redis when they break: whatever the driver raises is an outage, and heals by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import DataError, InvalidResponse, NoPermissionError, ResponseError

from app.engines.redis.client import RedisClient
from app.exceptions import StoreError

pytestmark = pytest.mark.anyio

SENDING, RECEIVING = "_send_packed_command", "_read_response_from_parser"
FAULTS = [
    RuntimeError("unable to perform operation on <TCPTransport closed=True reading=False>; the handler is closed"),
    AttributeError("'NoneType' object has no attribute 'writelines'"),
    TypeError("'NoneType' object is not subscriptable"),
    ValueError("invalid literal for int()"),
    asyncio.IncompleteReadError(b"", 2),
    ConnectionResetError(104, "Connection reset by peer"),
    TimeoutError(),
    InvalidResponse("Protocol error, got '!' as reply type byte"),
    RedisConnectionError("Connection has data"),
]


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[RedisClient]:
    client = RedisClient(redis_url)
    yield client
    await client.close()


async def echo(client: RedisClient, word: Any) -> Any:
    return await client.ask(client.commands.echo(word))


@pytest.mark.parametrize("place", [SENDING, RECEIVING])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
async def test_whatever_the_driver_raises_is_an_outage_that_leaves_no_reply_behind(
    client: RedisClient, monkeypatch: pytest.MonkeyPatch, fault: Exception, place: str
) -> None:
    assert await echo(client, "before") == b"before"

    async def fail(*_: object, **__: object) -> Any:
        raise fault

    with monkeypatch.context() as patch:
        patch.setattr(AbstractConnection, place, fail)
        with pytest.raises(StoreError, match="Check that Redis runs") as caught:
            await echo(client, "lost")
    assert "\n" not in str(caught.value)
    assert [await echo(client, word) for word in ("one", "two")] == [b"one", b"two"]


@pytest.mark.parametrize("place", [SENDING, RECEIVING])
async def test_handshake_that_breaks_off_is_not_taken_for_done(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    client = RedisClient(redis_url.replace("/0", "/3"))

    async def fail(*_: object, **__: object) -> Any:
        raise RuntimeError("the handler is closed")

    with monkeypatch.context() as patch:
        patch.setattr(AbstractConnection, place, fail)
        with pytest.raises(StoreError):
            await echo(client, "lost")
    found = await client.ask(client.commands.client_info())
    await client.close()
    assert found["db"] == 3


async def test_outage_of_an_unknown_kind_is_named(client: RedisClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> Any:
        raise AttributeError("no attribute 'writelines'")

    monkeypatch.setattr(AbstractConnection, SENDING, fail)
    with pytest.raises(StoreError, match=r"AttributeError\(.no attribute 'writelines'.\)\. Check that Redis runs"):
        await echo(client, "lost")


async def test_connections_that_cannot_be_closed_are_all_given_up(
    client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []

    async def fail(self: AbstractConnection, **_: object) -> None:
        closed.append(self)
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

    for commands in (client.commands, client.reader):
        await commands.echo("Hello")
    with monkeypatch.context() as patch:
        patch.setattr(AbstractConnection, "disconnect", fail)
        await client.close()
    assert len(closed) == 2


async def test_refusal_by_redis_is_logged_without_advice(client: RedisClient) -> None:
    async def refuse() -> Any:
        raise ResponseError("OOM command not allowed")

    with pytest.raises(StoreError, match=r"OOM command not allowed\.$"):
        await client.ask(refuse())


async def test_what_cannot_be_sent_is_our_own_fault(client: RedisClient) -> None:
    with pytest.raises(DataError):
        await echo(client, {})


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ({"redis_version": "7.0.15", "aof_enabled": 1}, None),
        ({"redis_version": "7.0.15", "aof_enabled": 0}, "loses messages"),
        ({"redis_version": "7.0.15", "aof_enabled": 1, "maxmemory_policy": "allkeys-lru"}, "may drop messages"),
        (NoPermissionError("no"), None),
    ],
)
async def test_owner_is_warned_of_a_forgetful_redis(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, info: Any, said: str | None
) -> None:
    client = RedisClient(redis_url)

    async def answer() -> Any:
        if isinstance(info, Exception):
            raise info
        return info

    monkeypatch.setattr(client.commands, "info", answer)
    await client.check()
    await client.close()
    assert said in caplog.text if said else not caplog.records


async def test_old_redis_is_refused(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = RedisClient(redis_url)

    async def answer() -> Any:
        return {"redis_version": "6.0.16", "aof_enabled": 1}

    monkeypatch.setattr(client.commands, "info", answer)
    with pytest.raises(StoreError, match=r"Redis 6\.0\.16\. Use Redis 6\.2 or later"):
        await client.check()
    await client.close()
