"""Names, session tokens and the owner, at the wire of a real server."""

from __future__ import annotations

import pytest

from tests.conftest import Start
from tests.support.running import until
from tests.support.visitor import OWNER, offer, refusal, session

pytestmark = pytest.mark.anyio


async def test_token_proves_a_name_and_nobody_else_gets_it(start: Start) -> None:
    server = start()
    async with server.connect("Ada", **offer()) as ada:
        token = (await ada.read("session"))["data"]["token"]
        assert ada.socket.subprotocol == "chat.v1"
        for name in ("Ada", "ada"):
            assert (await refusal(server, name, **offer()))[:2] == ("username_taken", 1008)
            assert (await refusal(server, name))[:2] == ("username_taken", 1008)
        assert (await session(server, "ada", token))["username"] == "Ada"  # another tab
        assert server.stats()["active_users"] == 1
    await until(lambda: server.stats()["active_users"] == 0)
    assert (await refusal(server, "ada", **offer()))[0] == "username_taken"  # held after a drop
    assert (await session(server, "ada", token))["username"] == "Ada"


async def test_token_of_another_name_or_a_forged_one_counts_as_absent(start: Start) -> None:
    server = start()
    token = (await session(server, "ada"))["token"]
    fresh = await session(server, "bob", token)
    assert fresh["token"].startswith("s1.bob.")
    assert (await refusal(server, "ada", **offer(f"bearer.{token[:-2]}xx")))[0] == "username_taken"


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
async def test_token_holds_over_a_restart_without_a_secret_key(start: Start, how: str) -> None:
    server = start(SHUTDOWN_SPREAD="0")
    async with server.connect("ada", **offer()) as ada:
        token = (await ada.read("session"))["data"]["token"]
        await ada.say("once", nonce="n")
        first = (await ada.read("message"))["data"]
    if how == "SIGTERM":
        server.terminate()
    else:
        server.kill()
    server.start()
    async with server.connect("ada", **offer(f"bearer.{token}")) as ada:
        await ada.read("user_count")
        await ada.say("once", nonce="n")
        assert (await ada.read("message"))["data"] == first
    assert server.stats()["total_messages"] == 1


async def test_secret_key_signs_in_the_place_of_the_kept_one(start: Start) -> None:
    server = start(SECRET_KEY="a secret key of some length", SHUTDOWN_SPREAD="0")
    token = (await session(server, "ada"))["token"]
    server.terminate()
    server.variables["SECRET_KEY"] = "another key of some length"
    server.start()
    assert (await session(server, "ada", token))["token"] != token


async def test_clients_that_know_no_tokens_share_a_name_with_their_address_alone(start: Start) -> None:
    server = start()
    here, there = {"X-Forwarded-For": "1.2.3.4"}, {"X-Forwarded-For": "5.6.7.8"}
    async with server.connect("ada", additional_headers=here) as ada:
        await ada.read("user_count")
        async with server.connect("ada", additional_headers=here) as again:
            assert (await again.read())["type"] == "history"
        assert (await session(server, "ada", additional_headers=here))["username"] == "ada"
        assert (await refusal(server, "ada", additional_headers=there))[0] == "username_taken"
    await until(lambda: server.stats()["active_users"] == 0)
    async with server.connect("ada", additional_headers=there) as other:  # nobody holds it after the drop
        assert (await other.read())["type"] == "history"


@pytest.mark.parametrize("name", ["owner", "Boss", "b0ss", "b_oss", "ADM1N", "support", "sys-tem"])
async def test_reserved_names_and_look_alikes_are_nobody_s(start: Start, name: str) -> None:
    server = start(OWNER_USERNAME="Boss")
    assert (await refusal(server, name, **offer()))[:2] == ("username_reserved", 1008)


async def test_owner_comes_by_token_under_the_owner_s_name(start: Start) -> None:
    server = start(OWNER_TOKEN=OWNER, OWNER_USERNAME="Boss")
    async with server.connect("whoever", **offer(f"bearer.{OWNER}")) as owner, server.connect("ada") as ada:
        assert owner.socket.subprotocol == "chat.v1"
        data = (await owner.read("session"))["data"]
        assert (data["username"], data["role"], "token" in data) == ("Boss", "owner", False)
        await owner.say("Hello")
        assert (await ada.read("message"))["data"]["role"] == "owner"
        await ada.say("Hello")
        assert "role" not in (await ada.read("message"))["data"]
    assert OWNER not in server.log()


async def test_wrong_owner_tokens_are_logged_and_slowed_down_and_the_right_one_is_not(start: Start) -> None:
    server = start(OWNER_TOKEN=OWNER)
    wrong = "w" * 32
    codes = [(await refusal(server, "ada", **offer(f"bearer.{wrong}")))[:2] for _ in range(7)]
    assert codes == [("invalid_token", 1008)] * 5 + [("rate_limited", 1013)] * 2
    assert (await session(server, "x", OWNER))["role"] == "owner"
    assert (await session(server, "ada"))["role"] == "visitor"
    assert server.log().count("Wrong token from 127.0.0.1") == 5
    assert wrong not in server.log()


async def test_without_an_owner_token_nobody_is_the_owner(start: Start) -> None:
    server = start()
    assert (await refusal(server, "ada", **offer(f"bearer.{OWNER}")))[:2] == ("invalid_token", 1008)
