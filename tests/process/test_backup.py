"""Backup and restore, from the command line, beside a real server and without one."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import Start
from tests.support.commands import run, run_in
from tests.support.running import ROOT, RunningServer
from tests.support.visitor import visit

pytestmark = pytest.mark.anyio

# Kills itself before the n-th thing that it does to a file.
KILLED = """
import os, runpy, signal, sys
left = int(sys.argv.pop(1))

def counted(call):
    def step(*arguments, **options):
        global left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **options)
    return step

for name in ("link", "replace", "unlink", "fsync", "open"):
    setattr(os, name, counted(getattr(os, name)))
runpy.run_module("app", run_name="__main__")
"""


@pytest.fixture
def server(start: Start) -> RunningServer:
    return start()


async def say(server: RunningServer, *texts: str) -> None:
    async with server.connect("ada") as ada:
        for text in texts:
            await ada.say(text)
            await ada.read("message")


def texts(path: Path) -> list[str]:
    """The messages in a file."""
    with closing(sqlite3.connect(path)) as db:
        return [text for (text,) in db.execute("SELECT text FROM message ORDER BY seq")]


def done(server: RunningServer, *arguments: str) -> str:
    """Runs a command that works, and returns what it says."""
    ended = run(server, *arguments)
    assert ended.returncode == 0, ended.stderr
    return ended.stderr


async def test_backup_beside_a_running_server_is_one_whole_file(server: RunningServer) -> None:
    await say(server, "one", "two")
    done(server, "backup", "copy.db")
    copy = server.folder / "copy.db"
    assert texts(copy) == ["one", "two"]
    assert copy.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in server.folder.glob("copy.db*")] == ["copy.db"]
    await say(server, "three")
    assert texts(copy) == ["one", "two"]


async def test_backup_replaces_nothing(server: RunningServer) -> None:
    (server.folder / "copy.db").write_text("of somebody's")
    ended = run(server, "backup", "copy.db")
    assert (ended.returncode, "exists already" in ended.stderr) == (1, True)
    assert (server.folder / "copy.db").read_text() == "of somebody's"


async def test_restore_after_a_kill_brings_back_exactly_the_copy(server: RunningServer) -> None:
    await say(server, "one")
    done(server, "backup", "copy.db")
    async with visit(server, "bob") as bob:
        session = bob.session
    await say(server, "two")
    server.kill()
    assert (server.folder / "chat.db-wal").stat().st_size > 0
    assert "chat.db.before-restore" in done(server, "restore", "copy.db")
    assert texts(server.folder / "chat.db.before-restore") == ["one", "two"]
    server.start()
    query = f"&epoch={session['epoch']}&since={session['seq']}"
    async with visit(server, "bob", session["token"], query) as bob:
        assert [data["content"] for data in bob.frames[0]["data"]] == ["one"]
        assert (bob.frames[0]["recovered"], bob.session["epoch"] == session["epoch"]) == (False, False)
    await say(server, "three")
    assert texts(server.folder / "chat.db") == ["one", "three"]


async def test_restore_where_nothing_is_yet(server: RunningServer, tmp_path: Path) -> None:
    await say(server, "one")
    done(server, "backup", "copy.db")
    ended = run_in(tmp_path, "restore", "copy.db", ENGINE_URL="sqlite:///elsewhere/chat.db")
    assert (ended.returncode, "before-restore" in ended.stderr) == (0, False)
    assert texts(tmp_path / "elsewhere" / "chat.db") == ["one"]


async def test_restore_over_a_broken_file_is_not_touched_by_its_log(server: RunningServer) -> None:
    await say(server, "one")
    done(server, "backup", "copy.db")
    await say(server, "two")
    server.kill()
    (server.folder / "chat.db").write_bytes(b"no database" * 1000)
    done(server, "restore", "copy.db")
    assert not (server.folder / "chat.db-wal").exists()
    server.start()
    assert server.stats()["total_messages"] == 1
    assert texts(server.folder / "chat.db") == ["one"]


async def test_restore_asks_for_the_server_to_be_stopped(server: RunningServer) -> None:
    await say(server, "one")
    done(server, "backup", "copy.db")
    ended = run(server, "restore", "copy.db")
    assert (ended.returncode, "Stop the server first" in ended.stderr) == (1, True)
    await say(server, "two")
    assert texts(server.folder / "chat.db") == ["one", "two"]


@pytest.mark.parametrize("damage", ["missing", "empty", "no database", "other", "cut"])
async def test_restore_of_what_is_no_whole_copy_changes_nothing(server: RunningServer, damage: str) -> None:
    await say(server, *(f"{number}" * 900 for number in range(9)))
    done(server, "backup", "copy.db")
    server.terminate()
    copy, room = server.folder / "copy.db", server.folder / "chat.db"
    before = room.read_bytes()
    if damage == "missing":
        copy.unlink()
    elif damage == "other":
        copy.unlink()
        with closing(sqlite3.connect(copy)) as db:
            db.execute("CREATE TABLE other (x)")
    else:
        copy.write_bytes({"empty": b"", "no database": b"x" * 10_000, "cut": copy.read_bytes()[:9000]}[damage])
    ended = run(server, "restore", "copy.db")
    assert ended.returncode == 1
    assert "copy.db" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert room.read_bytes() == before


async def test_restore_killed_at_any_step_leaves_the_one_room_or_the_other(server: RunningServer) -> None:
    await say(server, "one")
    done(server, "backup", "copy.db")
    await say(server, "two")
    server.kill()
    found: list[list[str]] = []
    for step in range(1, 200):
        command = [sys.executable, "-c", KILLED, str(step), "restore", "copy.db"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **server.variables}
        code = subprocess.run(command, cwd=server.folder, env=environment, capture_output=True, check=False).returncode
        found.append(texts(server.folder / "chat.db"))
        if code == 0:
            break
        assert code < 0
    assert found[0] == ["one", "two"]
    assert found[-1] == ["one"]
    assert found == sorted(found, key=len, reverse=True)
    assert len(found) > 10


@pytest.mark.parametrize("command", ["backup", "restore"])
def test_other_engines_say_what_to_do_instead(tmp_path: Path, redis_url: str, command: str) -> None:
    for url, advice in ((redis_url, "by Redis itself"), ("memory://", "keeps nothing")):
        ended = run_in(tmp_path, command, "copy.db", ENGINE_URL=url)
        assert (ended.returncode, advice in ended.stderr, len(ended.stderr.splitlines())) == (1, True, 1)
