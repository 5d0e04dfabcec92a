"""Bans at the wire of a real server: who must go, who stays out, for how long, and who can't be meant."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Start
from tests.support.owner import (
    JSON,
    STORES,
    alone,
    ask,
    asked,
    done,
    everywhere,
    fault,
    lines,
    serving,
    slay,
    start_again,
)
from tests.support.running import RunningRedis, RunningServer, until
from tests.support.visitor import OWNER, offer, refusal, session, visit
from tests.support.workers import everything, started

pytestmark = pytest.mark.anyio

ADDRESS = "203.0.113.7"
REASON = "a note for myself alone"


def coming_from(address: str) -> dict[str, Any]:
    return {"additional_headers": {"X-Forwarded-For": address}}


@pytest.fixture(params=STORES)
def server(request: pytest.FixtureRequest, start: Start) -> Iterator[RunningServer]:
    with serving(request, start, request.param) as running:
        yield running


def ban(server: RunningServer, username: str, **body: Any) -> JSON:
    answer: JSON = done(ask(server, "PUT", f"/api/bans/{username}", body))
    return answer


def bans(server: RunningServer) -> list[str]:
    with lines(server) as every:
        views = [done(asked(line, "GET", "/api/bans"))["bans"] for line in every]
    assert views.count(views[0]) == len(views)
    return sorted(found["username"] for found in views[0])


async def outside(server: RunningServer, name: str, token: str | None = None, **options: Any) -> bool:
    """Whether somebody is refused as banned, wherever it comes in."""
    bearer = [f"bearer.{token}"] if token else []
    answers = set()
    for _ in range(4 if "WORKERS" in server.variables else 1):
        async with server.connect(name, **{**offer(*bearer), **options}) as client:
            frame = await client.read()
            assert REASON not in str(frame)
            banned: bool = frame["type"] == "error" and frame["data"]["code"] == "banned"  # else a name may be held
            assert not banned or await client.read_all(lambda _: None) == 1008
            answers.add(banned)
    assert len(answers) == 1
    return answers.pop()


async def learned(server: RunningServer, username: str, banned: bool = True) -> None:
    """Waits until all workers have heard of it."""
    with lines(server) as every:
        for line in every:
            path = f"/api/bans/{username}"
            await until(lambda line=line, path=path: (asked(line, "GET", path).status_code == 200) is banned)  # type: ignore[misc]


async def test_ban_closes_all_connections_and_keeps_name_session_and_address_out(server: RunningServer) -> None:
    here = coming_from(ADDRESS)
    async with visit(server, "Eve", **here) as eve, everywhere(server) as guests:
        token = eve.session["token"]
        async with visit(server, "eve", token, **here) as tab, visit(server, "neighbour", **here) as neighbour:
            answer = ban(server, "EVE", address=True, reason=REASON)
            assert answer == {"username": "EVE", "until": None, "address": True, "reason": REASON}
            await until(lambda: None not in (eve.code, tab.code, neighbour.code))
            assert (eve.code, tab.code, neighbour.code) == (4500, 4500, 4500)
            for visitor in (eve, tab, neighbour):
                assert visitor.errors == ["banned"]
                assert visitor.frames[-1]["data"] == {"code": "banned"}
                assert REASON not in str(visitor.frames)
        await learned(server, "eve")
        assert await outside(server, "eVe")
        assert await outside(server, "alice", token)  # under another name
        assert await outside(server, "eve", token)
        assert await outside(server, "somebody", **here)
        assert await outside(server, "somebody", **coming_from("203.0.113.8")) is False
        assert [guest.code for guest in guests] == [None] * len(guests)
        assert done(ask(server, "DELETE", "/api/bans/eve")) == answer
        await learned(server, "eve", False)
        async with visit(server, "eve", token, **here) as again:
            assert again.errors == []
    assert ADDRESS not in server.log()


async def test_owner_stays_whatever_is_banned(server: RunningServer) -> None:
    here = coming_from(ADDRESS)
    async with visit(server, "x", OWNER, **here) as owner, visit(server, "eve", **here) as eve:
        assert ban(server, "eve", address=True)["address"]
        await until(lambda: eve.code == 4500)
        assert (await session(server, "eve", OWNER, **here))["role"] == "owner"
        for name in ("owner", "OWNER"):
            assert fault(ask(server, "PUT", f"/api/bans/{name}", {})) == (422, "invalid_request", "username")
        assert owner.code is None


async def test_addresses_of_many_are_never_banned(request: pytest.FixtureRequest, start: Start) -> None:
    """The server's own machine, a proxy that is believed, and a private one that nobody configured."""
    with serving(request, start, "sqlite", FORWARDED_ALLOW_IPS="127.0.0.1,10.0.0.0/8") as server:
        for number, options in enumerate(({}, coming_from("10.1.2.3"), coming_from("::1"), coming_from("127.0.0.9"))):
            async with visit(server, f"eve{number}", **options) as eve:
                assert not ban(server, f"eve{number}", address=True)["address"]
                await until(lambda eve=eve: eve.code == 4500)  # type: ignore[misc]
            assert await outside(server, f"eve{number}", **options)
            assert not await outside(server, "ada", **options)
        async with visit(server, "far", **coming_from("2001:db8:1:2::3")) as far:
            assert ban(server, "far", address=True)["address"]
            await until(lambda: far.code == 4500)
        assert await outside(server, "ada", **coming_from("2001:db8:1:2:ffff::9"))  # the same /64
        assert not await outside(server, "ada", **coming_from("2001:db8:1:3::3"))
        server.terminate()
        server.variables["FORWARDED_ALLOW_IPS"] = "10.0.0.0/8"
        server.start()
        async with visit(server, "mallory", **coming_from(ADDRESS)) as mallory:  # this peer is not believed now
            assert not ban(server, "mallory", address=True)["address"]
            await until(lambda: mallory.code == 4500)
        assert not await outside(server, "ada", **coming_from(ADDRESS))


async def test_address_is_the_newest_one_and_may_be_left_out_later(server: RunningServer) -> None:
    old, new = coming_from("203.0.113.1"), coming_from("203.0.113.2")
    one_worker = alone(server, started(server)[-1]) if "WORKERS" in server.variables else contextlib.nullcontext()
    with one_worker:
        async with visit(server, "eve", **old) as eve, visit(server, "eve", eve.session["token"], **new) as moved:
            assert ban(server, "eve", address=True)["address"]
            await until(lambda: (eve.code, moved.code) == (4500, 4500))
    await learned(server, "eve")
    assert await outside(server, "ada", **new)
    assert not await outside(server, "bob", **old)
    assert ban(server, "eve", address=True, seconds=60)["address"]  # it is gone, and its address still known
    assert not ban(server, "eve")["address"]
    with lines(server) as every:
        for line in every:
            await until(lambda line=line: not asked(line, "GET", "/api/bans/eve").json()["address"])  # type: ignore[misc]
    assert not await outside(server, "carol", **new)


async def test_ban_ends_by_itself_or_lasts_over_a_restart(server: RunningServer, shared_redis: RunningRedis) -> None:
    async with visit(server, "eve", **coming_from(ADDRESS)) as eve:
        token = eve.session["token"]
        assert ban(server, "eve", address=True, reason=REASON)["address"]
        await until(lambda: eve.code == 4500)
    before = time.time()
    until_when = ban(server, "mallory", seconds=0.3)["until"]
    assert before + 0.3 <= until_when <= time.time() + 0.3
    start_again(server, "SIGKILL")
    await until(lambda: time.time() > until_when)
    assert not await outside(server, "mallory")
    assert bans(server) == ["eve"]
    assert fault(ask(server, "GET", "/api/bans/mallory"))[0] == 404
    assert fault(ask(server, "DELETE", "/api/bans/mallory"))[0] == 404
    assert await outside(server, "eve", token)
    assert await outside(server, "bob", **coming_from(ADDRESS))
    assert done(ask(server, "GET", "/api/bans/Eve"))["reason"] == REASON
    slay(server)
    if "WORKERS" in server.variables:
        shared_redis.ask("DEL {portfolio-chat}:names")  # which tells those without a token apart, while they are here
        kept = "".join(everything(shared_redis.url))
    else:
        kept = "".join(path.read_bytes().decode(errors="replace") for path in server.folder.glob("chat.db*"))
    assert REASON in kept
    assert ADDRESS not in kept


async def test_session_is_known_by_its_messages_after_it_left(server: RunningServer) -> None:
    async with visit(server, "eve", **coming_from(ADDRESS)) as eve:
        token = eve.session["token"]
        await eve.client.say("Hello")
        await until(lambda: eve.seqs == [1])
    start_again(server)  # so that nobody remembers who was here
    answer = ban(server, "eve", address=True)
    if "WORKERS" not in server.variables:
        assert not answer["address"]
    await learned(server, "eve")
    assert await outside(server, "eve", token)


async def test_many_bans_at_the_same_time_all_hold(server: RunningServer) -> None:
    names = [f"eve{number}" for number in range(16)]
    with lines(server) as every:
        paths = [(line, f"/api/bans/{name}") for line, name in zip(every * 16, names, strict=False)]
        acts = [asyncio.to_thread(asked, line, "PUT", path, {}) for line, path in paths]
        room = asyncio.to_thread(asked, every[0], "PATCH", "/api/room", {"slow_mode": 7})
        assert {answer.status_code for answer in await asyncio.gather(*acts, room)} == {200}
        for line in every:
            await until(lambda line=line: len(asked(line, "GET", "/api/bans").json()["bans"]) == 16)  # type: ignore[misc]
        lifts = [asyncio.to_thread(asked, line, "DELETE", path) for line, path in reversed(paths)]
        assert {answer.status_code for answer in await asyncio.gather(*lifts)} == {200}
        for line in every:
            await until(lambda line=line: asked(line, "GET", "/api/bans").json()["bans"] == [])  # type: ignore[misc]
            assert done(asked(line, "PATCH", "/api/room", {}))["slow_mode"] == 7


async def test_who_is_on_the_way_in_when_the_ban_comes_stays_outside(server: RunningServer) -> None:
    """Whatever the order: nobody who is banned is in the room when all is said."""

    async def come(number: int) -> str:
        async with server.connect(f"eve{number}", **offer()) as client:
            codes: list[str] = []
            code = await asyncio.wait_for(client.read_all(lambda frame: codes.append(frame["type"])), 20)
            return f"{code} {'history' in codes}"

    numbers = range(24)
    coming = [asyncio.create_task(come(number)) for number in numbers]
    banning = [asyncio.to_thread(ask, server, "PUT", f"/api/bans/eve{number}", {}) for number in numbers]
    assert {answer.status_code for answer in await asyncio.gather(*banning)} == {200}
    assert set(await asyncio.gather(*coming)) <= {"1008 False", "4500 True"}
    await until(lambda: server.stats()["active_users"] == 0)
    assert (await refusal(server, "eve0"))[:2] == ("banned", 1008)
