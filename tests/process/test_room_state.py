"""A room that is paused or slowed down, at the wire of a real server."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Start, need_service
from tests.support.owner import (
    JSON,
    SHARED,
    STORES,
    alone,
    ask,
    asked,
    done,
    everywhere,
    lines,
    serving,
    start_again,
    wait_for_workers,
)
from tests.support.running import COMMANDS, RunningRedis, RunningServer, until
from tests.support.visitor import OWNER, Visitor, session, visit
from tests.support.workers import started

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", params=STORES)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server for each store, which the tests share."""
    folder, variables = tmp_path_factory.mktemp("room"), {"OWNER_TOKEN": OWNER, "SHUTDOWN_SPREAD": "0"}
    with contextlib.ExitStack() as stack:
        if request.param == "redis":
            need_service(shutil.which("redis-server") is not None, "redis-server is not installed")
            redis = stack.enter_context(RunningRedis(folder))  # the shared one is emptied by other tests
            variables |= {**SHARED, "ENGINE_URL": redis.url}
        server = stack.enter_context(RunningServer(COMMANDS["app"], folder, variables))
        if request.param == "redis":
            wait_for_workers(server, 2)
        yield server
        server.terminate()


@pytest.fixture
def server(running: RunningServer) -> Iterator[RunningServer]:
    """The shared server, whose room every test leaves open and without slow mode."""
    yield running
    change(running, paused=False, slow_mode=0)


@pytest.fixture(params=STORES)
def own_server(request: pytest.FixtureRequest, start: Start) -> Iterator[RunningServer]:
    """A server that a test may kill."""
    with serving(request, start, request.param) as running:
        yield running


def change(server: RunningServer, **body: object) -> JSON:
    room: JSON = done(ask(server, "PATCH", "/api/room", body))
    return room


async def refusals(visitor: Visitor, *texts: str) -> list[JSON | None]:
    """What each post was refused with, None where it was not."""
    answers: list[JSON | None] = []
    for text in texts:
        seen, nonce = len(visitor.frames), uuid.uuid4().hex
        await visitor.client.say(text, nonce=nonce)

        def mine(seen: int = seen, nonce: str = nonce) -> list[JSON]:
            new = [frame for frame in visitor.frames[seen:] if frame["type"] in ("message", "error")]
            return [frame for frame in new if frame["data"].get("nonce") == nonce]

        await until(lambda: bool(mine()))
        (answer,) = mine()
        answers.append(answer["data"] if answer["type"] == "error" else None)
    return answers


def state(paused: bool, slow_mode: float, owner_online: bool) -> JSON:
    return {"paused": paused, "slow_mode": slow_mode, "owner_online": owner_online}


def states(visitor: Visitor) -> list[JSON]:
    """The states of the room that a visitor got: in the session frame, then in room frames."""
    door = {name: visitor.session[name] for name in state(False, 0, False)}
    return [door, *visitor.datas("room")]


async def test_pause_reaches_everybody(server: RunningServer) -> None:
    async with everywhere(server) as guests:
        assert change(server) == state(False, 0, False)
        assert change(server, paused=True) == state(True, 0, False)
        await until(lambda: all(states(visitor)[-1]["paused"] for visitor in guests))
    async with everywhere(server) as late:
        assert [states(visitor)[0]["paused"] for visitor in late] == [True] * len(late)


async def test_paused_room_refuses_every_post_of_a_visitor(server: RunningServer) -> None:
    change(server, paused=True)
    async with everywhere(server) as guests:
        for visitor in guests:
            for refused in await refusals(visitor, "one", " ", "x" * 2000):
                assert refused is not None
                assert (refused["code"], "retry_after" in refused) == ("paused", False)


async def test_paused_room_takes_the_owner_s_posts(server: RunningServer) -> None:
    change(server, paused=True)
    done(ask(server, "POST", "/api/messages", {"content": "over HTTP"}), 201)
    async with visit(server, "x", OWNER) as owner:
        assert states(owner)[0] == state(True, 0, True)
        assert await refusals(owner, "over a WebSocket") == [None]


async def test_opened_room_takes_posts_again(server: RunningServer) -> None:
    change(server, paused=True)
    async with everywhere(server) as guests:
        assert change(server, paused=False)["paused"] is False
        await until(lambda: all(not states(visitor)[-1]["paused"] for visitor in guests))
        for visitor in guests:
            assert await refusals(visitor, "again") == [None]


async def test_pause_outlives_a_kill(own_server: RunningServer) -> None:
    change(own_server, paused=True)
    start_again(own_server, "SIGKILL")
    assert (await session(own_server, "ada"))["paused"] is True


async def test_slow_mode_reaches_everybody(server: RunningServer) -> None:
    async with everywhere(server) as guests:
        assert change(server, slow_mode=60)["slow_mode"] == 60
        await until(lambda: all(states(visitor)[-1]["slow_mode"] == 60 for visitor in guests))


async def test_slow_mode_lets_one_message_by_in_its_time(server: RunningServer) -> None:
    change(server, slow_mode=60)
    async with everywhere(server) as guests:
        for visitor in guests:
            first, refused = await refusals(visitor, "one", "two")
            assert first is None
            assert refused is not None
            assert (refused["code"], 50 < refused["retry_after"] <= 60) == ("slow_mode", True)


async def test_refused_post_takes_no_turn_in_slow_mode(server: RunningServer) -> None:
    change(server, slow_mode=60)
    async with everywhere(server) as guests:
        for visitor in guests:
            *refused, last = await refusals(visitor, "x" * 2000, " ", "<script>", "one")
            assert [each and each["code"] for each in refused] == [
                "message_too_long",
                "empty_message",
                "blocked_content",
            ]
            assert last is None


async def test_slow_mode_is_not_for_the_owner(server: RunningServer) -> None:
    change(server, slow_mode=60)
    async with visit(server, "x", OWNER) as owner:
        assert await refusals(owner, *"abc") == [None] * 3
    for _ in range(2):
        done(ask(server, "POST", "/api/messages", {"content": "over HTTP"}), 201)


async def test_slow_mode_that_was_switched_off_holds_nobody_up(server: RunningServer) -> None:
    change(server, slow_mode=60)
    async with everywhere(server) as guests:
        for visitor in guests:
            assert await refusals(visitor, "one") == [None]
        assert change(server, slow_mode=0.0)["slow_mode"] == 0
        await until(lambda: all(states(visitor)[-1]["slow_mode"] == 0 for visitor in guests))
        for visitor in guests:
            assert await refusals(visitor, *"abc") == [None] * 3


async def test_slow_mode_takes_fractions_of_a_second(server: RunningServer) -> None:
    change(server, slow_mode=0.4)
    async with visit(server, "ada") as ada:
        (ok, refused) = await refusals(ada, *"ab")
        assert ok is None
        assert refused is not None
        assert 0 < refused["retry_after"] <= 0.4


async def test_slow_mode_holds_for_one_session_on_all_workers(request: pytest.FixtureRequest, start: Start) -> None:
    with serving(request, start, "redis") as server:
        change(server, slow_mode=60)
        one, two = started(server)[-2:]
        known_by: dict[str, dict[str, Any]] = {"token": {}, "address": {"subprotocols": None}}
        for name, options in known_by.items():
            async with contextlib.AsyncExitStack() as stack:
                with alone(server, one):
                    ada = await stack.enter_async_context(visit(server, name, **options))
                with alone(server, two):
                    token = "" if options else ada.session["token"]
                    tab = await stack.enter_async_context(visit(server, name, token, **options))
                assert await refusals(ada, "one") == [None]
                await until(lambda tab=tab: tab.seqs)  # type: ignore[misc]
                (refused,) = await refusals(tab, "two")
                assert refused is not None
                assert (refused["code"], 50 < refused["retry_after"] <= 60) == ("slow_mode", True)


async def test_post_that_is_in_the_room_already_takes_no_turn(server: RunningServer) -> None:
    change(server, slow_mode=0.3)
    nonce = uuid.uuid4().hex
    async with visit(server, "bob") as ada:
        await ada.client.say("one", nonce=nonce)
        await until(lambda: len(ada.seqs) == 1)
        while len(ada.seqs) == 1:  # until its turn has come again
            seen = len(ada.frames)
            await ada.client.say("one", nonce=nonce)
            await until(lambda seen=seen: len(ada.frames) > seen)  # type: ignore[misc]
        assert ada.seqs[0] == ada.seqs[1]
        assert await refusals(ada, "two") == [None]


async def test_slow_mode_goes_on_over_other_changes_a_reconnect_and_a_restart(
    request: pytest.FixtureRequest, start: Start
) -> None:
    with serving(request, start, "sqlite") as server:
        change(server, slow_mode=60)
        async with visit(server, "ada") as ada:
            token = ada.session["token"]
            assert await refusals(ada, "one") == [None]
        async with visit(server, "ada", token) as ada:
            (refused,) = await refusals(ada, "two")
            assert refused is not None
            assert refused["code"] == "slow_mode"
            done(ask(server, "PUT", "/api/bans/eve", {}))
            change(server, paused=True)
            change(server, paused=False)
            (refused,) = await refusals(ada, "two")
            assert refused is not None
            assert refused["code"] == "slow_mode"
        start_again(server)
        assert (await session(server, "ada", token))["slow_mode"] == 60


async def test_owner_s_coming_and_going_reaches_everybody(server: RunningServer) -> None:
    async with everywhere(server) as guests:
        everybody = list(guests)
        async with visit(server, "x", OWNER) as owner, visit(server, "x", OWNER) as tab:
            await until(lambda: all(states(visitor)[-1]["owner_online"] for visitor in everybody))
            assert states(owner)[-1]["owner_online"]
            await tab.client.socket.close()
            with lines(server) as every:
                assert {done(asked(line, "PATCH", "/api/room", {}))["owner_online"] for line in every} == {True}
            async with everywhere(server) as late:
                assert [states(visitor)[0]["owner_online"] for visitor in late] == [True] * len(late)
        await until(lambda: all(not states(visitor)[-1]["owner_online"] for visitor in everybody))
        for visitor in everybody:  # what the test before has changed may still be announced
            changes = itertools.groupby(room["owner_online"] for room in states(visitor))
            assert [online for online, _ in changes] == [False, True, False]


async def test_room_frame_comes_only_with_a_change(own_server: RunningServer) -> None:
    async with everywhere(own_server) as guests:
        change(own_server, paused=False, slow_mode=0)
        done(ask(own_server, "PUT", "/api/bans/eve", {}))
        async with visit(own_server, "kim") as kim:
            await kim.client.say("Hello")
            await until(lambda: all("kim joined" in visitor.news and visitor.seqs for visitor in guests))
        change(own_server, slow_mode=5)
        await until(lambda: all(visitor.datas("room") for visitor in guests))
        assert [visitor.datas("room") for visitor in guests] == [[state(False, 5, False)]] * len(guests)
