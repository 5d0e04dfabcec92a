"""The room's connections to Redis when they break: whatever the driver raises is an outage, and heals by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import DataError, InvalidResponse, ResponseError

from app.engines.redis.client import RedisRoom
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
async def room(redis_url: str) -> AsyncIterator[RedisRoom]:
    room = RedisRoom(redis_url)
    yield room
    await room.close()


async def echo(room: RedisRoom, word: Any) -> Any:
    return await room._answer(room._client.echo(word))


@pytest.mark.parametrize("place", [SENDING, RECEIVING])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
async def test_whatever_the_driver_raises_is_an_outage_that_leaves_no_reply_behind(
    room: RedisRoom, monkeypatch: pytest.MonkeyPatch, fault: Exception, place: str
) -> None:
    assert await echo(room, "before") == b"before"

    async def fail(*_: object, **__: object) -> Any:
        raise fault

    with monkeypatch.context() as patch:
        patch.setattr(AbstractConnection, place, fail)
        with pytest.raises(StoreError, match="Check that Redis runs") as caught:
            await echo(room, "lost")
    assert "\n" not in str(caught.value)
    assert [await echo(room, word) for word in ("one", "two")] == [b"one", b"two"]


@pytest.mark.parametrize("place", [SENDING, RECEIVING])
async def test_handshake_that_breaks_off_is_not_taken_for_done(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    room = RedisRoom(redis_url.replace("/0", "/3"))

    async def fail(*_: object, **__: object) -> Any:
        raise RuntimeError("the handler is closed")

    with monkeypatch.context() as patch:
        patch.setattr(AbstractConnection, place, fail)
        with pytest.raises(StoreError):
            await echo(room, "lost")
    found = await room._answer(room._client.client_info())
    await room.close()
    assert found["db"] == 3


async def test_outage_of_an_unknown_kind_is_named(room: RedisRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> Any:
        raise AttributeError("no attribute 'writelines'")

    monkeypatch.setattr(AbstractConnection, SENDING, fail)
    with pytest.raises(StoreError, match=r"AttributeError\(.no attribute 'writelines'.\)\. Check that Redis runs"):
        await echo(room, "lost")


async def test_connections_that_cannot_be_closed_are_all_given_up(
    room: RedisRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []

    async def fail(self: AbstractConnection, **_: object) -> None:
        closed.append(self)
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

    for client in (room._client, room._reader):
        await client.echo("Hello")
    with monkeypatch.context() as patch:
        patch.setattr(AbstractConnection, "disconnect", fail)
        await room.close()
    assert len(closed) == 2


async def test_what_redis_refuses_is_told_without_advice(room: RedisRoom) -> None:
    async def refuse() -> Any:
        raise ResponseError("OOM command not allowed")

    with pytest.raises(StoreError, match=r"OOM command not allowed\.$"):
        await room._answer(refuse())


async def test_what_cannot_be_sent_is_our_own_fault(room: RedisRoom) -> None:
    with pytest.raises(DataError):
        await echo(room, {})
