"""The ways that docs/architecture.md lists are the ways that a real server takes."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import httpx2
import pytest

from tests.conftest import Start
from tests.support.running import Client, RunningServer, until
from tests.support.visitor import OWNER
from tests.support.ways import steps

pytestmark = pytest.mark.anyio


class Traced:
    """A server that tells which of our functions were called."""

    def __init__(self, start: Start, file: Path) -> None:
        self.file = file
        self.server: RunningServer = start("traced", TRACED=str(file), OWNER_TOKEN=OWNER)

    async def called(self) -> set[tuple[str, str]]:
        """File and function of all that were called since the last time."""
        self.file.unlink(missing_ok=True)
        self.server.process.send_signal(signal.SIGUSR1)
        await until(self.file.exists)
        return {(file, name) for file, name in json.loads(self.file.read_text())}

    async def misses(self, way: str) -> set[tuple[str, str]]:
        """The functions of a way that were not called since the last time."""
        return set(steps(way)) - await self.called()


@pytest.fixture
def traced(start: Start, tmp_path: Path) -> Traced:
    return Traced(start, tmp_path / "called.json")


async def post(client: Client) -> str:
    """The id of a message that came back."""
    await client.say("Hello")
    message_id: str = (await client.read("message"))["data"]["id"]
    return message_id


async def test_join_goes_the_way_that_is_documented(traced: Traced) -> None:
    await traced.called()
    async with traced.server.connect("ada") as ada:
        await ada.send(type="ping")
        await ada.read("pong")  # so the join is over
        assert await traced.misses("A join") == set()


async def test_post_goes_the_way_that_is_documented(traced: Traced) -> None:
    async with traced.server.connect("ada") as ada:
        await ada.read("user_count")
        await traced.called()
        await post(ada)
        assert await traced.misses("A post") == set()


async def test_deletion_goes_the_way_that_is_documented(traced: Traced) -> None:
    async with traced.server.connect("ada") as ada:
        message_id = await post(ada)
        await traced.called()
        url = f"http://127.0.0.1:{traced.server.port}/api/messages/{message_id}"
        headers = {"Authorization": f"Bearer {OWNER}"}
        async with httpx2.AsyncClient(headers=headers, timeout=20) as http:
            assert (await http.delete(url)).status_code == 200
        await ada.read("hidden")
        assert await traced.misses("A deletion") == set()
