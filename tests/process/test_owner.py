"""The owner's HTTP interface at the wire of a real server: who may ask, and what for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import httpx2
import pytest

from app.chat.credentials import OWNER_SESSION, Credentials
from app.config import Settings
from tests.conftest import Start
from tests.support.owner import NOBODY, STORES, UNKNOWN, ask, asked, done, fault, lines, page, post, serving
from tests.support.running import RunningServer, until
from tests.support.visitor import OWNER, session, visit

pytestmark = pytest.mark.anyio

WRONG = "wrong-" * 6
ENDPOINTS: list[tuple[str, str, object]] = [
    ("POST", "/api/messages", {"content": "Hello"}),
    ("GET", "/api/messages", None),
    ("DELETE", UNKNOWN, None),
    ("DELETE", "/api/messages?username=nobody", None),
    ("PUT", NOBODY, {}),
    ("GET", NOBODY, None),
    ("DELETE", NOBODY, None),
    ("GET", "/api/bans", None),
    ("PATCH", "/api/room", {}),
]


@pytest.fixture(params=STORES)
def server(request: pytest.FixtureRequest, start: Start) -> Iterator[RunningServer]:
    with serving(request, start, request.param) as running:
        yield running


async def test_post_is_a_message_to_all_and_is_paged_through_with_its_gaps(server: RunningServer) -> None:
    async with visit(server, "ada") as ada:
        first = post(server, "a < b", "n-1")
        assert (first["seq"], first["username"], first["role"], first["nonce"]) == (1, "owner", "owner", "n-1")
        assert (first["content"], first["text"]) == ("a &lt; b", "a < b")
        await ada.client.say("from a visitor")
        await until(lambda: len(ada.seqs) == 2)
        posted = [post(server, f"{number}") for number in range(3, 8)]
        assert "nonce" not in posted[0]
        await until(lambda: len(ada.seqs) == 7)
    live = ada.datas("message")
    assert [data["seq"] for data in live] == list(range(1, 8)) == [data["seq"] for data in page(server)]
    assert live[0] == {**first, "author": live[0]["author"]}
    assert [data["role"] for data in page(server, limit=2)] == ["owner", "visitor"]
    for message in posted[1:3]:
        done(ask(server, "DELETE", f"/api/messages/{message['id']}"))
    pages = [page(server, after=after, limit=2) for after in (0, 2, 6, 7)]
    assert [[data["seq"] for data in found] for found in pages] == [[1, 2], [3, 6], [7], []]
    assert pages[0][0] == first
    assert page(server, after=2**53) == []
    assert [[data["seq"] for data in page(server, last=last)] for last in (1, 3, 1000)] == [
        [7],
        [3, 6, 7],
        [1, 2, 3, 6, 7],
    ]


async def test_nonce_is_good_for_one_message_on_every_worker(server: RunningServer) -> None:
    first = post(server, "once", "n-1")
    with lines(server) as every:
        for line in every:
            assert done(asked(line, "POST", "/api/messages", {"content": "once", "nonce": "n-1"})) == first
            other = asked(line, "POST", "/api/messages", {"content": "other", "nonce": "n-1"})
            assert fault(other)[:2] == (409, "nonce_reused")
        done(ask(server, "DELETE", f"/api/messages/{first['id']}"))
        for line, content in itertools.product(every, ("once", "other")):
            gone = asked(line, "POST", "/api/messages", {"content": content, "nonce": "n-1"})
            assert fault(gone)[:2] == (410, "hidden")
    assert page(server) == []
    assert post(server, "twice", "n-2")["seq"] == 2


async def test_owner_who_is_here_and_who_posts_over_http_is_one(server: RunningServer) -> None:
    async with visit(server, "x", OWNER) as owner:
        posted = post(server, "over HTTP", "n-1")
        await owner.client.say("over HTTP", nonce="n-1")  # the same session, so it is the same post
        await until(lambda: owner.seqs == [posted["seq"]] * 2)
        await owner.client.say("over WebSocket", nonce="n-2")
        await until(lambda: owner.seqs == [posted["seq"]] * 2 + [2])
    assert done(ask(server, "POST", "/api/messages", {"content": "over WebSocket", "nonce": "n-2"}))["seq"] == 2
    assert fault(ask(server, "POST", "/api/messages", {"content": "other", "nonce": "n-2"}))[0] == 409


async def test_nobody_else_learns_anything(refusing: RunningServer) -> None:
    """Without a token 401, with a visitor's 403 (404 of a message), for what there is as for what there is not."""
    message = post(refusing, "Hello")
    visitor = (await session(refusing, "ada"))["token"]
    done(ask(refusing, "PUT", "/api/bans/eve", {}))
    there = [
        *(("DELETE", f"/api/messages/{message['id']}", None), ("DELETE", "/api/messages?username=owner", None)),
        *((method, "/api/bans/eve", None) for method in ("GET", "DELETE")),
        *(("POST", "/api/messages", b"no JSON"), ("GET", "/api/messages?limit=many", None)),
        *(("PUT", "/api/bans/eve", {"seconds": -1}), ("PATCH", "/api/room", {"paused": 1})),
    ]
    answers: set[tuple[int, str]] = set()
    for (method, path, body), token in itertools.product([*ENDPOINTS, *there], (None, visitor)):
        refused = ask(refusing, method, path, body, token=token)
        answers.add((refused.status_code, refused.text))
        others = (404, "not_found", None) if path.startswith("/api/messages/") else (403, "forbidden", None)
        assert fault(refused) == (others if token else (401, "unauthorized", None))
        assert refused.headers.get("WWW-Authenticate") == (None if token else "Bearer")
    assert len(answers) == 3
    assert page(refusing, after=message["seq"] - 1) == [message]
    assert [ban["username"] for ban in done(ask(refusing, "GET", "/api/bans"))["bans"]] == ["eve"]
    assert visitor not in refusing.log()
    assert OWNER not in refusing.log()


def test_header_that_is_no_bearer_token_is_none(refusing: RunningServer) -> None:
    with httpx2.Client(base_url=f"http://127.0.0.1:{refusing.port}") as line:
        for before in ("Basic ", "", "Bearer", "Token ", "Bearer \xe4"):
            refused = line.get("/api/bans", headers={b"Authorization": f"{before}{OWNER}".encode("latin-1")})
            assert fault(refused)[:2] == (401, "unauthorized")
        for before in ("bearer ", "BEARER  "):
            assert line.get("/api/bans", headers={"Authorization": before + OWNER}).status_code == 200


def test_wrong_tokens_are_limited_by_address_and_the_right_one_still_works(refusing: RunningServer) -> None:
    here, there = ({"X-Forwarded-For": f"203.0.113.{number}"} for number in (7, 8))
    codes = [fault(ask(refusing, *ENDPOINTS[number], token=WRONG, **here))[:2] for number in range(7)]
    assert codes == [(401, "invalid_token")] * 5 + [(429, "rate_limited")] * 2
    refused = ask(refusing, "GET", "/api/bans", token="s1.ada.forged.forged", **here)
    assert 1 <= int(refused.headers["Retry-After"]) <= 12
    assert 0 < refused.json()["error"]["retry_after"] <= 12
    assert ask(refusing, "GET", "/api/bans", token=WRONG, **there).status_code == 401
    assert ask(refusing, "GET", "/api/bans", **here).status_code == 200
    assert refusing.log().count("Wrong token from 203.0.113.7") == 5
    assert "Too many wrong tokens" in refused.text
    assert not [secret for secret in (WRONG, OWNER, "forged") if secret in refusing.log()]


async def test_session_token_never_makes_the_owner(start: Start) -> None:
    """Neither does one for the owner's session that was made with the secret."""
    secret = "a secret key of some length"
    server = start(OWNER_TOKEN=OWNER, SECRET_KEY=secret)
    forged = Credentials(Settings(secret_key=secret), "").issue("mallory", OWNER_SESSION)
    assert {fault(ask(server, *endpoint, token=forged))[:2] for endpoint in ENDPOINTS[:4]} == {(401, "invalid_token")}
    assert (await session(server, "mallory", forged))["role"] == "visitor"


def test_server_without_an_owner_takes_no_token(start: Start) -> None:
    server = start()
    answers = {fault(ask(server, *endpoint, token=token)) for endpoint in ENDPOINTS[:2] for token in (OWNER, "")}
    assert answers == {(401, "invalid_token", None)}


def test_room_can_be_asked_for(refusing: RunningServer) -> None:
    assert done(ask(refusing, "GET", "/api/room")) == {"paused": False, "slow_mode": 0.0, "owner_online": False}


def test_pages_of_a_listed_origin_may_ask(refusing: RunningServer) -> None:
    site, headers = "https://site.example", "authorization,content-type"
    for method in ("DELETE", "PATCH", "PUT", "POST"):
        wanted = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
        answer = ask(refusing, "OPTIONS", "/api/messages", token=None, Origin=site, **wanted)
        assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, site)
        other = ask(refusing, "OPTIONS", "/api/messages", token=None, Origin="https://evil.example", **wanted)
        assert (other.status_code, "Access-Control-Allow-Origin" in other.headers) == (400, False)
    refused = ask(refusing, "PATCH", "/api/room", token=None, Origin=site)
    assert (refused.status_code, refused.headers["Access-Control-Allow-Origin"]) == (401, site)
