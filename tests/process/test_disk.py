"""A disk that is full or read-only, for real: who posts is told, the others notice nothing, and it mends by itself."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.conftest import Start, need_service
from tests.support.running import Client, RunningServer, until

pytestmark = pytest.mark.anyio


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """A system command and what became of it; one that is missing counts as failed."""
    if not shutil.which(str(command[0])):
        return subprocess.CompletedProcess(command, 127, "", f"{command[0]} is not installed")
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


class Disk(Protocol):
    """A place for a database where writing can be made to fail."""

    folder: Path

    def fail(self) -> None:
        """From now on nothing can be written."""

    def mend(self) -> None:
        """Everything works again. Safe to call twice."""


class FullDisk:
    """A small file system that another file fills up."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.filler = folder / "filler"

    def fail(self) -> None:
        full = pytest.raises(OSError, match=os.strerror(errno.ENOSPC))
        with self.filler.open("wb", buffering=0) as filler, full:
            while filler.write(bytes(4096)):
                pass

    def mend(self) -> None:
        self.filler.unlink(missing_ok=True)


class LockedDisk:
    """Files that the kernel lets nobody write to, not even who has them open.

    (A file system can't be remounted read-only while somebody has a file open for writing.)
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fail(self) -> None:
        for file in self.files():
            assert run("chattr", "+i", file).returncode == 0

    def mend(self) -> None:
        for file in self.files():
            run("chattr", "-i", file)

    def files(self) -> list[Path]:
        return [file for file in self.folder.iterdir() if file.name.endswith((".db", ".db-wal"))]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 2 MiB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = run("mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder)
    need_service(mounted.returncode == 0, f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    if run("umount", folder).returncode:
        run("umount", "--lazy", folder)


@pytest.fixture(params=["full", "read-only"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    """A disk that works, until told otherwise."""
    if request.param == "full":
        yield FullDisk(request.getfixturevalue("small_disk"))
        return
    disk = LockedDisk(tmp_path / "disk")
    disk.folder.mkdir()
    need_service(can_be_locked(disk), "open files can't be made read-only here (it takes root, chattr and ext4)")
    yield disk
    disk.mend()


def can_be_locked(disk: LockedDisk) -> bool:
    probe = disk.folder / "probe.db"
    with probe.open("wb", buffering=0) as file:
        try:
            disk.fail()
            file.write(b"x")
        except (AssertionError, PermissionError) as refused:
            return isinstance(refused, PermissionError)
        finally:
            disk.mend()
            probe.unlink()
    return False


def health(server: RunningServer) -> tuple[int, str]:
    answer = server.get("/health")
    return answer.status_code, answer.json()["status"]


async def history(server: RunningServer) -> list[dict[str, Any]]:
    async with server.connect("reader") as reader:
        data: list[dict[str, Any]] = (await reader.read("history"))["data"]
        return data


async def post(client: Client, content: str) -> dict[str, Any]:
    """Posts with the content as nonce, and returns the message or the error that it led to."""
    await client.say(content, nonce=content)
    while True:
        frame = await client.read("message", "error")
        if frame["data"].get("nonce") == content:
            return frame


async def post_until_refused(client: Client) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The messages that were acknowledged, and the error."""
    messages: list[dict[str, Any]] = []
    for number in range(1000):
        frame = await post(client, f"late-{number}")
        if frame["type"] == "error":
            return messages, frame
        messages.append(frame["data"])
    raise AssertionError("nothing was refused")


async def test_a_disk_that_fails_stops_nothing_but_posting(disk: Disk, start: Start) -> None:
    server = start(ENGINE_URL=f"sqlite:///{disk.folder}/chat.db")
    async with server.connect("ada") as ada, server.connect("bob") as bob:
        acknowledged = [(await post(ada, f"early-{number}"))["data"] for number in range(5)]
        disk.fail()
        late, error = await post_until_refused(ada)
        acknowledged += late
        refused = error["data"]["nonce"]
        assert error["data"]["code"] == "unavailable"
        assert health(server) == (503, "degraded")
        assert await history(server) == acknowledged
        assert server.stats()["total_messages"] == len(acknowledged)
        disk.mend()
        await until(lambda: health(server) == (200, "ok"))
        again = (await post(ada, refused))["data"]
        assert (await post(ada, refused))["data"] == again
        acknowledged += [again, (await post(ada, "last"))["data"]]
        assert [(await bob.read("message", "error"))["data"] for _ in acknowledged] == acknowledged
        assert [data["seq"] for data in acknowledged] == list(range(1, len(acknowledged) + 1))
        assert await history(server) == acknowledged
    server.kill()
    server.start()
    assert await history(server) == acknowledged
    assert "Traceback" not in server.log()


async def test_a_full_disk_is_noticed_and_forgotten_without_traffic(small_disk: Path, start: Start) -> None:
    disk = FullDisk(small_disk)
    server = start(ENGINE_URL=f"sqlite:///{disk.folder}/chat.db")
    assert health(server) == (200, "ok")
    disk.fail()
    await until(lambda: health(server) == (503, "degraded"))
    disk.mend()
    await until(lambda: health(server) == (200, "ok"))
    assert server.log().count("[ERROR]") == 1


async def test_the_start_on_a_read_only_disk_fails_with_a_sentence(small_disk: Path, start: Start) -> None:
    server = start(ENGINE_URL=f"sqlite:///{small_disk}/chat.db")
    server.terminate()
    assert run("mount", "-o", "remount,ro", small_disk).returncode == 0
    server.start(wait=False)
    output = server.failure()
    assert "Traceback" not in output
    assert any("chat.db" in line and os.strerror(errno.EROFS) in line for line in output.splitlines())
    assert run("mount", "-o", "remount,rw", small_disk).returncode == 0
    server.start()
    assert health(server) == (200, "ok")
