"""Stopping a real server: it drains, in time, and whatever hangs on to it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
from pathlib import Path

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.conftest import Start
from tests.support.running import ROOT, Client, RunningServer, until

pytestmark = pytest.mark.anyio

CLIENTS = 1000


async def read_until_closed(client: Client, seen: list[int]) -> tuple[int | None, float]:
    """The seqs that a client got, its close code and when it came (event loop time)."""
    code = await client.read_all(
        lambda frame: seen.append(frame["data"]["seq"]) if frame["type"] == "message" else None
    )
    return code, asyncio.get_running_loop().time()


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_a_full_room(start: Start, sent: signal.Signals) -> None:
    server = start(SHUTDOWN_SPREAD="1", WS_MAX_CONNECTIONS=str(CLIENTS + 10), LOG_LEVEL="INFO")
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(server.raw("stuck", receive_buffer=4096))
        connecting = [server.connect(f"user{number}", ping_interval=None) for number in range(CLIENTS)]
        clients = [await stack.enter_async_context(client) for client in connecting]
        seen: list[list[int]] = [[] for _ in clients]
        reading = [asyncio.create_task(read_until_closed(*pair)) for pair in zip(clients, seen, strict=True)]
        for number in range(100):
            await clients[number].say(f"message {number}")
        await until(lambda: bool(seen[0]))
        server.process.send_signal(sent)
        await until(lambda: server.get("/health").status_code == 503)
        with pytest.raises(InvalidStatus) as refused:
            async with server.connect("late"):
                pass
        assert refused.value.response.status_code == 503
        ends = await asyncio.gather(*reading)
        assert {code for code, _ in ends} == {1012}
        times = sorted(time for _, time in ends)
        assert times[-1] - times[0] > 0.5  # spread, not all at once
    assert await asyncio.to_thread(server.process.wait, 20) in (-sent, 0)
    assert "Traceback" not in server.log()
    server.start()
    async with server.connect("ada", "&epoch=none") as ada:
        history = [message["seq"] for message in (await ada.read("history"))["data"]]
    assert history == list(range(1, len(history) + 1))
    assert history  # and everybody had all of it before the end, as far as it came before the signal
    assert all(seqs == history for seqs in seen)


async def test_busy_talkers_hear_that_it_restarts(start: Start) -> None:
    server = start(SHUTDOWN_SPREAD="0")
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(server.connect(f"user{number}")) for number in range(12)]

        async def talk(client: Client) -> None:
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await client.say("x")
                    await asyncio.sleep(0)

        talking = [asyncio.create_task(talk(client)) for client in clients]
        reading = [asyncio.create_task(read_until_closed(client, [])) for client in clients]
        await until(lambda: server.stats()["total_messages"] > 50)
        server.process.terminate()
        assert {code for code, _ in await asyncio.gather(*reading)} == {1012}
        await asyncio.gather(*talking)
    assert await asyncio.to_thread(server.process.wait, 10) in (0, -15)


async def test_a_second_signal_ends_it_at_once(start: Start) -> None:
    server = start(SHUTDOWN_SPREAD="8")
    async with contextlib.AsyncExitStack() as stack:
        for number in range(3):
            await stack.enter_async_context(server.connect(f"user{number}"))
        server.process.terminate()
        await until(lambda: "Draining" in server.log())
        server.process.terminate()
        await asyncio.to_thread(server.process.wait, 3)


async def test_a_stuck_peer_does_not_outlive_the_timeout(start: Start) -> None:
    server = start(SHUTDOWN_SPREAD="0", SHUTDOWN_TIMEOUT="5", WS_SEND_BUFFER="67108864")
    with server.raw("stuck", receive_buffer=4096):
        async with server.connect("ada") as ada:
            for number in range(1500):  # 6 MB, more than the kernel buffers
                await ada.say("🦀" * 990)
                assert (await ada.read("message"))["data"]["seq"] == number + 1
        server.process.terminate()
        assert await asyncio.to_thread(server.process.wait, 8) in (0, -15)  # not by the watchdog
    assert "Traceback" not in server.log()


async def test_reload_does_not_hang_on_open_sockets(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "app", tmp_path / "app")
    with RunningServer(["-m", "app", "--reload"], tmp_path, {"PYTHONPATH": str(tmp_path)}) as server:
        with server.raw("stuck", receive_buffer=4096):
            async with server.connect("ada") as ada:
                await ada.read("user_count")
                # The server may answer before uvicorn watches its files: a change until then goes unnoticed.
                for _ in range(30):
                    with (tmp_path / "app" / "web" / "api.py").open("a") as source:
                        source.write("# changed\n")
                    with contextlib.suppress(TimeoutError, ConnectionClosed):
                        await asyncio.wait_for(ada.read("nothing"), 1)
                    if ada.socket.close_code:
                        break
                assert ada.socket.close_code == 1012

            def answers() -> bool:
                try:
                    return server.get("/health").status_code == 200
                except httpx2.HTTPError:
                    return False

            await until(answers)
        assert server.terminate() in (0, -15)


async def test_an_open_socket_does_not_keep_plain_uvicorn(start: Start) -> None:
    server = start("uvicorn")
    async with server.connect("ada") as ada:
        await ada.read("user_count")
        server.process.terminate()
        with pytest.raises(ConnectionClosed):
            await ada.read("nothing")
        await asyncio.to_thread(server.process.wait, 15)
