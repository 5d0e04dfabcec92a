"""Messages that are hidden, at the wire of a real server: for everybody, at once, for good, and out of the store."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator

import pytest

from tests.conftest import Start
from tests.support.owner import JSON, STORES, ask, done, everywhere, fault, lines, page, serving, start_again
from tests.support.running import RunningRedis, RunningServer, until
from tests.support.visitor import Visitor, session, visit
from tests.support.workers import everything

pytestmark = pytest.mark.anyio


@pytest.fixture(params=STORES)
def server(request: pytest.FixtureRequest, start: Start) -> Iterator[RunningServer]:
    with serving(request, start, request.param) as running:
        yield running


def hide(server: RunningServer, message: JSON) -> None:
    assert done(ask(server, "DELETE", f"/api/messages/{message['id']}")) == {"hidden": 1}


async def say(visitor: Visitor, *texts: str, nonce: str = "") -> list[JSON]:
    """Posts, and waits for its own posts to come back."""
    before = len(visitor.seqs)
    for number, text in enumerate(texts):
        await visitor.client.say(text, nonce=f"{nonce or uuid.uuid4()}-{number}")
    await until(lambda: len(visitor.seqs) >= before + len(texts))
    return visitor.datas("message")[before:]


def order(visitor: Visitor) -> list[str]:
    """Ids as they came, those of hidden messages with a minus."""
    found = [frame for frame in visitor.frames if frame["type"] in ("message", "hidden")]
    return [("-" if frame["type"] == "hidden" else "") + frame["data"]["id"] for frame in found]


async def test_deletion_reaches_everybody_once_and_in_order_with_messages(server: RunningServer) -> None:
    async with visit(server, "ada") as ada, everywhere(server) as guests:
        (first, second) = await say(ada, "one", "two")
        hide(server, first)
        (third,) = await say(ada, "three")
        hide(server, third)
        expected = [first["id"], second["id"], "-" + first["id"], third["id"], "-" + third["id"]]
        everybody = [ada, *guests]
        await until(lambda: all(len(visitor.datas("hidden")) == 2 for visitor in everybody))
        await say(ada, "the end")
        await until(lambda: all(len(visitor.seqs) == 4 for visitor in everybody))
        assert [order(visitor)[:-1] for visitor in everybody] == [expected] * len(everybody)
        assert ada.datas("hidden") == [{"id": first["id"]}, {"id": third["id"]}]
    async with everywhere(server) as late:
        for visitor in late:
            assert [data["text" if "text" in data else "content"] for data in visitor.frames[0]["data"]] == [
                "two",
                "the end",
            ]
    assert [data["seq"] for data in page(server)] == [2, 4]


async def test_message_is_hidden_once_however_many_ask(server: RunningServer) -> None:
    async with visit(server, "ada") as ada:
        posted = await say(ada, "one", "two", "three", "four")
        asking = [
            asyncio.to_thread(ask, server, "DELETE", f"/api/messages/{message['id']}")
            for message in posted
            for _ in range(4)
        ]
        answers = [response.status_code for response in await asyncio.gather(*asking)]
        await say(ada, "the end")
        assert sorted(order(ada)) == sorted(
            [data["id"] for data in ada.datas("message")] + [f"-{message['id']}" for message in posted]
        )
        assert sorted(answers) == [200] * 4 + [404] * 12


async def test_all_of_a_user_in_any_case_and_mine_after_coming_back(server: RunningServer) -> None:
    async with visit(server, "Ada") as ada, visit(server, "bob") as bob, visit(server, "adam") as adam:
        token = ada.session["token"]
        await say(ada, "a1", "a2")
        await say(bob, "b1", "b2")
        await say(adam, "m1")
        assert done(ask(server, "DELETE", "/api/messages?username=BOB")) == {"hidden": 2}
        await until(lambda: len(adam.datas("hidden")) == 2)
    async with visit(server, "ada", token) as again, visit(server, "carol") as carol:
        await say(again, "a3")
        await say(carol, "c1")
        token = again.session["token"]
        path = "/api/messages/mine"
        with lines(server) as every:
            for line in every:
                headers = {"Authorization": f"Bearer {token}"}
                hidden = done(line.request("DELETE", path, headers=headers))["hidden"]
                assert hidden == (3 if line is every[0] else 0)
        await until(lambda: len(carol.datas("hidden")) == 3)
        assert fault(ask(server, "DELETE", path, token=None))[:2] == (401, "unauthorized")
        assert fault(ask(server, "DELETE", path, token=f"{token[:-3]}xxx"))[0] == 401
        refused = ask(server, "DELETE", path)
        assert fault(refused)[:2] == (403, "forbidden")
        assert "DELETE /api/messages?username=" in refused.text
    assert [data["text"] for data in page(server)] == ["m1", "c1"]


async def test_visitor_deletes_a_message_of_one_s_own_and_no_other(server: RunningServer) -> None:
    async with visit(server, "ada") as ada, visit(server, "bob") as bob:
        (own,), (other,) = await say(ada, "own"), await say(bob, "other")
        token = ada.session["token"]
        assert fault(ask(server, "DELETE", f"/api/messages/{other['id']}", token=token))[:2] == (404, "not_found")
        assert fault(ask(server, "DELETE", f"/api/messages/{uuid.uuid4()}", token=token))[:2] == (404, "not_found")
        assert done(ask(server, "DELETE", f"/api/messages/{own['id']}", token=token)) == {"hidden": 1}
        await until(lambda: bob.datas("hidden") == [{"id": own["id"]}])
        assert fault(ask(server, "DELETE", f"/api/messages/{own['id']}", token=token))[0] == 404
        assert fault(ask(server, "DELETE", f"/api/messages/{own['id']}", token=f"{token[:-3]}xxx"))[0] == 401
    assert [data["text"] for data in page(server)] == ["other"]


async def test_deleting_one_s_own_is_limited(server: RunningServer) -> None:
    here = {"X-Forwarded-For": "203.0.113.8"}
    token = (await session(server, "ada", additional_headers=here))["token"]
    with lines(server) as every:
        headers = {"Authorization": f"Bearer {token}", **here}
        answers = [every[0].request("DELETE", f"/api/messages/{uuid.uuid4()}", headers=headers) for _ in range(21)]
    assert [answer.status_code for answer in answers] == [404] * 20 + [429]


async def test_author_is_of_the_session_on_every_worker(server: RunningServer) -> None:
    async with visit(server, "ada") as ada, everywhere(server) as guests:
        (first,) = await say(ada, "one")
        authors = [visitor.session["author"] for visitor in (ada, *guests)]
        assert len(set(authors)) == len(authors)
        assert (first["author"], len(first["author"])) == (ada.session["author"], 12)
        await until(lambda: all(visitor.datas("message") for visitor in guests))
        assert {visitor.datas("message")[0]["author"] for visitor in guests} == {first["author"]}
        token = ada.session["token"]
    async with visit(server, "ada", token) as again:
        assert again.session["author"] == again.frames[0]["data"][0]["author"] == first["author"]
    assert token.split(".")[2] not in first["author"]


async def test_mine_is_limited_and_a_name_is_not_enough(server: RunningServer) -> None:
    """Who takes a name that has become free is not who had it."""
    here = {"X-Forwarded-For": "203.0.113.7"}
    async with visit(server, "ada", subprotocols=None) as ada:
        await say(ada, "from the first")
    await until(lambda: server.stats()["active_users"] == 0)
    token = (await session(server, "ada", additional_headers=here))["token"]
    path = "/api/messages/mine"
    with lines(server) as every:
        headers = {"Authorization": f"Bearer {token}", **here}
        answers = [every[0].request("DELETE", path, headers=headers) for _ in range(7)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 2
    assert [answer.json() for answer in answers[:5]] == [{"hidden": 0}] * 5
    assert int(answers[6].headers["Retry-After"]) > 1
    assert len(page(server)) == 1


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
async def test_hidden_text_is_nowhere_and_stays_hidden_over_a_restart(
    server: RunningServer, shared_redis: RunningRedis, how: str
) -> None:
    """Not in the database, its log or the copies that a start makes; and Redis has no key left that holds it."""
    secret = "Vz7-the-text-that-must-go"
    async with visit(server, "ada") as ada:
        token, epoch = ada.session["token"], ada.session["epoch"]
        (before, gone, after) = await say(ada, "before", f"{secret} <b>", "after", nonce="n")
        assert kept(server, shared_redis, secret)
        hide(server, gone)
        assert not kept(server, shared_redis, secret)
        await say(ada, "more")
        assert not kept(server, shared_redis, secret)
    start_again(server, how)
    assert not kept(server, shared_redis, secret)
    assert [data["seq"] for data in page(server)] == [1, 3, 4]
    assert server.stats()["total_messages"] == 4
    async with visit(server, "ada", token, f"&epoch={epoch}&since=3") as ada:
        assert ada.frames[0]["hidden"] == [gone["id"]]
        assert [data["seq"] for data in ada.frames[0]["data"]] == [4]
        await ada.client.say(f"{secret} <b>", nonce="n-1")
        await until(lambda: bool(ada.datas("hidden")))
        assert ada.datas("hidden", "message") == [{"id": gone["id"], "nonce": "n-1"}]
        await ada.client.say("another text", nonce="n-1")
        await until(lambda: len(ada.datas("hidden")) == 2)
        await say(ada, "next")
        assert ada.seqs == [5]
    assert before["seq"], after["seq"] == (1, 3)
    assert not kept(server, shared_redis, secret)


def kept(server: RunningServer, redis: RunningRedis, text: str) -> bool:
    """Whether the store still holds a text."""
    if "WORKERS" in server.variables:
        return any(text in line for line in everything(redis.url))
    files = [path for path in server.folder.iterdir() if path.name.startswith("chat.db")]
    assert files
    return any(text.encode() in path.read_bytes() for path in files)


async def test_who_comes_back_hears_of_what_was_hidden_meanwhile(server: RunningServer) -> None:
    async with visit(server, "ada") as ada:
        epoch = ada.session["epoch"]
        posted = await say(ada, "1", "2", "3", "4")
        hide(server, posted[1])
        posted += await say(ada, "5")
        hide(server, posted[3])
        posted += await say(ada, "6")
        for since, hidden, missed in (
            (6, [], []),
            (5, [3], [6]),  # which is after the first hiding, and before the second
            (4, [1, 3], [5, 6]),
            (3, [1], [5, 6]),  # who has not seen the fourth
            (2, [1], [3, 5, 6]),
            (1, [], [3, 5, 6]),
            (0, [], [1, 3, 5, 6]),
        ):
            async with everywhere(server, query=f"&epoch={epoch}&since={since}") as returning:
                for visitor in returning:
                    frame = visitor.frames[0]
                    assert frame["recovered"]
                    assert frame["hidden"] == [posted[index]["id"] for index in hidden]
                    assert [data["seq"] for data in frame["data"]] == missed
    async with visit(server, "bob") as bob:
        assert "hidden" not in bob.frames[0]


async def test_thousands_are_hidden_at_once_while_others_go_on(server: RunningServer) -> None:
    async with visit(server, "flooder") as flooder, visit(server, "ada") as ada, everywhere(server) as guests:
        texts = [f"spam {number}" for number in range(3000)]
        await say(flooder, *texts, nonce="s")
        hiding = asyncio.create_task(asyncio.to_thread(ask, server, "DELETE", "/api/messages?username=Flooder"))
        said = 0
        while not hiding.done() or said < 20:
            await ada.client.say(f"{said}", nonce=f"a-{said}")
            said += 1
            await asyncio.sleep(0.01)
        assert done(await hiding) == {"hidden": 3000}
        everybody = [ada, flooder, *guests]
        await until(lambda: all(len(visitor.seqs) == 3000 + said for visitor in everybody))
        await until(lambda: all(len(visitor.datas("hidden")) == 3000 for visitor in everybody))
        assert all(len(set(map(str, visitor.datas("hidden")))) == 3000 for visitor in everybody)
        assert [visitor.code for visitor in everybody] == [None] * len(everybody)
        assert not any(visitor.errors for visitor in everybody)
    assert [data["text"] for data in page(server, limit=1000)] == [f"{number}" for number in range(said)]


async def test_newcomer_sees_what_was_said_before_the_flood_that_is_hidden(
    request: pytest.FixtureRequest, start: Start
) -> None:
    with serving(request, start, "sqlite", HISTORY_LIMIT="5", RECOVERY_LIMIT="5") as server:
        async with visit(server, "ada") as ada, visit(server, "flooder") as flooder:
            await say(ada, "1", "2", "3")
            await say(flooder, *(f"spam {number}" for number in range(20)))
            done(ask(server, "DELETE", "/api/messages?username=flooder"))
        async with visit(server, "bob") as bob:
            assert [data["seq"] for data in bob.frames[0]["data"]] == [1, 2, 3]
