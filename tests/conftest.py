"""Fixtures that every ring of tests shares: settings, the app in this process, the server in another."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from tests.support.chat import settings_of
from tests.support.running import COMMANDS, RunningRedis, RunningServer

Start = Callable[..., RunningServer]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def client() -> Iterator[Callable[..., TestClient]]:
    """`client(**settings)`: a started app in this process, on an engine in memory unless told otherwise."""
    with ExitStack() as stack:

        def start(**changes: Any) -> TestClient:
            return stack.enter_context(TestClient(create_app(settings_of(**changes)), raise_server_exceptions=False))

        yield start


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start(command="app", **variables)`: a real server process on a free port, ended after the test."""
    with ExitStack() as stack:

        def start_server(command: str = "app", **variables: str) -> RunningServer:
            return stack.enter_context(RunningServer(COMMANDS[command], tmp_path, variables))

        yield start_server


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRedis]:
    """One Redis for all tests that leave it alive."""
    need_service(shutil.which("redis-server") is not None, "redis-server is not installed")
    with RunningRedis(tmp_path_factory.mktemp("redis")) as redis:
        yield redis


@pytest.fixture
def redis_url(shared_redis: RunningRedis) -> str:
    """The URL of an empty database."""
    shared_redis.ask("FLUSHALL")
    return shared_redis.url


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RunningRedis]:
    """A Redis of the test's own, to be killed, paused and started again."""
    need_service(shutil.which("redis-server") is not None, "redis-server is not installed")
    with RunningRedis(tmp_path) as own:
        yield own


@pytest.fixture(scope="session")
def packages() -> Path:
    """The folder of the npm packages that tests use, which `make test` installs."""
    folder = Path(__file__).parent / "npm" / "node_modules"
    need_service(shutil.which("node") is not None, "node is not installed")
    need_service(folder.is_dir(), "the packages of tests/npm are not installed: make tests/npm/node_modules")
    return folder


def need_service(available: bool, reason: str) -> None:
    """Skips a test whose service this machine lacks, or fails it when REQUIRE_SERVICES=1."""
    if available:
        return
    if os.environ.get("REQUIRE_SERVICES") == "1":
        pytest.fail(f"REQUIRE_SERVICES=1, but {reason}")
    pytest.skip(reason)
