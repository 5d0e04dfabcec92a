"""A room that is paused or slowed down, and who is told, at the wire of a real server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Start
from tests.support.owner import JSON, STORES, alone, ask, asked, done, everywhere, lines, serving, start_again
from tests.support.running import RunningServer, until
from tests.support.visitor import OWNER, Visitor, session, visit
from tests.support.workers import started

pytestmark = pytest.mark.anyio


@pytest.fixture(params=STORES)
def server(request: pytest.FixtureRequest, start: Start) -> Iterator[RunningServer]:
    with serving(request, start, request.param) as running:
        yield running


def change(server: RunningServer, **body: object) -> JSON:
    room: JSON = done(ask(server, "PATCH", "/api/room", body))
    return room


async def refusals(visitor: Visitor, *texts: str) -> list[JSON | None]:
    """What each post was refused with, None where it was not."""
    answers: list[JSON | None] = []
    for number, text in enumerate(texts):
        seen = len(visitor.frames)
        nonce = f"n-{seen}-{number}"
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


def told(visitor: Visitor) -> list[JSON]:
    """How the room was, as it was told last, at the door or since."""
    door = {name: visitor.session[name] for name in state(False, 0, False)}
    return [door, *visitor.datas("room")]


async def test_paused_room_is_the_owner_s_alone_until_it_opens(server: RunningServer) -> None:
    async with visit(server, "ada") as ada, everywhere(server) as guests:
        assert change(server) == state(False, 0, False)
        assert change(server, paused=True) == state(True, 0, False)
        everybody = [ada, *guests]
        await until(lambda: all(told(visitor)[-1]["paused"] for visitor in everybody))
        for visitor in everybody:
            for refused in await refusals(visitor, "one", " ", "x" * 2000):
                assert refused is not None
                assert (refused["code"], "retry_after" in refused) == ("paused", False)
        assert done(ask(server, "POST", "/api/messages", {"content": "over HTTP"}), 201)["seq"] == 1
        async with visit(server, "x", OWNER) as owner:
            assert told(owner)[0] == state(True, 0, True)
            assert await refusals(owner, "by hand") == [None]
        start_again(server, "SIGKILL")
    async with everywhere(server) as guests:
        assert [told(visitor)[0]["paused"] for visitor in guests] == [True] * len(guests)
        assert change(server, paused=False)["paused"] is False
        await until(lambda: all(not told(visitor)[-1]["paused"] for visitor in guests))
        for visitor in guests:
            assert await refusals(visitor, "again") == [None]


async def test_slow_mode_lets_one_message_by_in_its_time(server: RunningServer) -> None:
    async with everywhere(server) as guests:
        assert change(server, slow_mode=60)["slow_mode"] == 60
        await until(lambda: all(told(visitor)[-1]["slow_mode"] == 60 for visitor in guests))
        for visitor in guests:
            first, *others, last = await refusals(visitor, "x" * 2000, " ", "<script>", "one", "two", "three")
            assert first is not None
            assert first["code"] == "message_too_long"
            assert [other and other["code"] for other in others] == [
                "empty_message",
                "blocked_content",
                None,
                "slow_mode",
            ]
            assert last is not None
            assert (last["code"], 50 < last["retry_after"] <= 60) == ("slow_mode", True)
        async with visit(server, "x", OWNER) as owner:
            assert await refusals(owner, *"abc") == [None] * 3
        for _ in range(2):
            done(ask(server, "POST", "/api/messages", {"content": "over HTTP"}), 201)
        assert change(server, slow_mode=0.0)["slow_mode"] == 0
        await until(lambda: all(told(visitor)[-1]["slow_mode"] == 0 for visitor in guests))
        for visitor in guests:
            assert await refusals(visitor, *"abc") == [None] * 3
        change(server, slow_mode=0.4)
        await until(lambda: all(told(visitor)[-1]["slow_mode"] == 0.4 for visitor in guests))
        (ok, refused) = await refusals(guests[0], *"ab")
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
    async with visit(server, "ada") as ada:
        await ada.client.say("one", nonce="n-1")
        await until(lambda: ada.seqs == [1])
        while ada.seqs == [1]:  # until its turn has come again
            seen = len(ada.frames)
            await ada.client.say("one", nonce="n-1")
            await until(lambda seen=seen: len(ada.frames) > seen)  # type: ignore[misc]
        assert ada.seqs == [1, 1]
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


async def test_owner_s_coming_and_going_is_told_to_all(server: RunningServer) -> None:
    async with everywhere(server) as guests:
        everybody = list(guests)
        async with visit(server, "x", OWNER) as owner, visit(server, "x", OWNER) as tab:
            await until(lambda: all(told(visitor)[-1]["owner_online"] for visitor in everybody))
            assert told(owner)[-1]["owner_online"]
            await tab.client.socket.close()
            with lines(server) as every:
                assert {done(asked(line, "PATCH", "/api/room", {}))["owner_online"] for line in every} == {True}
            async with everywhere(server) as late:
                assert [told(visitor)[0]["owner_online"] for visitor in late] == [True] * len(late)
        await until(lambda: all(not told(visitor)[-1]["owner_online"] for visitor in everybody))
        assert [[room["owner_online"] for room in told(visitor)] for visitor in everybody] == [
            [False, True, False]
        ] * len(everybody)


async def test_room_is_told_only_when_it_changed(server: RunningServer) -> None:
    async with everywhere(server) as guests:
        change(server, paused=False, slow_mode=0)
        done(ask(server, "PUT", "/api/bans/eve", {}))
        async with visit(server, "ada") as ada:
            await ada.client.say("Hello")
            await until(lambda: all(visitor.count == len(guests) + 1 and visitor.seqs for visitor in guests))
        change(server, slow_mode=5)
        await until(lambda: all(visitor.datas("room") for visitor in guests))
        assert [visitor.datas("room") for visitor in guests] == [[state(False, 5, False)]] * len(guests)
