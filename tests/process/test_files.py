"""Limits of the machine: open files, and who stands before the server."""

from __future__ import annotations

import contextlib
import resource
import socket

import pytest

from tests.conftest import Start
from tests.support.running import RunningServer, until

pytestmark = pytest.mark.anyio


async def test_out_of_files_new_connections_fail_and_old_ones_go_on(start: Start) -> None:
    server = start()
    async with server.connect("ada") as ada:
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (40, 40))
        with contextlib.ExitStack() as stack:
            for _ in range(200):
                stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=5))
            await until(lambda: "Out of file descriptors" in server.log())
            for number in range(10):
                await ada.say("still there?")
                assert (await ada.read("message"))["data"]["seq"] == number + 1
        await until(lambda: answers(server))
    assert server.log().count("Out of file descriptors") == 1
    assert "Traceback" not in server.log()


def answers(server: RunningServer) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port), timeout=1) as peer:
        peer.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        return peer.recv(12) == b"HTTP/1.1 200"
    return False


def test_a_low_hard_limit_is_said_at_start(start: Start) -> None:
    server = start(WS_MAX_CONNECTIONS="1000000")
    assert "WS_MAX_CONNECTIONS=1000000 needs 1000256" in server.log()


@pytest.mark.parametrize(
    ("forwarded", "same"),
    [("1.2.3.4", True), ("9.9.9.9, 1.2.3.4", True), ("1.2.3.4, 10.0.0.1", True), ("1.2.3.4, 5.6.7.8", False)],
)
async def test_the_rightmost_address_that_is_not_a_trusted_proxy_counts(
    start: Start, forwarded: str, same: bool
) -> None:
    server = start(FORWARDED_ALLOW_IPS="127.0.0.1,10.0.0.0/8")
    first, second = {"X-Forwarded-For": "1.2.3.4"}, {"X-Forwarded-For": forwarded}
    async with (
        server.connect("ada", additional_headers=first) as ada,
        server.connect("ada", additional_headers=second) as again,
    ):
        assert (await ada.read())["type"] == "history"
        answer = await again.read()
        assert (answer["type"] == "history") is same
    assert "is not believed" not in server.log()


async def test_a_proxy_that_is_not_trusted_is_said_once(start: Start) -> None:
    server = start(FORWARDED_ALLOW_IPS="10.0.0.1")
    for name in ("ada", "bob"):
        async with server.connect(name, additional_headers={"X-Forwarded-For": "1.2.3.4"}) as client:
            await client.read("history")
    assert server.log().count("is not believed") == 1
    assert "add 127.0.0.1 to FORWARDED_ALLOW_IPS" in server.log()
