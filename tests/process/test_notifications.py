"""The owner hears of visitors: a real server, one or several workers, and a real receiver."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack

import pytest
from websockets.typing import Subprotocol

from tests.conftest import Start
from tests.support.receiver import Receiver
from tests.support.running import RunningServer, free_port, until

pytestmark = pytest.mark.anyio

TOKEN = "a-token-of-the-owner-for-tests-alone"


@pytest.fixture(params=["sqlite", "redis"])
def engine(request: pytest.FixtureRequest) -> dict[str, str]:
    """One worker on SQLite, three on Redis."""
    return {} if request.param == "sqlite" else {"ENGINE_URL": request.getfixturevalue("redis_url"), "WORKERS": "3"}


async def write(server: RunningServer, *texts: str) -> None:
    """Says something, each time over a connection of its own, and so perhaps over another worker."""
    for text in texts:
        async with server.connect("ada") as ada:
            await ada.say(text)
            while (await ada.read("message"))["data"]["content"] != text:
                pass  # another worker's, which this one has not told before


async def test_one_notice_at_once_and_one_for_all_that_came_in_the_quiet_time(
    start: Start, engine: dict[str, str]
) -> None:
    async with Receiver() as receiver:
        server = start(NOTIFY_URL=receiver.url(), NOTIFY_QUIET="2", PUBLIC_URL="https://chat.example.com", **engine)
        async with AsyncExitStack() as stack:  # four connections, and so perhaps four workers
            names = ("ada", "bob", "eve", "kim")
            ada, *others = [await stack.enter_async_context(server.connect(name)) for name in names]
            await ada.say("one")
            await receiver.until_asked(1)
            for number, other in enumerate(others, 2):
                await other.say(f"{number}")
            *_, last = [(await ada.read("message"))["data"] for _ in names]
            await receiver.until_asked(2)
        server.terminate()
        first, second = receiver.bodies()
        assert (first["text"], first["count"], first["url"]) == ("one", 1, "https://chat.example.com")
        assert (second["text"], second["count"], second["username"]) == (last["content"], 3, last["username"])


async def test_owner_who_is_here_or_came_meanwhile_is_not_notified(start: Start, engine: dict[str, str]) -> None:
    async with Receiver() as receiver:
        server = start(NOTIFY_URL=receiver.url(), NOTIFY_QUIET="1", OWNER_TOKEN=TOKEN, **engine)
        await write(server, "one")
        await receiver.until_asked(1)
        await write(server, "two")
        protocols = [Subprotocol("chat.v1"), Subprotocol(f"bearer.{TOKEN}")]
        async with server.connect("me", subprotocols=protocols) as owner, server.connect("eve") as eve:
            while not (await eve.read("session", "room"))["data"]["owner_online"]:
                pass
            await write(server, "three")
            while (await owner.read("message"))["data"]["content"] != "three":
                pass
        async with server.connect("eve") as eve:
            while (await eve.read("session", "room"))["data"]["owner_online"]:
                pass
            await write(server, "four")
            await receiver.until_asked(2)
        server.terminate()
        assert [body["text"] for body in receiver.bodies()] == ["one", "four"]
        assert receiver.bodies()[1]["count"] == 1


async def test_receiver_that_is_gone_or_hangs_costs_nobody_anything_and_no_secret_is_logged(start: Start) -> None:
    gone = f"http://user:secret@127.0.0.1:{free_port()}/very-secret?token=secret"
    server = start(NOTIFY_URL=gone, NOTIFY_QUIET="1")
    await write(server, "one", "two")
    await until(lambda: "could not be sent to 127.0.0.1: ConnectionRefusedError. Check NOTIFY_URL" in server.log())
    await write(server, "three")
    server.terminate()
    assert "The owner is told of messages by 127.0.0.1, in the format json" in server.log()
    assert "secret" not in server.log()
    assert "Traceback" not in server.log()


async def test_hanging_receiver_does_not_hold_up_the_end(start: Start) -> None:
    hung = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hung.set()
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(hang, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        server = start(NOTIFY_URL=f"http://127.0.0.1:{port}/", SHUTDOWN_SPREAD="0")
        await write(server, "one")
        await hung.wait()
        assert await asyncio.to_thread(server.terminate) == -signal.SIGTERM
        assert "Finished server process" in server.log()
