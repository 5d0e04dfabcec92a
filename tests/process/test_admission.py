"""Who gets in and what they may do, at the wire of a real server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

import pytest
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from tests.conftest import Start
from tests.support.running import Client, until
from tests.support.visitor import OWNER, offer, refusal, session

pytestmark = pytest.mark.anyio


# Origins


@pytest.mark.parametrize(
    "origin",
    [
        "http://127.0.0.1:{port}",
        "HTTP://127.0.0.1:{port}",
        "https://chat.example.com",
        "https://chat.example.com:443",
        "https://site.example",
    ],
)
async def test_own_public_and_listed_origins_are_let_in(start: Start, origin: str) -> None:
    server = start(PUBLIC_URL="https://chat.example.com/room", CORS_ORIGINS="https://site.example")
    origin = origin.format(port=server.port)
    async with server.connect("ada", origin=Origin(origin)) as ada:
        assert (await ada.read())["type"] == "history"


async def test_other_origins_are_refused_before_the_upgrade(start: Start) -> None:
    server = start(PUBLIC_URL="https://chat.example.com/room", CORS_ORIGINS="https://site.example")
    look_alikes = [
        *("null", "", "http://site.example", "https://site.example:8443", "https://site.example.evil.com"),
        *("https://evilsite.example", "https://site.example@evil.com", "https://site.example/path", "chat.example.com"),
        *("http://chat.example.com", "https://127.0.0.1:{port}", "http://127.0.0.1", "http://localhost:{port}"),
    ]
    for origin in look_alikes:
        with pytest.raises(InvalidStatus) as refused:
            async with server.connect("ada", origin=Origin(origin.format(port=server.port))):
                pass
        assert refused.value.response.status_code == 403, origin
    twice = [("Origin", "https://site.example"), ("Origin", "https://site.example")]
    with pytest.raises(InvalidStatus):
        async with server.connect("ada", additional_headers=twice):
            pass
    assert server.stats()["active_users"] == 0
    assert "User connected" not in server.log()


async def test_any_origin_is_let_in_only_when_that_is_written(start: Start) -> None:
    server = start(CORS_ORIGINS="*")
    async with server.connect("ada", origin=Origin("null")) as ada:
        assert (await ada.read())["type"] == "history"
    assert "[WARNING] CORS_ORIGINS=*" in server.log()


# Capacity


@pytest.mark.parametrize(
    ("variable", "code"),
    [("WS_MAX_CONNECTIONS", "server_full"), ("WS_MAX_CONNECTIONS_PER_IP", "too_many_connections")],
)
async def test_capacity_is_exact_under_a_storm_and_comes_back(start: Start, variable: str, code: str) -> None:
    server = start(**{variable: "20", "OWNER_TOKEN": OWNER})
    async with contextlib.AsyncExitStack() as stack:

        async def knock(number: int) -> str:
            client = await stack.enter_async_context(server.connect(f"user{number}", open_timeout=60))
            frame = await client.read("history", "error")
            return frame["data"]["code"] if frame["type"] == "error" else "in"

        answers = await asyncio.gather(*(knock(number) for number in range(500)))
        assert sorted(set(answers)) == sorted({"in", code})
        assert answers.count("in") == 20
        assert (await session(server, "x", OWNER))["role"] == "owner"  # who needs no free slot
    await until(lambda: server.stats()["active_users"] == 0)
    assert (await session(server, "late"))["username"] == "late"


# Rates


async def say_all(client: Client, texts: Iterable[str]) -> list[str]:
    """What came of each: `ok` or the code of its refusal."""
    answers = []
    for text in texts:
        await client.say(text)
        frame = await client.read("message", "error")
        answers.append("ok" if frame["type"] == "message" else frame["data"]["code"])
    return answers


async def test_messages_are_limited_by_session_and_coming_back_refills_nothing(start: Start) -> None:
    server = start(RATE_LIMIT_MESSAGES="3", RATE_LIMIT_WINDOW="300")
    async with server.connect("ada", **offer()) as ada:
        token = (await ada.read("session"))["data"]["token"]
        assert await say_all(ada, "12345") == ["ok", "ok", "ok", "rate_limited", "rate_limited"]
        await ada.say("6", nonce="n")
        data = (await ada.read("error"))["data"]
        assert data["nonce"] == "n"
        assert 90 < data["retry_after"] <= 100
    async with server.connect("ada", **offer(f"bearer.{token}")) as ada:
        assert await say_all(ada, "1") == ["rate_limited"]
    async with server.connect("legacy") as legacy:
        assert await say_all(legacy, "1234") == ["ok", "ok", "ok", "rate_limited"]
    async with server.connect("legacy") as legacy:
        assert await say_all(legacy, "1") == ["rate_limited"]
    async with server.connect("bob", **offer()) as bob:
        assert await say_all(bob, "1") == ["ok"]


async def test_messages_are_limited_by_address_and_the_owner_s_are_not(start: Start) -> None:
    server = start(RATE_LIMIT_ADDRESS="3", RATE_LIMIT_WINDOW="300", OWNER_TOKEN=OWNER)
    async with server.connect("ada") as ada, server.connect("bob") as bob:
        assert await say_all(ada, "12") == ["ok", "ok"]
        await bob.read("message")
        await bob.read("message")
        assert await say_all(bob, "12") == ["ok", "rate_limited"]
        async with server.connect("x", **offer(f"bearer.{OWNER}")) as owner:
            assert await say_all(owner, "12345") == ["ok"] * 5


async def test_joins_are_limited_by_address(start: Start) -> None:
    server = start(RATE_LIMIT_JOINS="3", RATE_LIMIT_WINDOW="300", OWNER_TOKEN=OWNER)
    for number in range(3):
        await session(server, f"user{number}")
    code, close, data = await refusal(server, "late")
    assert (code, close) == ("rate_limited", 1013)
    assert 90 < data["retry_after"] <= 100
    await session(server, "x", OWNER)


@pytest.mark.parametrize(
    "forwarded", [{"X-Forwarded-For": "1.2.3.4"}, {"X-Real-IP": "1.2.3.4"}, {"Forwarded": "for=1.2.3.4"}]
)
async def test_limits_by_address_do_not_hit_a_proxy_that_nobody_configured(
    start: Start, forwarded: dict[str, str]
) -> None:
    server = start(RATE_LIMIT_JOINS="1", RATE_LIMIT_WINDOW="300", FORWARDED_ALLOW_IPS="10.0.0.1")
    for number in range(3):
        await session(server, f"user{number}", additional_headers=forwarded)
    assert server.log().count("is not believed") == 1
    assert f"{next(iter(forwarded))} from 127.0.0.1" in server.log()
    await session(server, "direct")
    assert (await refusal(server, "again"))[0] == "rate_limited"


# Floods


@pytest.mark.parametrize("raw", ["no JSON", b"binary"])
async def test_twenty_bad_frames_close_with_4501(start: Start, raw: str | bytes) -> None:
    server = start()
    async with server.connect("ada") as ada:
        for _ in range(19):
            await ada.socket.send(raw)
            assert (await ada.read("error"))["data"]["code"] in ("invalid_frame", "unsupported_data")
        await ada.socket.send(raw)
        assert await ada.read_all(lambda frame: None) == 4501


async def test_two_hundred_frames_close_with_4501_unless_switched_off(start: Start) -> None:
    server = start(RATE_LIMIT_MESSAGES="10")
    async with server.connect("ada") as ada:
        for _ in range(199):
            await ada.send(type="ping")
            await ada.read("pong")
        await ada.send(type="ping")
        assert await ada.read_all(lambda frame: None) == 4501
    server.kill()
    unlimited = start(RATE_LIMIT_MESSAGES="0")
    async with unlimited.connect("ada") as ada:
        for _ in range(300):
            await ada.send(type="ping")
            await ada.read("pong")
