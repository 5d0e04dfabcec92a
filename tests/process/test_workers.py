"""Several workers: each way to start them, one room over Redis, none of its own over an embedded engine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import need_service
from tests.support.running import ROOT, Client, RunningRedis, RunningServer, free_port, until
from tests.support.workers import started

pytestmark = pytest.mark.anyio

Serve = Callable[..., RunningServer]
# A group of its own, so that Ctrl-C can be sent to all of its processes, and none outlives the test.
OWN_GROUP = ["-c", "import os, sys; os.setsid(); os.execvp(sys.argv[1], sys.argv[1:])"]
# What `make serve` would install and copy is here already.
MAKE_SERVE = ["make", "-f", str(ROOT / "Makefile"), "-o", ".venv/prod", "-o", ".env", "serve"]
GUNICORN = ["gunicorn", "-k", "uvicorn.workers.UvicornWorker", "app.main:app", "--bind", "127.0.0.1:{port}"]
PAUSED, ENDED = "T", "Z"


def command(way: str, workers: str) -> list[str]:
    """The command for so many workers; for `make` it is the variable WORKERS that says how many."""
    return {
        "app": [sys.executable, "-m", "app", "--workers", workers],
        "make": [*MAKE_SERVE, f"BIN={Path(sys.executable).parent}"],
        "uvicorn": [sys.executable, "-m", "uvicorn", "app.main:app", "--workers", workers, "--port", "{port}"],
        "gunicorn": [sys.executable, "-m", *GUNICORN, "-w", workers],
    }[way]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """`serve(way, workers, **variables)`: a server that was started that way; it may not answer yet."""
    with ExitStack() as stack:

        def start(way: str, workers: str, **variables: str) -> RunningServer:
            need_service(way != "make" or shutil.which("make") is not None, "make is not installed")
            own = {"MAKEFLAGS": "", "WORKERS": workers} if way == "make" else {}
            places = dict.fromkeys(("TMPDIR", "XDG_RUNTIME_DIR"), str(tmp_path))
            variables = {"SHUTDOWN_SPREAD": "0", **places, **own, **variables}
            server = RunningServer([*OWN_GROUP, *command(way, workers)], tmp_path, variables)
            server.start(wait=False)
            stack.push(server)
            stack.callback(kill_group, server)
            return server

        yield start


def kill_group(server: RunningServer) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.process.pid, signal.SIGKILL)


def processes(server: RunningServer) -> dict[int, tuple[str, int]]:
    """State and parent of each process of the group, but for those that have ended and nobody has asked for."""
    found = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            state, parent, group = file.read_text().rpartition(")")[2].split()[:3]
            if int(group) == server.process.pid and state != ENDED:
                found[int(file.parent.name)] = (state, int(parent))
    return found


async def ready(server: RunningServer, workers: int) -> list[int]:
    """Waits until so many workers have started to serve; their process ids."""
    await until(lambda: server.log().count("Application startup complete") == workers)
    return started(server)


@contextlib.asynccontextmanager
async def only(worker: int, server: RunningServer) -> AsyncIterator[None]:
    """Everything that comes meanwhile comes to this worker: the others are paused."""
    others = [pid for pid in started(server) if pid != worker and pid in processes(server)]
    for pid in others:
        os.kill(pid, signal.SIGSTOP)
    try:
        await until(lambda: all(processes(server)[pid][0] == PAUSED for pid in others))
        yield
    finally:
        for pid in others:
            os.kill(pid, signal.SIGCONT)


@contextlib.asynccontextmanager
async def room(server: RunningServer, workers: list[int], each: int) -> AsyncIterator[list[Client]]:
    """So many clients on each worker, and whatever happens to their server, all of them leave."""
    async with contextlib.AsyncExitStack() as stack:
        clients: list[Client] = []
        for worker in workers:
            async with only(worker, server):
                connecting = [server.connect(f"user{len(clients) + number}") for number in range(each)]
                clients += [await stack.enter_async_context(client) for client in connecting]
        yield clients


async def is_one_room(clients: list[Client]) -> bool:
    """Each posts once, all at the same time. Whether everybody sees all of it, numbered from 1 on, in one order."""
    said = [f"message {number}" for number in range(len(clients))]
    await asyncio.gather(*(client.say(content) for client, content in zip(clients, said, strict=True)))
    seen = []
    for client in clients:
        datas = [(await client.read("message"))["data"] for _ in clients]
        seen.append([(data["seq"], data["content"]) for data in datas])
    seqs, contents = zip(*seen[0], strict=True)
    in_order = seqs == tuple(range(1, len(said) + 1)) and sorted(contents) == sorted(said)
    return in_order and all(view == seen[0] for view in seen)


async def close_codes(clients: list[Client]) -> set[int | None]:
    return set(await asyncio.wait_for(asyncio.gather(*(client.read_all(lambda _: None) for client in clients)), 20))


@pytest.mark.parametrize("way", ["app", "make", "uvicorn", "gunicorn"])
async def test_four_workers_are_one_room(serve: Serve, redis_url: str, way: str) -> None:
    server = serve(way, "4", ENGINE_URL=redis_url)
    workers = await ready(server, 4)
    counts = {"active_users": 12, "total_messages": 12}
    async with room(server, workers, each=3) as clients:
        assert await is_one_room(clients)
        for worker in workers:
            async with only(worker, server):
                await until(lambda: server.stats() == counts)
        assert [server.stats() for _ in range(8)] == [counts] * 8
        server.process.terminate()
        assert await close_codes(clients) == {1012}
    await until(lambda: not processes(server))
    assert server.process.wait(20) in (0, -signal.SIGTERM)
    assert "Traceback" not in server.log()


@pytest.mark.parametrize("engine_url", ["sqlite:///chat.db", "memory://"])
def test_several_workers_without_redis_are_refused(serve: Serve, engine_url: str) -> None:
    output = serve("app", "2", ENGINE_URL=engine_url).failure()
    assert len(output.splitlines()) == 1
    assert "ENGINE_URL=redis://" in output


@pytest.mark.parametrize("way", ["uvicorn", "gunicorn"])
@pytest.mark.parametrize("engine_url", ["sqlite:///chat.db", "memory://"])
async def test_without_redis_one_worker_serves_until_all_stop(serve: Serve, way: str, engine_url: str) -> None:
    server = serve(way, "2", ENGINE_URL=engine_url, SHUTDOWN_TIMEOUT="2")
    server.wait_until_it_answers()
    async with contextlib.AsyncExitStack() as stack:
        connecting = [server.connect(f"user{number}") for number in range(6)]
        clients = [await stack.enter_async_context(client) for client in connecting]
        assert await is_one_room(clients)
        assert await close_codes(clients) == {1012}
    await until(lambda: not processes(server))
    log = server.log()
    assert ["ENGINE_URL=redis://" in line for line in log.splitlines() if "in use by another" in line] == [True]
    assert log.count("is ready") == 1
    assert "Traceback" not in log


@pytest.mark.parametrize("outage", [False, True])
async def test_a_killed_worker_is_replaced(serve: Serve, redis: RunningRedis, outage: bool) -> None:
    server = serve("app", "2", ENGINE_URL=redis.url)
    workers = await ready(server, 2)
    async with room(server, workers, each=1) as (ada, bob):
        if outage:
            redis.kill()
        os.kill(workers[0], signal.SIGKILL)
        assert await close_codes([ada]) == {None}
        if outage:
            await until(lambda: "Application startup failed" in server.log())
            redis.start()
        replacement = (await ready(server, 3))[-1]
        assert processes(server)[replacement][1] == server.process.pid
        async with only(replacement, server), server.connect("carol") as carol:
            await carol.say("Hello")
            assert (await carol.read("message"))["data"]["seq"] == 1
        assert (await bob.read("message"))["data"]["content"] == "Hello"
        server.process.terminate()
        assert await close_codes([bob]) == {1012}
    assert server.process.wait(20) == 0
    assert "Traceback" not in server.log()


async def test_workers_end_when_their_parent_is_killed(serve: Serve, redis_url: str) -> None:
    server = serve("app", "2", ENGINE_URL=redis_url)
    async with room(server, await ready(server, 2), each=2) as clients:
        assert await is_one_room(clients)
        server.kill()
        assert await close_codes(clients) == {1012}
    await until(lambda: not processes(server))
    assert "Traceback" not in server.log()
    server.start()  # on the same port
    assert server.stats()["total_messages"] == 4


@pytest.mark.parametrize("way", ["app", "make"])
async def test_ctrl_c_drains_all_workers(serve: Serve, redis_url: str, way: str) -> None:
    server = serve(way, "2", ENGINE_URL=redis_url)
    async with room(server, await ready(server, 2), each=2) as clients:
        os.killpg(server.process.pid, signal.SIGINT)
        assert await close_codes(clients) == {1012}
    await until(lambda: not processes(server))
    assert server.process.wait(20) in ((0,) if way == "app" else (0, -signal.SIGINT))
    assert "Traceback" not in server.log()


@pytest.mark.parametrize("way", ["app", "uvicorn", "gunicorn"])
async def test_a_missing_driver_stops_all(serve: Serve, tmp_path: Path, way: str) -> None:
    (tmp_path / "redis").mkdir()
    (tmp_path / "redis" / "__init__.py").write_text("raise ImportError\n")
    server = serve(way, "2", ENGINE_URL="redis://127.0.0.1/0", PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    code = await asyncio.to_thread(server.process.wait, 20)  # else its workers are started again and again
    assert code > 0 or way == "uvicorn"  # whose parent always ends with 0
    await until(lambda: not processes(server))
    assert "pip install -r requirements-prod.txt" in server.log()
    # gunicorn shows one of its own when the second worker fails while it stops for the first.
    assert f'"{ROOT}{os.sep}app' not in server.log() if way == "gunicorn" else "Traceback" not in server.log()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_redis_that_is_not_there_is_said_in_a_sentence(serve: Serve, workers: str) -> None:
    port = free_port()
    output = serve("app", workers, ENGINE_URL=f"redis://user:secret@127.0.0.1:{port}/0").failure()
    sentences = {line for line in output.splitlines() if f"127.0.0.1:{port}" in line}
    assert len(sentences) == 1
    assert "Check that Redis runs, and ENGINE_URL." in sentences.pop()
    assert "secret" not in output
    assert "Traceback" not in output


@pytest.mark.parametrize("way", ["app", "make"])
@pytest.mark.parametrize("workers", ["0", "257", "many"])
def test_a_number_of_workers_that_cannot_be_is_refused(serve: Serve, way: str, workers: str) -> None:
    output = serve(way, workers, ENGINE_URL="redis://127.0.0.1/0").failure()
    assert f"WORKERS: '{workers}' is not allowed. Allowed: a whole number from 1 to 256." in output
    assert "Started" not in output
    assert "Traceback" not in output
