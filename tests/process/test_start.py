"""How a server starts, or says in a sentence why not, and what it writes to its log."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import Start
from tests.support.running import COMMANDS, RunningServer, until

pytestmark = pytest.mark.anyio

Begin = Callable[..., RunningServer]
both = pytest.mark.parametrize("command", ["app", "uvicorn"])
IMPATIENT = {"SHUTDOWN_TIMEOUT": "1", "SHUTDOWN_SPREAD": "0"}


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """`begin(command="app", **variables)`: as `start`, but without waiting until the server answers."""
    with ExitStack() as stack:

        def begin_server(command: str = "app", **variables: str) -> RunningServer:
            server = RunningServer(COMMANDS[command], tmp_path, variables)
            server.start(wait=False)
            stack.push(server)
            return server

        yield begin_server


def lines(server: RunningServer) -> list[str]:
    return server.log().splitlines()


def a_line_has(output: str, *parts: str) -> bool:
    return any(all(part in line for part in parts) for line in output.splitlines())


async def say(server: RunningServer, username: str, content: str) -> None:
    """Comes, posts, waits for the acknowledgement, and goes."""
    async with server.connect(username) as client:
        await client.say(content)
        await client.read("message")


async def history(server: RunningServer) -> list[str]:
    async with server.connect("reader") as reader:
        return [data["content"] for data in (await reader.read("history"))["data"]]


@both
@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"WS_MAX_CONNECTIONS": "many"}, "WS_MAX_CONNECTIONS: 'many' is not allowed"),
        ({"WS_HEARTBEAT_INTERVAL": "30", "WS_HEARTBEAT_TIMEOUT": "5"}, "WS_HEARTBEAT_TIMEOUT"),
        ({"ENGINE_URL": "mysql://ada:mellon@localhost/chat"}, "ENGINE_URL"),
    ],
)
def test_a_bad_setting_stops_the_start(begin: Begin, command: str, variables: dict[str, str], named: str) -> None:
    output = begin(command, **variables).failure()
    assert named in output
    assert "Traceback" not in output
    assert "mellon" not in output


@both
async def test_the_env_file_is_read_and_the_environment_wins(start: Start, tmp_path: Path, command: str) -> None:
    (tmp_path / ".env").write_text("APP_NAME=From the file\nAPP_VERSION=9.9.9\n")
    server = start(command, APP_VERSION="1.2.3")
    assert server.get("/health").json() == {"status": "ok", "service": "From the file", "version": "1.2.3"}


def test_a_port_that_is_taken_is_said_in_one_line(start: Start, begin: Begin) -> None:
    first = start(ENGINE_URL="memory://")
    output = begin(PORT=str(first.port), ENGINE_URL="memory://").failure()
    assert len(output.splitlines()) == 1
    assert f"port {first.port}" in output
    assert "PORT=" in output
    assert first.get("/health").status_code == 200


@both
async def test_a_second_process_on_the_same_database_gives_up(start: Start, begin: Begin, command: str) -> None:
    first = start()
    async with first.connect("ada") as ada:
        output = begin(command, **IMPATIENT).failure()
        assert "Traceback" not in output
        assert a_line_has(output, "chat.db is in use by another process", "ENGINE_URL")
        await ada.say("Hello")
        assert (await ada.read("message"))["data"]["seq"] == 1


@pytest.mark.parametrize("how", ["terminate", "kill"])
async def test_the_database_is_handed_over_when_its_process_ends(start: Start, begin: Begin, how: str) -> None:
    first = start()
    await say(first, "ada", "Hello")
    second = begin()
    await until(lambda: "Waiting for application startup" in second.log())
    getattr(first, how)()
    second.wait_until_it_answers()
    await say(second, "ada", "Hello again")
    assert await history(second) == ["Hello", "Hello again"]
    assert second.stats()["total_messages"] == 2
    assert "Traceback" not in first.log() + second.log()


async def test_the_lock_of_a_killed_process_is_free(start: Start) -> None:
    server = start(**IMPATIENT)
    await say(server, "ada", "Hello")
    server.kill()
    server.start()
    assert await history(server) == ["Hello"]


@both
def test_a_file_that_is_no_database_is_said_in_a_sentence(begin: Begin, tmp_path: Path, command: str) -> None:
    text = "Dear diary, today I was mistaken for a database. " * 100
    (tmp_path / "chat.db").write_text(text)
    output = begin(command).failure()
    assert a_line_has(output, "chat.db", "ENGINE_URL")
    assert "Traceback" not in output
    assert (tmp_path / "chat.db").read_text() == text


def test_the_database_of_another_program_is_left_alone(begin: Begin, tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "chat.db")
    database.execute("CREATE TABLE recipe (name TEXT)")
    database.close()
    before = (tmp_path / "chat.db").read_bytes()
    output = begin().failure()
    assert a_line_has(output, "was not made by this program", "ENGINE_URL")
    assert "Traceback" not in output
    assert (tmp_path / "chat.db").read_bytes() == before


@both
async def test_the_log_names_who_comes_posts_and_goes(start: Start, command: str) -> None:
    server = start(command)
    await say(server, "ada", "Hello")
    await until(lambda: "[INFO] User disconnected: ada" in lines(server))
    events = [line for line in lines(server) if "ada" in line]
    assert events == ["[INFO] User connected: ada", "[INFO] Message from ada: Hello", "[INFO] User disconnected: ada"]


@both
async def test_the_log_holds_no_health_checks_and_no_query_strings(start: Start, command: str) -> None:
    server = start(command)
    for path in ("/health", "/health?a=mellon", "/api/stats?b=mellon", "/nothing?c=mellon"):
        server.get(path)
    async with server.connect("no%20name", "&d=mellon") as client:
        assert (await client.read("error"))["data"]["code"] == "invalid_username"
    await say(server, "ada", "Hello")
    await until(lambda: "[INFO] User disconnected: ada" in lines(server))
    log = server.log()
    assert "/nothing" in log
    assert "/health" not in log
    assert "mellon" not in log
    assert "?" not in log


@both
async def test_a_message_is_one_line_of_the_log_whatever_it_holds(start: Start, command: str) -> None:
    server = start(command)
    await say(server, "mallory", "Hi\n[INFO] User connected: root\r\n\x1b[2J\x1b[31m\u2028\u2029\x85red" + "x" * 200)
    await until(lambda: "[INFO] User disconnected: mallory" in lines(server))
    assert "[INFO] User connected: root" not in lines(server)
    shown = [line for line in lines(server) if "Message from mallory: Hi" in line]
    assert len(shown) == 1
    assert shown[0].isprintable()
    assert "\x1b" not in server.log()
    assert "x" * 100 not in server.log()
