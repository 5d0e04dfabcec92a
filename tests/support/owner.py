"""What the tests of the owner's tools share: a server of either kind, requests to it, and its workers."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import Start
from tests.support.running import RunningServer
from tests.support.visitor import OWNER, Visitor, visit
from tests.support.workers import started

STORES = ("sqlite", "redis")
SHARED = {"WORKERS": "2", "SECRET_KEY": "a secret key of some length"}
JSON = dict[str, Any]
NOBODY, UNKNOWN = "/api/bans/nobody", f"/api/messages/{uuid.uuid4()}"
_numbers = itertools.count()


@contextlib.contextmanager
def serving(request: pytest.FixtureRequest, start: Start, store: str, **variables: str) -> Iterator[RunningServer]:
    """A server with an owner, on SQLite, or with two workers on Redis; at the end nothing of it is left at work."""
    if store == "redis":
        variables = {**SHARED, "ENGINE_URL": request.getfixturevalue("redis_url"), **variables}
    server = start(**{"OWNER_TOKEN": OWNER, "SHUTDOWN_SPREAD": "0", **variables})
    if store == "redis":
        wait_for_workers(server, 2)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.terminate()


def wait_for_workers(server: RunningServer, count: int) -> None:
    """Returns when so many workers, over all starts, have begun to serve."""
    deadline = time.monotonic() + 20
    while server.log().count("Application startup complete") < count:
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.02)


def start_again(server: RunningServer, how: str = "SIGTERM") -> None:
    """Ends all of its processes, and starts it anew."""
    shared = "WORKERS" in server.variables
    before = server.log().count("Application startup complete")
    if how == "SIGTERM":
        server.terminate()
    else:
        slay(server)
    server.start()
    if shared:
        wait_for_workers(server, before + 2)


def slay(server: RunningServer) -> None:
    """SIGKILL to all of its processes."""
    workers = started(server)[-2:] if "WORKERS" in server.variables else []
    server.kill()
    for worker in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)


def ask(
    server: RunningServer, method: str, path: str, body: object = None, token: str | None = OWNER, **headers: str
) -> httpx2.Response:
    """One request over a connection of its own, so that any worker may get it."""
    with httpx2.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=20) as line:
        return asked(line, method, path, body, token, **headers)


def asked(
    line: httpx2.Client, method: str, path: str, body: object = None, token: str | None = OWNER, **headers: str
) -> httpx2.Response:
    """One request over a connection that stays with its worker. `body`: JSON, or bytes as they are."""
    if token is not None:
        headers["Authorization"] = f"Bearer {token}".strip()
    if isinstance(body, bytes):
        return line.request(method, path, content=body, headers=headers)
    return line.request(method, path, json=body, headers=headers)


def done(response: httpx2.Response, status: int = 200) -> Any:
    """The answer to a request that did what it should."""
    assert response.status_code == status, response.text
    return response.json()


def post(server: RunningServer, content: str, nonce: str | None = None, status: int = 201) -> JSON:
    body = {"content": content} | ({"nonce": nonce} if nonce else {})
    message: JSON = done(ask(server, "POST", "/api/messages", body), status)
    return message


def page(server: RunningServer, **query: int) -> list[JSON]:
    """One page of what is stored."""
    path = "&".join(["/api/messages?", *(f"{name}={value}" for name, value in query.items())])
    messages: list[JSON] = done(ask(server, "GET", path))["messages"]
    return messages


def fault(response: httpx2.Response) -> tuple[int, str, str | None]:
    """Status, code and field of a refusal, which is as every refusal is."""
    error = response.json()["error"]
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Cache-Control"] == "no-store"
    assert set(error) <= {"code", "message", "field", "retry_after"}
    assert error["message"].endswith((".", "…"))
    return response.status_code, error["code"], error.get("field")


@contextlib.contextmanager
def alone(server: RunningServer, worker: int) -> Iterator[None]:
    """Whoever connects meanwhile connects to this worker: the others are paused."""
    others = [pid for pid in started(server)[-2:] if pid != worker]
    for pid in others:
        os.kill(pid, signal.SIGSTOP)
    try:
        while any(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T" for pid in others):
            time.sleep(0.005)
        yield
    finally:
        for pid in others:
            os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def lines(server: RunningServer) -> Iterator[list[httpx2.Client]]:
    """A connection to each worker, for requests."""
    with contextlib.ExitStack() as stack:
        found = []
        for worker in started(server)[-2:] if "WORKERS" in server.variables else [0]:
            line = httpx2.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=20)
            found.append(stack.enter_context(line))
            with alone(server, worker) if worker else contextlib.nullcontext():
                line.get("/health")
        yield found


@contextlib.asynccontextmanager
async def everywhere(server: RunningServer, **options: Any) -> AsyncIterator[list[Visitor]]:
    """A visitor on each worker, under a new name."""
    async with contextlib.AsyncExitStack() as stack:
        visitors = []
        for worker in started(server)[-2:] if "WORKERS" in server.variables else [0]:
            with alone(server, worker) if worker else contextlib.nullcontext():
                visitor = visit(server, f"guest{next(_numbers)}", **options)
                visitors.append(await stack.enter_async_context(visitor))
        yield visitors
