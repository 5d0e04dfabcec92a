"""Several workers with one Redis are one room, whoever is connected to which of them."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.conftest import Start
from tests.support.running import RunningRedis, until
from tests.support.visitor import offer, past, refusal, session, visit
from tests.support.workers import HERE, THERE, agree, start_workers

pytestmark = pytest.mark.anyio


async def test_workers_share_one_order_of_messages_and_one_count_of_users(start: Start, redis: RunningRedis) -> None:
    a, b, c = servers = start_workers(start, redis, 3)
    async with visit(a, "ada") as ada, visit(b, "bob") as bob, visit(c, "cyd") as cyd:
        visitors = [ada, bob, cyd]
        for number in range(90):
            await visitors[number % 3].client.say(f"number {number}")
        await until(lambda: all(len(visitor.seqs) == 90 for visitor in visitors))
        assert ada.seqs == list(range(1, 91))
        assert ada.datas("message") == bob.datas("message") == cyd.datas("message")
        for visitor in visitors:
            own = [data["text" if "text" in data else "content"] for data in ada.datas("message")]
            assert sorted(own) == sorted(f"number {number}" for number in range(90))
            assert visitor.session["epoch"] == ada.session["epoch"]
        await until(lambda: agree(servers, 3, 90))
        await until(lambda: all(visitor.count == 3 for visitor in visitors))
        assert [(await past(server)) for server in servers] == [(ada.datas("message"), False)] * 3
    await until(lambda: agree(servers, 0, 90))
    assert not any(visitor.errors for visitor in visitors)
    assert not any(word in server.log() for server in servers for word in ("Traceback", "ERROR", "WARNING"))


async def test_name_belongs_to_one_session_on_all_workers(start: Start, redis: RunningRedis) -> None:
    a, b = servers = start_workers(start, redis)
    async with visit(a, "Ada") as ada:
        token = ada.session["token"]
        for name in ("Ada", "aDA"):
            assert (await refusal(b, name, **offer()))[:2] == ("username_taken", 1008)
            assert (await refusal(b, name))[:2] == ("username_taken", 1008)
        async with visit(b, "ada", token) as tab:
            assert (tab.session["username"], tab.session["token"]) == ("Ada", token)
            assert agree(servers, 1, 0)
        assert agree(servers, 1, 0)
    await until(lambda: agree(servers, 0, 0))
    assert (await refusal(b, "ada", **offer()))[:2] == ("username_taken", 1008)  # held after a drop
    assert (await session(b, "ada", token))["token"] == token


async def test_clients_that_know_no_tokens_share_a_name_over_workers(start: Start, redis: RunningRedis) -> None:
    a, b = servers = start_workers(start, redis)
    async with a.connect("ada", additional_headers=HERE) as ada, b.connect("ADA", additional_headers=HERE) as again:
        first, second = [(await client.read("session"))["data"] for client in (ada, again)]
        assert first["token"] == second["token"]
        assert agree(servers, 1, 0)
        assert (await refusal(b, "ada", additional_headers=THERE))[:2] == ("username_taken", 1008)
    await until(lambda: agree(servers, 0, 0))
    async with b.connect("ada", additional_headers=THERE) as other:  # nobody holds it after the drop
        assert (await other.read())["type"] == "history"


async def test_name_wanted_on_all_workers_at_once_is_given_once(start: Start, redis: RunningRedis) -> None:
    servers = start_workers(start, redis, 3)
    async with contextlib.AsyncExitStack() as stack:
        visits = [visit(servers[number % 3], "ada") for number in range(30)]
        visitors = await asyncio.gather(*map(stack.enter_async_context, visits))
        await until(lambda: sum(visitor.code == 1008 for visitor in visitors) == 29)
        assert sorted(visitor.errors for visitor in visitors) == [[], *[["username_taken"]] * 29]
        assert agree(servers, 1, 0)


async def test_join_and_leave_reach_everybody_once(start: Start, redis: RunningRedis) -> None:
    a, b = start_workers(start, redis)
    async with visit(a, "ada") as ada, visit(b, "bob") as bob:
        async with visit(a, "cyd") as cyd:
            await until(lambda: (ada.count, bob.count, cyd.count) == (3, 3, 3))
        async with visit(b, "cyd", cyd.session["token"]) as back:  # has not left, as the other worker knows
            assert back.session["token"] == cyd.session["token"]
        await until(lambda: (ada.count, bob.count) == (2, 2))
        await until(lambda: "cyd left" in ada.news and "cyd left" in bob.news, timeout=12)
        async with visit(a, "dan") as dan:
            await until(lambda: (ada.count, bob.count, dan.count) == (3, 3, 3))
            await until(lambda: "dan joined" in ada.news and "dan joined" in bob.news)
        assert ada.news == ["bob joined", "cyd joined", "cyd left", "dan joined"]
        assert bob.news == ["cyd joined", "cyd left", "dan joined"]


async def test_nonce_counts_on_every_worker(start: Start, redis: RunningRedis) -> None:
    a, b = servers = start_workers(start, redis)
    async with visit(a, "ada") as ada, visit(b, "ada", ada.session["token"]) as tab, visit(b, "bob") as bob:
        await ada.client.say("once", nonce="n")
        await until(lambda: all(visitor.seqs == [1] for visitor in (ada, tab, bob)))
        await tab.client.say("once", nonce="n")
        await until(lambda: tab.seqs == [1, 1])
        assert tab.datas("message") == ada.datas("message") * 2
        await tab.client.say("something else", nonce="n")
        await until(lambda: tab.errors == ["nonce_reused"])
        for number in range(20):  # on both at once
            await asyncio.gather(*(v.client.say("twice", nonce=f"m{number}") for v in (ada, tab)))
        await until(lambda: len(ada.seqs + tab.seqs) == 63)
        assert sorted(ada.seqs + tab.seqs) == sorted([*range(1, 22)] * 3)  # live on both, and once as an answer
        await until(lambda: bob.seqs == list(range(1, 22)) and agree(servers, 2, 21))


async def test_recovery_on_another_worker_is_exactly_what_was_missed(start: Start, redis: RunningRedis) -> None:
    a, b = start_workers(start, redis, HISTORY_LIMIT="5")
    async with visit(a, "ada") as ada, visit(b, "bob") as bob:
        epoch = ada.session["epoch"]
        for number in range(30):
            await bob.client.say(f"number {number}")
        await until(lambda: len(ada.seqs) == len(bob.seqs) == 30)
        everything = ada.datas("message")
        for server, since in ((a, 0), (b, 0), (a, 17), (b, 17), (b, 30)):
            assert await past(server, f"&epoch={epoch}&since={since}") == (everything[since:], True)
        for query in (f"&epoch={epoch}&since=31", "&epoch=another&since=30"):
            assert await past(b, query) == (everything[-5:], False)


async def test_users_of_a_killed_worker_leave_and_nobody_else_notices(start: Start, redis: RunningRedis) -> None:
    a, b = start_workers(start, redis)
    async with visit(b, "bob") as bob, visit(b, "cyd") as cyd:
        async with visit(a, "ada") as ada, visit(a, "dan"):
            await until(lambda: bob.count == cyd.count == 4)
            a.kill()
        for number in range(1, 500):
            await bob.client.say("Still here")
            await until(lambda number=number: number in bob.seqs and number in cyd.seqs, timeout=2)  # type: ignore[misc] # no type for a default
            if bob.count == cyd.count == 2:
                break
            await asyncio.sleep(0.05)
        assert agree([b], 2, number)
        await until(lambda: all(sorted(v.news[-2:]) == ["ada left", "dan left"] for v in (bob, cyd)))
        assert (bob.errors, cyd.errors) == ([], [])
        a.start()
        async with visit(a, "ada", ada.session["token"]) as back:
            assert back.session["token"] == ada.session["token"]
            assert back.frames[0]["data"] == bob.datas("message")[-100:]
            await until(lambda: agree([a, b], 3, number))
    assert "Traceback" not in a.log() + b.log()
