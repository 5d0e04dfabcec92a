"""What a server forgets by itself, and a database of an earlier version, at the wire of a real server."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from app.engines.sql import SCHEMA
from tests.conftest import Start
from tests.support.owner import SHARED, ask, done, fault, page, serving, wait_for_workers
from tests.support.running import RunningServer, until
from tests.support.visitor import OWNER, visit

pytestmark = pytest.mark.anyio

DAY = 86_400.0
TEXT = "Kq9-once-said "
INSERT = "INSERT INTO message (id, session, username, content, text, timestamp, nonce, role) VALUES (?,?,?,?,?,?,?,?)"


def first_version(path: Path) -> None:
    """An empty database as the first version of the program made it."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(SCHEMA[0])
        db.execute("INSERT INTO room (epoch, secret, probes) VALUES ('the-old-epoch', 'a secret of some length', 0)")
        db.execute("PRAGMA user_version = 1")
        db.commit()


def fill(path: Path, ages: list[float], text: str = TEXT * 20, nonce: str = "n") -> None:
    """Messages of the owner of these ages (days), oldest first."""
    now = time.time()
    rows = [
        (str(uuid.uuid4()), "owner", "owner", text, text, now - age * DAY, f"{nonce}-{number}", "owner")
        for number, age in enumerate(ages, 1)
    ]
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executemany(INSERT, rows)
        db.commit()


def size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.parent.glob("chat.db*"))


def holds(path: Path, text: str) -> bool:
    return any(text.encode() in file.read_bytes() for file in path.parent.glob("chat.db*"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the server will look for its database, which is one of the first version."""
    path = tmp_path / "chat.db"
    first_version(path)
    return path


@contextlib.contextmanager
def serve(start: Start, **variables: str) -> Iterator[RunningServer]:
    server = start(OWNER_TOKEN=OWNER, SHUTDOWN_SPREAD="0", **variables)
    yield server
    if server.process.poll() is None:
        server.terminate()


def pruned(server: RunningServer, first: int) -> bool:
    """Whether this is the oldest message, in the store, and, a little later, in the room."""
    if [data["seq"] for data in page(server, limit=1)] != [first]:
        return False
    return all(data["seq"] >= first for data in done(ask(server, "GET", "/api/history"))["data"])


async def test_first_version_s_database_keeps_its_messages_and_can_shrink(start: Start, path: Path) -> None:
    fill(path, [3.0] * 9000)
    before = size(path)
    with serve(start, MAX_STORED_MESSAGES="0", RETENTION_DAYS="0") as server:
        found = page(server, after=8998)
        assert [(data["seq"], data["text"], data["nonce"]) for data in found] == [
            (8999, TEXT * 20, "n-8999"),
            (9000, TEXT * 20, "n-9000"),
        ]
        assert server.stats()["total_messages"] == 9000
        async with visit(server, "ada", query="&epoch=the-old-epoch&since=8990") as ada:
            assert (ada.frames[0]["recovered"], len(ada.frames[0]["data"])) == (True, 10)
            assert ada.session["epoch"] == "the-old-epoch"
        assert done(ask(server, "POST", "/api/messages", {"content": TEXT * 20, "nonce": "n-1"}))["seq"] == 1
        server.terminate()
        server.variables["MAX_STORED_MESSAGES"] = "100"
        server.start()
        async with visit(server, "ada") as ada:
            for number in range(20):  # while it prunes
                await ada.client.say(f"{number}", nonce=f"a-{number}")
                await asyncio.sleep(0.01)
            await until(lambda: len(ada.seqs) == 20)
            await until(lambda: not pruned(server, 1) and page(server, limit=1)[0]["seq"] >= 8901)
            assert ada.seqs == list(range(9001, 9021))
            assert ada.errors == []
        assert server.stats()["total_messages"] == 9020
        assert size(path) < before / 10
        assert "Traceback" not in server.log()


async def test_messages_past_their_days_are_gone_from_everywhere(start: Start, path: Path) -> None:
    fill(path, [100.0] * 2500 + [91.0] * 200)
    fill(path, [89.0, 1.0, 0.0], "young", "y")
    with serve(start) as server:
        await until(lambda: pruned(server, 2701))
        assert not holds(path, TEXT)
        for since, recovered in ((2699, False), (2700, True), (2702, True), (0, False)):
            async with visit(server, f"ada{since}", query=f"&epoch=the-old-epoch&since={since}") as ada:
                seqs = list(range(1 + (since if recovered else 2700), 2704))
                assert (ada.frames[0]["recovered"], [data["seq"] for data in ada.frames[0]["data"]]) == (
                    recovered,
                    seqs,
                )
                assert ada.session["seq"] == 2703
                await ada.client.socket.close()
            await until(lambda: server.stats()["active_users"] == 0)
        assert server.stats()["total_messages"] == 2703
        server.kill()
        server.start()
        assert [data["seq"] for data in page(server)] == [2701, 2702, 2703]
        assert not holds(path, TEXT)


async def test_nonces_of_pruned_messages_are_known_for_a_day_at_least(start: Start, path: Path) -> None:
    fill(path, [3.0] * 50 + [1.0] * 1500)
    with serve(start, MAX_STORED_MESSAGES="1") as server:
        await until(lambda: pruned(server, 1550))
        assert len(page(server)) == 1
        for number in (51, 1549):
            again = ask(server, "POST", "/api/messages", {"content": TEXT * 20, "nonce": f"n-{number}"})
            assert fault(again)[:2] == (410, "hidden")
        assert server.stats()["total_messages"] == 1550


async def test_hidden_message_stays_known_when_those_before_it_are_pruned(start: Start, path: Path) -> None:
    fill(path, [1.0] * 20)
    with serve(start) as server:
        hidden = page(server)[15]["id"]
        done(ask(server, "DELETE", f"/api/messages/{hidden}"))
        done(ask(server, "POST", "/api/messages", {"content": "the 21st"}), 201)
        server.terminate()
        server.variables["MAX_STORED_MESSAGES"] = "10"
        server.start()
        await until(lambda: pruned(server, 12))
        async with visit(server, "ada", query="&epoch=the-old-epoch&since=17") as ada:
            assert (ada.frames[0]["recovered"], ada.frames[0]["hidden"]) == (True, [hidden])


async def test_workers_on_redis_prune_their_one_room(
    request: pytest.FixtureRequest, start: Start, redis_url: str
) -> None:
    with serving(request, start, "redis", MAX_STORED_MESSAGES="0", RETENTION_DAYS="0") as server:
        async with visit(server, "ada") as ada:
            for number in range(2500):
                await ada.client.say(f"{TEXT}{number}", nonce=f"n-{number}")
            await until(lambda: len(ada.seqs) == 2500)
            token, epoch = ada.session["token"], ada.session["epoch"]
        server.terminate()
        server.variables["MAX_STORED_MESSAGES"] = "10"
        server.start()
        wait_for_workers(server, 4)
        await until(lambda: pruned(server, 2491))
        with Redis.from_url(redis_url) as redis:
            await until(lambda: redis.xlen("{portfolio-chat}:" + epoch) < 50)
        async with visit(server, "ada", token, f"&epoch={epoch}&since=2480") as ada:
            assert not ada.frames[0]["recovered"]
            assert [data["seq"] for data in ada.frames[0]["data"]] == list(range(2491, 2501))
            await ada.client.say(f"{TEXT}5", nonce="n-5")
            await until(lambda: bool(ada.datas("hidden")))
            assert [data["nonce"] for data in ada.datas("hidden")] == ["n-5"]
            await ada.client.say("new")
            await until(lambda: ada.seqs == [2501])
        assert server.stats()["total_messages"] == 2501
        assert SHARED["SECRET_KEY"] not in server.log()
