"""Export and wipe, from the command line, beside a real server and without one."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import Start
from tests.support.commands import run, run_in
from tests.support.running import ROOT, RunningRedis, RunningServer, free_port, until

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["sqlite", "redis"])
def server(request: pytest.FixtureRequest, start: Start) -> RunningServer:
    variables = {"ENGINE_URL": request.getfixturevalue("redis_url")} if request.param == "redis" else {}
    return start(**variables)


async def fill(server: RunningServer, *texts: str) -> None:
    async with server.connect("ada") as ada:
        for text in texts:
            await ada.say(text)
            await ada.read("message")


async def test_export_writes_each_message_beside_a_running_server(server: RunningServer) -> None:
    await fill(server, "one", "<b>two</b>\nlines", "drei \u2028 ☃")
    exported = run(server, "export")
    assert (exported.returncode, exported.stderr) == (0, "")
    lines = [json.loads(line) for line in exported.stdout.split("\n") if line]
    assert [(line["seq"], line["username"], line["text"]) for line in lines] == [
        (1, "ada", "one"),
        (2, "ada", "<b>two</b>\nlines"),
        (3, "ada", "drei \u2028 ☃"),
    ]
    assert lines[1]["content"] == "&lt;b&gt;two&lt;/b&gt;\nlines"
    assert server.stats()["total_messages"] == 3


async def test_wipe_asks_for_the_server_to_be_stopped_and_then_asks_once_more(server: RunningServer) -> None:
    await fill(server, "one")
    refused = run(server, "wipe", "--yes")
    assert refused.returncode == 1
    assert "in use" in refused.stderr
    assert "top the server" in refused.stderr
    server.terminate()
    for typed in ("", "yes\n", "WIPE\n"):
        kept = run(server, "wipe", typed=typed)
        assert (kept.returncode, kept.stderr.splitlines()[-1][-20:]) == (1, "Nothing was deleted.")
    assert json.loads(run(server, "export").stdout)["text"] == "one"
    wiped = run(server, "wipe", typed="wipe\n")
    assert wiped.returncode == 0
    server.start()
    assert server.stats() == {"active_users": 0, "total_messages": 0}
    async with server.connect("ada") as ada:
        assert (await ada.read("history"))["data"] == []


async def test_wipe_leaves_nothing_in_redis(start: Start, redis_url: str, shared_redis: RunningRedis) -> None:
    server = start(ENGINE_URL=redis_url)
    await fill(server, "one")
    server.terminate()
    shared_redis.ask("SET mine 1")
    assert run(server, "wipe", "--yes").returncode == 0
    assert shared_redis.ask("DBSIZE") == b":1"


async def test_wipe_leaves_nothing_in_the_files_of_redis(start: Start, redis: RunningRedis) -> None:
    server = start(ENGINE_URL=redis.url)
    await fill(server, "Kq9-once-said")
    server.terminate()

    def kept() -> bool:
        return any(b"Kq9-once-said" in file.read_bytes() for file in redis.folder.rglob("*.aof"))

    assert kept()
    assert run(server, "wipe", "--yes").returncode == 0
    await until(lambda: not kept())


def test_wipe_and_export_leave_a_foreign_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "diary.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE diary (entry TEXT)")
    before = path.read_bytes()
    for arguments in (["wipe", "--yes"], ["export"]):
        ended = run_in(tmp_path, *arguments, ENGINE_URL=f"sqlite:///{path}")
        assert ended.returncode == 1
        assert "was not made by this program" in ended.stderr
        assert "Traceback" not in ended.stderr
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("memory://", "keeps nothing"),
        ("sqlite:///nowhere/chat.db", "does not exist"),
        ("redis://user:secret@127.0.0.1:{port}/0", "Check that Redis runs"),
    ],
)
@pytest.mark.parametrize("command", ["export", "wipe"])
def test_what_is_not_there_gets_a_sentence(tmp_path: Path, url: str, told: str, command: str) -> None:
    ended = run_in(tmp_path, command, ENGINE_URL=url.format(port=free_port()))
    assert ended.returncode == 1
    assert told in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert "secret" not in ended.stderr
    assert list(tmp_path.iterdir()) == []


async def test_who_reads_the_export_may_stop_early(start: Start) -> None:
    server = start()
    async with server.connect("ada") as ada:
        for _ in range(300):
            await ada.say("x" * 1000)
        await ada.read("session")
        while (await ada.read("message"))["data"]["seq"] < 300:
            pass
    command = f"{sys.executable} -m app export | head -1"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **server.variables}
    ended = subprocess.run(
        command, shell=True, cwd=server.folder, env=environment, capture_output=True, text=True, timeout=30, check=True
    )
    assert json.loads(ended.stdout)["seq"] == 1
    assert ended.stderr == ""
