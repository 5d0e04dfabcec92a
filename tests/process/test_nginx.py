"""A real nginx, configured as the README says, in front of a real server."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from app.config import Settings
from tests.conftest import Start, need_service
from tests.support.running import ROOT, Client, RunningServer, free_port

pytestmark = pytest.mark.anyio

TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
MAIN = """
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
{temporary}
{documented}
}}
"""


def documented() -> str:
    """The configuration in the README."""
    (block,) = re.findall(r"^```nginx\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    return str(block)


def replaced(text: str, pattern: str, replacement: str) -> str:
    """The text with its one match replaced. Fails when there is none, or another one."""
    changed, count = re.subn(pattern, replacement, text)
    assert count == 1, pattern
    return changed


class RunningNginx:
    """One nginx before a server. Leaving the context ends it."""

    def __init__(self, folder: Path, server: RunningServer, read_timeout: str) -> None:
        self.server = server
        self.port = free_port()
        self.origin = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        site = replaced(documented(), r"listen 80;", f"listen 127.0.0.1:{self.port};")
        site = replaced(site, r" *listen \[::\]:80;\n", "")  # not every machine has IPv6
        site = replaced(site, r"server_name chat\.example\.com;", "server_name 127.0.0.1;")
        site = replaced(site, r"http://127\.0\.0\.1:8000;", f"http://127.0.0.1:{server.port};")
        site = replaced(site, r"(?<=proxy_read_timeout )\w+;", f"{read_timeout};") if read_timeout else site
        temporary = "\n".join(f"    {name}_temp_path {folder}/{name};" for name in TEMPORARY)
        (folder / "nginx.conf").write_text(MAIN.format(folder=folder, temporary=temporary, documented=site))
        self.command = ["nginx", "-e", f"{folder}/error.log", "-p", f"{folder}", "-c", f"{folder}/nginx.conf"]
        self.process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        self.process = subprocess.Popen([*self.command, "-g", "daemon off;"], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                self.get("/health")
                return self
            except httpx2.HTTPError:
                time.sleep(0.02)
        self.__exit__()
        raise AssertionError(f"nginx did not start:\n{self.log()}")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(timeout=20)

    def log(self) -> str:
        """Its errors."""
        return (self.folder / "error.log").read_text()

    def get(self, path: str) -> httpx2.Response:
        """A GET request."""
        return httpx2.get(self.origin + path, timeout=5)

    @asynccontextmanager
    async def connect(self, username: str, address: str = "127.0.0.1", **options: Any) -> AsyncIterator[Client]:
        """A client in the room behind it, which comes from this address and has not read anything yet."""
        url = f"ws://127.0.0.1:{self.port}/ws/chat?username={username}"
        async with connect(url, **{"max_queue": None, "local_addr": (address, 0), **options}) as socket:
            yield Client(socket)


Front = Callable[..., RunningNginx]


@pytest.fixture
def front(start: Start, tmp_path: Path) -> Iterator[Front]:
    """`front(read_timeout="", **variables)`: a real server, and nginx before it."""
    need_service(shutil.which("nginx") is not None, "nginx is not installed")
    with ExitStack() as stack:

        def start_both(read_timeout: str = "", **variables: str) -> RunningNginx:
            server = start(ENGINE_URL="memory://", **variables)
            return stack.enter_context(RunningNginx(tmp_path, server, read_timeout))

        yield start_both


async def answer(nginx: RunningNginx, username: str, **options: Any) -> str:
    """`in`, or the code of the refusal."""
    async with nginx.connect(username, **options) as client:
        frame = await client.read("history", "error")
        return str(frame["data"]["code"]) if frame["type"] == "error" else "in"


def test_nginx_accepts_the_documented_configuration(front: Front) -> None:
    nginx = front()
    checked = subprocess.run([*nginx.command, "-t"], capture_output=True, text=True, timeout=20, check=False)
    assert checked.returncode == 0, checked.stderr
    assert "warn" not in checked.stderr


def test_health_is_seen_through_nginx(front: Front) -> None:
    answered = front(APP_NAME="Behind").get("/health")
    assert (answered.status_code, answered.json()["service"]) == (200, "Behind")


async def test_a_chat_goes_both_ways(front: Front) -> None:
    nginx = front()
    async with nginx.connect("ada") as ada, nginx.connect("bob") as bob:
        for speaker, text in ((ada, "Hello"), (bob, "Hello yourself")):
            await speaker.say(text)
            for listener in (ada, bob):
                assert (await listener.read("message"))["data"]["content"] == text


async def test_the_public_origin_is_the_server_s_own_and_others_are_refused(front: Front) -> None:
    nginx = front(CORS_ORIGINS="https://www.example.com")
    for own in (nginx.origin, "https://www.example.com"):
        assert await answer(nginx, "ada", origin=Origin(own)) == "in"
    upstream = f"http://127.0.0.1:{nginx.server.port}"
    for other in ("https://evil.example", "http://127.0.0.1", upstream, nginx.origin.replace("http:", "https:")):
        with pytest.raises(InvalidStatus) as refused:
            await answer(nginx, "ada", origin=Origin(other))
        assert refused.value.response.status_code == 403


async def test_visitors_count_by_their_own_address(front: Front) -> None:
    nginx = front(WS_MAX_CONNECTIONS_PER_IP="1")
    async with nginx.connect("ada") as ada, nginx.connect("bob", "127.0.0.2") as bob:
        for client in (ada, bob):
            await client.read("history")
        for address in ("127.0.0.1", "127.0.0.2"):
            assert await answer(nginx, "eve", address=address) == "too_many_connections"
        forged = {"X-Forwarded-For": "198.51.100.7"}
        assert await answer(nginx, "eve", address="127.0.0.2", additional_headers=forged) == "too_many_connections"
        assert await answer(nginx, "eve", address="127.0.0.3") == "in"


async def test_a_proxy_that_is_not_trusted_is_logged_and_its_visitors_are_not_limited(front: Front) -> None:
    nginx = front(WS_MAX_CONNECTIONS_PER_IP="1", FORWARDED_ALLOW_IPS="10.0.0.1")
    async with nginx.connect("ada", "127.0.0.2") as ada:
        await ada.read("history")
        assert await answer(nginx, "bob", address="127.0.0.2") == "in"
    assert "add 127.0.0.1 to FORWARDED_ALLOW_IPS" in nginx.server.log()


async def test_an_idle_connection_outlives_the_timeout_by_its_heartbeats(front: Front) -> None:
    nginx = front(read_timeout="1s", WS_HEARTBEAT_INTERVAL="0.2")
    async with nginx.connect("ada") as ada:
        for _ in range(10):
            await ada.read("ping")
        await ada.say("Still here")
        assert (await ada.read("message"))["data"]["content"] == "Still here"


async def test_a_timeout_below_the_heartbeat_breaks_the_connection(front: Front) -> None:
    nginx = front(read_timeout="1s")
    async with nginx.connect("ada") as ada, asyncio.timeout(20):
        assert await ada.read_all(lambda frame: None) is None  # without a close frame


def test_the_documented_timeout_is_above_the_heartbeat() -> None:
    (seconds,) = re.findall(r"proxy_read_timeout (\d+)s;", documented())
    assert int(seconds) >= 2 * Settings().ws_heartbeat_interval
