"""Databases of every released version are opened; others are refused in a sentence, and left as they are."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from app.engines.sql import SCHEMA
from tests.conftest import Start
from tests.support.commands import run_in
from tests.support.owner import ask, done, page
from tests.support.running import COMMANDS, RunningServer, until
from tests.support.visitor import OWNER, visit

pytestmark = pytest.mark.anyio

RELEASES = sorted((Path(__file__).parent / "schemas").glob("*.sql"))  # each made by a server of that version


def make(path: Path, script: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(script)


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.stem)
async def test_database_of_a_release_keeps_everything(start: Start, tmp_path: Path, release: Path) -> None:
    make(tmp_path / "chat.db", release.read_text())
    server = start(OWNER_TOKEN=OWNER, RETENTION_DAYS="0")
    found = [(data["seq"], data["text"], data["role"]) for data in page(server)]
    assert found == [
        (1, "Hello", "visitor"),
        (3, "<b>&</b>", "visitor"),
        (4, "drei ☃", "visitor"),
        (5, "The owner's", "owner"),
    ]
    assert done(ask(server, "GET", "/api/bans/eve"))["reason"] == "spam"
    assert done(ask(server, "GET", "/api/room"))["slow_mode"] == 5
    query = "&epoch=800a7a73-8c29-483f-aa5d-2cabd3252f57&since=3"
    async with visit(server, "bob", query=query) as bob:
        hidden = ["1e20c8ff-4e14-49ec-b868-5e0d4acd7c92"]
        assert (bob.frames[0]["recovered"], bob.frames[0]["hidden"]) == (True, hidden)
        await bob.client.say("new")
        await bob.client.say("too soon")
        await until(lambda: bool(bob.errors and bob.seqs))  # the refusal needs no disk, and may come first
        assert (bob.seqs, bob.errors) == ([6], ["slow_mode"])
    with closing(sqlite3.connect(tmp_path / "chat.db")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (len(SCHEMA),)
    assert "Traceback" not in server.log()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (f"PRAGMA user_version = {len(SCHEMA) + 1}; CREATE TABLE room (epoch)", "made by a newer version"),
        ("PRAGMA user_version = 1; CREATE TABLE room (epoch); CREATE TABLE message (seq)", "before 0.1.0"),
        ("CREATE TABLE recipe (name)", "was not made by this program"),
    ],
    ids=["newer", "older", "foreign"],
)
def test_file_that_cannot_be_used_is_left_as_it_is(tmp_path: Path, script: str, words: str) -> None:
    path = tmp_path / "chat.db"
    make(path, script)
    before = path.read_bytes()
    server = RunningServer(COMMANDS["app"], tmp_path, {})
    server.start(wait=False)
    sentences = [line for line in server.failure().splitlines() if words in line]
    assert len(sentences) == 1
    for command in (["export"], ["backup", "copy.db"], ["wipe", "--yes"]):
        ended = run_in(tmp_path, *command, ENGINE_URL=f"sqlite:///{path}")
        assert (ended.returncode, words in ended.stderr, len(ended.stderr.splitlines())) == (1, True, 1)
    assert path.read_bytes() == before
