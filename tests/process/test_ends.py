"""However a client ends, or lies there dead, it costs the others nothing and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.conftest import Start
from tests.support.running import HANDSHAKE, Client, RunningServer, until

pytestmark = pytest.mark.anyio

both = pytest.mark.parametrize("command", ["app", "uvicorn"])
QUICK = {"WS_HEARTBEAT_INTERVAL": "0.1", "WS_HEARTBEAT_TIMEOUT": "0.5"}


def users(server: RunningServer, count: int) -> Callable[[], bool]:
    return lambda: server.stats()["active_users"] == count


def reset(connection: socket.socket) -> None:
    """Ends a connection with a TCP reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@contextlib.asynccontextmanager
async def reader(server: RunningServer, name: str) -> AsyncIterator[list[dict[str, Any]]]:
    """The frames that a lively client gets. Its connection must last until the end."""
    frames: list[dict[str, Any]] = []
    async with server.connect(name) as client:
        reading = asyncio.create_task(client.read_all(frames.append))
        await until(lambda: len(frames) >= 3)
        yield frames
        await client.socket.close()
        assert await reading == 1000


def counts(frames: list[dict[str, Any]]) -> list[int]:
    return [frame["data"]["count"] for frame in frames if frame["type"] == "user_count"]


@both
async def test_a_client_that_never_reads_costs_the_others_nothing(start: Start, command: str) -> None:
    server = start(command, WS_SEND_BUFFER="320000", MAX_MESSAGE_LENGTH="10000", WS_MAX_CONNECTIONS="3")
    posted = 0
    with server.raw("lazy", receive_buffer=4096):
        async with server.connect("ada") as ada, server.connect("bob") as bob:
            await until(users(server, 3))
            async with asyncio.timeout(60):
                while not users(server, 2)():
                    for _ in range(10):
                        await ada.say("x" * 10_000)
                    for seq in range(posted + 1, posted + 11):
                        assert (await ada.read("message"))["data"]["seq"] == seq
                        assert (await bob.read("message"))["data"]["seq"] == seq
                    posted += 10
            async with server.connect("cyd") as cyd:
                assert (await cyd.read())["type"] == "history"
    assert "Traceback" not in server.log()


@both
async def test_a_client_that_is_silent_is_removed(start: Start, command: str) -> None:
    server = start(command, **QUICK)
    async with reader(server, "ada") as frames:
        with server.raw("dead"):
            await until(lambda: 2 in counts(frames))
            await until(lambda: counts(frames)[-1] == 1)
            assert server.stats()["active_users"] == 1
    assert "Traceback" not in server.log()


@both
async def test_a_client_that_answers_no_ping_hears_4000(start: Start, command: str) -> None:
    server = start(command, **QUICK)
    async with reader(server, "ada"), server.connect("mute") as mute:
        with contextlib.suppress(ConnectionClosed):
            while await mute.socket.recv():
                pass
        assert mute.socket.close_code == 4000


# The ways in which a connection may end. Each leaves the server to find out.


async def close_cleanly(server: RunningServer) -> None:
    async with server.connect("ada") as client:
        await client.read("session")


async def reset_after_joining(server: RunningServer) -> None:
    connection = server.raw("ada")
    await until(users(server, 1))
    reset(connection)


async def reset_during_the_handshake(server: RunningServer) -> None:
    for _ in range(20):
        connection = socket.create_connection(("127.0.0.1", server.port))
        connection.sendall(HANDSHAKE.format(username="ada").encode())
        reset(connection)


async def stop_sending(server: RunningServer) -> None:
    with server.raw("ada") as connection:
        await until(users(server, 1))
        connection.shutdown(socket.SHUT_WR)
        await until(users(server, 0))


async def send_too_much(server: RunningServer) -> None:
    async with server.connect("ada") as client:
        await client.say("x" * 70_000)
        assert await client.read_all(lambda frame: frame) == 1009


async def be_refused(server: RunningServer) -> None:
    async with server.connect("no%20name") as client:
        assert (await client.read())["data"]["code"] == "invalid_username"
        assert await client.read_all(lambda frame: frame) == 1008


async def fall_silent(server: RunningServer) -> None:
    with server.raw("ada"):
        await until(users(server, 1))
        await until(users(server, 0))


async def break_the_protocol(server: RunningServer) -> None:
    with server.raw("ada") as connection:
        connection.sendall(b"\xff\xff not a frame")
        await until(users(server, 0))


WAYS = (
    close_cleanly,
    reset_after_joining,
    reset_during_the_handshake,
    stop_sending,
    send_too_much,
    be_refused,
    fall_silent,
    break_the_protocol,
)


async def first_frame(client: Client) -> str:
    frame = await client.read()
    return str(frame["data"]["code"] if frame["type"] == "error" else frame["type"])


@both
async def test_every_slot_is_free_again_however_a_connection_ends(start: Start, command: str) -> None:
    server = start(command, WS_MAX_CONNECTIONS="2", **QUICK)
    for way in WAYS:
        await asyncio.gather(way(server), way(server))
        await until(users(server, 0))
        async with server.connect("bob") as bob, server.connect("cyd") as cyd, server.connect("dan") as dan:
            outcome = [await first_frame(client) for client in (bob, cyd, dan)]
            assert outcome == ["history", "history", "server_full"], way.__name__
            assert server.stats()["active_users"] == 2, way.__name__
        await until(users(server, 0))
    assert "Traceback" not in server.log()


async def beat(clients: list[Client]) -> None:
    """One ping, and everybody's answer."""
    for client in clients:
        await client.read("ping")
    for client in clients:
        await client.send(type="pong")


@pytest.mark.parametrize("pause", [1.04, 3.0])
async def test_nobody_is_closed_for_silence_while_the_server_stood_still(start: Start, pause: float) -> None:
    server = start(WS_HEARTBEAT_INTERVAL="1.0", WS_HEARTBEAT_TIMEOUT="2.0")
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(server.connect(name)) for name in ("ada", "bob", "cyd")]
        await beat(clients)
        for client in clients:
            await client.read("ping")  # an interval after they were last heard
        server.process.send_signal(signal.SIGSTOP)
        for client in clients:
            await client.send(type="pong")  # in time, but nobody is there to read it
        over = time.monotonic() + pause
        await until(lambda: time.monotonic() > over)
        server.process.send_signal(signal.SIGCONT)
        for _ in range(4):  # for longer than the timeout: reading from a closed connection raises
            await beat(clients)
    assert "Traceback" not in server.log()
