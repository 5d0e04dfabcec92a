"""Metrics of several workers over Redis: whichever answers, it answers for all of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from app.metrics import DIRECTORY, OWN
from tests.conftest import Start
from tests.support.running import Client, RunningServer, until

pytestmark = pytest.mark.anyio

WORKERS = 3
PAUSED = "T"


def figures(server: RunningServer | httpx2.Client) -> dict[str, float]:
    """Value by name and labels, from whichever worker takes the request."""
    answer = server.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = [line.rpartition(" ") for line in answer.text.splitlines() if line[0] != "#"]
    return {name: float(value) for name, _, value in lines}


def started(server: RunningServer) -> list[int]:
    """The process ids of all workers that serve or have served, in that order."""
    log = server.log()
    complete = log.count("Application startup complete")
    return [int(pid) for pid in re.findall(r"Started server process \[(\d+)\]", log)][:complete]


def state(process: int) -> str:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]


@contextlib.asynccontextmanager
async def only(worker: int, workers: list[int]) -> AsyncIterator[None]:
    """Everything that comes meanwhile comes to this worker: the others are paused."""
    others = [pid for pid in workers if pid != worker]
    for pid in others:
        os.kill(pid, signal.SIGSTOP)
    try:
        await until(lambda: all(state(pid) == PAUSED for pid in others))
        yield
    finally:
        for pid in others:
            os.kill(pid, signal.SIGCONT)


@contextlib.asynccontextmanager
async def one_on_each(server: RunningServer, workers: list[int]) -> AsyncIterator[list[Client]]:
    async with contextlib.AsyncExitStack() as stack:
        clients = []
        for number, worker in enumerate(workers):
            async with only(worker, workers):
                clients.append(await stack.enter_async_context(server.connect(f"user{number}")))
        yield clients


async def start_workers(start: Start, redis_url: str, **variables: str) -> tuple[RunningServer, list[int]]:
    """The server and its workers, all of them ready."""
    more = {"WORKERS": str(WORKERS), "METRICS_PUBLIC": "true", "SHUTDOWN_SPREAD": "0", **variables}
    server = start(ENGINE_URL=redis_url, **more)
    await until(lambda: len(started(server)) == WORKERS)
    return server, started(server)


async def test_counts_add_up_whichever_worker_answers(start: Start, redis_url: str) -> None:
    server, workers = await start_workers(start, redis_url)
    assert figures(server)["chat_users"] == figures(server)["chat_connections"] == 0
    async with one_on_each(server, workers) as clients:
        await asyncio.gather(*(client.say("Hello") for client in clients))
        for client in clients:
            for _ in clients:
                await client.read("message")
        await clients[0].send(type="nonsense")
        await clients[0].read("error")
        expected = {
            "chat_connections": 3,
            "chat_users": 3,
            "chat_messages_total": 3,
            "chat_deliveries_total": 9,
            "chat_batch_messages_sum": 3,
            "chat_store_seconds_count": 3,
            'chat_refusals_total{code="invalid_frame"}': 1,
        }
        for worker in workers:
            with httpx2.Client(base_url=f"http://127.0.0.1:{server.port}") as line:
                async with only(worker, workers):  # not for long: uvicorn kills a worker that stands still for 5 s
                    line.get("/health")
                await until(lambda line=line: {name: figures(line)[name] for name in expected} == expected)  # type: ignore[misc]
    await until(lambda: figures(server)["chat_connections"] == figures(server)["chat_users"] == 0)
    assert figures(server)["chat_messages_total"] == 3


@pytest.mark.parametrize("command", ["app", "uvicorn"])
async def test_each_connection_that_ends_counts_once_by_its_code(start: Start, command: str) -> None:
    server = start(command, METRICS_PUBLIC="true", OWNER_TOKEN="x" * 40)
    async with server.connect("ada") as ada:
        await ada.socket.close(1000)
    async with server.connect("ada") as ada:
        await ada.socket.close(3999)
    async with server.connect("") as refused:
        assert await refused.read_all(lambda _: None) == 1008
    async with server.connect("ada") as flooder:
        for _ in range(25):
            await flooder.socket.send("nonsense")
        assert await flooder.read_all(lambda _: None) == 4501
    expected = {"1000": 1, "1008": 1, "4501": 1, "other": 1}

    def counted() -> dict[str, float]:
        found = {name: figure for name, figure in figures(server).items() if name.startswith("chat_closes_total")}
        return {name.split('"')[1]: figure for name, figure in found.items() if figure}

    await until(lambda: counted() == expected)
    if command == "app":
        async with server.connect("ada") as ada:
            await ada.socket.send(b"x" * 70_000)
            assert await ada.read_all(lambda _: None) == 1009
        expected["1009"] = 1
    with server.raw("ada") as bare:
        bare.shutdown(socket.SHUT_WR)
        await until(lambda: sum(counted().values()) == sum(expected.values()) + 1)
    assert counted()["1006" if command == "app" else "1005"] == 1


async def test_the_connections_of_a_killed_worker_vanish(start: Start, redis_url: str) -> None:
    server, workers = await start_workers(start, redis_url)
    async with one_on_each(server, workers) as clients:
        await clients[0].say("Hello")
        for client in clients:
            await client.read("message")
        await until(lambda: figures(server)["chat_connections"] == figures(server)["chat_users"] == 3)
        os.kill(workers[0], signal.SIGKILL)
        assert await clients[0].read_all(lambda _: None) is None
        await until(lambda: figures(server)["chat_connections"] == 2)
        assert figures(server)["chat_messages_total"] == 1  # what it had counted
        await until(lambda: len(started(server)) == WORKERS + 1)
        assert figures(server)["chat_connections"] == 2
        await until(lambda: figures(server)["chat_users"] == 2)  # when Redis has not heard of it for a while
        for worker in workers[1:]:
            os.kill(worker, signal.SIGKILL)
        assert await clients[1].read_all(lambda _: None) is None
        await until(lambda: len(started(server)) == 2 * WORKERS)
        await until(lambda: figures(server)["chat_connections"] == 0)
    assert server.terminate() == 0
    assert "Traceback" not in server.log()


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
async def test_the_shared_files_are_gone_after_the_end(start: Start, redis_url: str, ending: int) -> None:
    server, workers = await start_workers(start, redis_url)
    maps = Path(f"/proc/{workers[0]}/maps").read_text()
    (own,) = {Path(file).parent for file in re.findall(rf"\S+/{OWN}\S+\.db", maps)}
    assert own.is_dir()
    os.kill(server.process.pid, ending)
    await until(lambda: not own.exists())


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_directory_that_the_user_chose_is_used_and_kept(
    start: Start, redis_url: str, tmp_path: Path, workers: str
) -> None:
    chosen = tmp_path / "chosen"
    server = start(ENGINE_URL=redis_url, WORKERS=workers, METRICS_PUBLIC="true", **{DIRECTORY: str(chosen)})
    await until(lambda: len(started(server)) == int(workers))
    async with server.connect("ada") as ada:
        await ada.say("Hello")
        await ada.read("message")
        await until(lambda: figures(server)["chat_connections"] == 1)
    assert server.terminate() == (0 if workers == "2" else -signal.SIGTERM)
    assert any(chosen.glob("counter_*.db"))
