"""The main path, with a real server process and the `websockets` client."""

from __future__ import annotations

import pytest

from tests.conftest import Start

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("command", ["app", "uvicorn"])
async def test_two_visitors_talk(start: Start, command: str) -> None:
    server = start(command)
    async with server.connect("ada") as ada:
        assert [(await ada.read())["type"] for _ in range(3)] == ["history", "session", "user_count"]
        async with server.connect("bob") as bob:
            assert (await ada.read("system"))["data"]["event"] == "user_joined"
            await bob.say("Hello")
            for client in (ada, bob):
                data = (await client.read("message"))["data"]
                assert (data["seq"], data["username"], data["content"]) == (1, "bob", "Hello")
    assert server.get("/api/stats").json()["total_messages"] == 1
    assert server.terminate() in (0, -15)
    assert "Traceback" not in server.log()
