"""What a hostile peer does below ASGI: it is bounded, ended, and costs the others nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct

import pytest
from websockets.exceptions import ConnectionClosed

from tests.conftest import Start
from tests.support.running import HANDSHAKE, until

pytestmark = pytest.mark.anyio

PING = b"\x89\x80\x00\x00\x00\x00"
EMPTY_CONTINUATION = b"\x00\x80\x00\x00\x00\x00"
LONG_PING = b"\x89\xfd\x00\x00\x00\x00" + bytes(125)
TEXT = b"\x81\x81\x00\x00\x00\x00x"
TEXT_BEGINS = b"\x01\x80\x00\x00\x00\x00"


def drain(peer: socket.socket) -> bytes:
    """Everything that still comes until the end of the connection, however it ends."""
    received = b""
    try:
        while part := peer.recv(65536):
            received += part
    except OSError:
        pass
    return received


def flood(peer: socket.socket, data: bytes) -> None:
    """Sends until all is sent or the other side has had enough."""
    with contextlib.suppress(OSError):
        peer.sendall(data)


async def test_a_peer_that_stops_reading_is_cut_off_and_costs_the_others_nothing(start: Start) -> None:
    server = start(WS_SEND_BUFFER="65536")
    files = server.open_files()
    with server.raw("stuck", receive_buffer=4096):
        async with server.connect("ada") as ada, server.connect("bob") as bob:
            before = server.memory()
            for number in range(1500):  # 6 MB, more than the kernel buffers
                await ada.say("🦀" * 990 + str(number))
                for client in (ada, bob):
                    assert (await client.read("message"))["data"]["seq"] == number + 1
            await until(lambda: server.get("/api/stats").json()["active_users"] == 2)
            await until(lambda: server.open_files() == files + 2)
            assert server.memory() - before < 24 * 2**20  # the kernel's buffers are not counted here


async def test_a_stuck_peer_in_a_quiet_room_is_ended_by_the_heartbeat(start: Start) -> None:
    server = start(WS_HEARTBEAT_INTERVAL="0.2", WS_HEARTBEAT_TIMEOUT="1")
    files = server.open_files()
    with server.raw("stuck", receive_buffer=4096):
        await until(lambda: server.get("/api/stats").json()["active_users"] == 0)
        await until(lambda: server.open_files() == files)


@pytest.mark.parametrize(
    ("first", "flooded"), [(b"", PING), (TEXT_BEGINS, EMPTY_CONTINUATION)], ids=["pings", "empty continuations"]
)
async def test_a_flood_of_hidden_frames_is_closed(start: Start, first: bytes, flooded: bytes) -> None:
    server = start()
    async with server.connect("ada") as ada:
        with server.raw("flood") as peer:
            before = server.memory()
            flooding = asyncio.to_thread(flood, peer, first + flooded * 300_000)
            task = asyncio.ensure_future(flooding)
            await ada.say("still there?")
            assert (await ada.read("message"))["data"]["content"] == "still there?"
            received = await asyncio.to_thread(drain, peer)
            assert struct.pack(">H", 4501) in received
            await task
        assert server.memory() - before < 24 * 2**20
        await until(lambda: server.get("/api/stats").json()["active_users"] == 1)


@pytest.mark.parametrize("username", ["flood", "no%20name"], ids=["in the room", "after a refusal"])
@pytest.mark.parametrize(
    ("first", "flooded"),
    [(b"", PING), (TEXT_BEGINS, EMPTY_CONTINUATION), (b"", LONG_PING), (b"", TEXT)],
    ids=["pings", "empty continuations", "long pings", "texts"],
)
async def test_what_comes_after_the_flood_limit_costs_nothing(
    start: Start, first: bytes, flooded: bytes, username: str
) -> None:
    server = start(RATE_LIMIT_MESSAGES="10")
    with server.raw(username) as peer:
        memory, computed = server.memory(), server.cpu_time()
        await asyncio.to_thread(flood, peer, first + flooded * (38 * 2**20 // len(flooded)))
        await until(lambda: server.stats()["active_users"] == 0)
    assert server.memory() - memory < 2 * 2**20
    assert server.cpu_time() - computed < 0.5  # with all of it parsed, or only kept, 1 to 8 s


async def test_a_flood_of_messages_in_one_piece_is_closed_and_costs_the_others_nothing(start: Start) -> None:
    server = start(RATE_LIMIT_MESSAGES="10")
    pong = b'\x81\x8f\x00\x00\x00\x00{"type":"pong"}'
    async with server.connect("ada") as ada:
        with server.raw("flood") as peer:
            before = server.memory()
            flooding = asyncio.create_task(asyncio.to_thread(flood, peer, pong * 100_000))
            await ada.say("still there?")
            assert (await ada.read("message"))["data"]["content"] == "still there?"
            assert struct.pack(">H", 4501) in await asyncio.to_thread(drain, peer)
            await flooding
        assert server.memory() - before < 24 * 2**20


async def test_pings_at_a_usual_rate_are_answered(start: Start) -> None:
    server = start()
    async with server.connect("ada") as ada:
        for _ in range(20):
            await (await ada.socket.ping())


async def test_unfinished_requests_are_ended(start: Start) -> None:
    server = start()
    files = server.open_files()
    beginnings = [
        b"",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /health HTTP/1.1\r\nHost",
        b"POST /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{",
    ]
    peers = [socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in beginnings]
    for peer, beginning in zip(peers, beginnings, strict=True):
        peer.sendall(beginning)
    await until(lambda: server.open_files() == files + len(peers))
    await asyncio.gather(*(asyncio.to_thread(drain, peer) for peer in peers))
    await until(lambda: server.open_files() == files)
    for peer in peers:
        peer.close()


@pytest.mark.parametrize(
    "header", ["X-Long: " + "x" * 9000, "\r\n".join(f"X-{n}: x" for n in range(130)), "Content-Length: 5"]
)
async def test_an_upgrade_that_is_no_handshake_is_answered_and_ended(start: Start, header: str) -> None:
    server = start()
    files = server.open_files()
    request = HANDSHAKE.format(username="ada").removesuffix("\r\n") + header + "\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as peer:
        peer.sendall(request.encode())
        assert drain(peer).startswith(b"HTTP/1.1 400 ")
    await until(lambda: server.open_files() == files)
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as peer:
        peer.sendall(request.encode())
        assert server.terminate() in (0, -15)
    assert "Traceback" not in server.log()


async def test_pipelined_requests_are_bounded(start: Start) -> None:
    server = start()
    before = server.memory()
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as peer:
            flood(peer, b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50_000)
            drain(peer)
    assert server.memory() - before < 24 * 2**20
    assert "Traceback" not in server.log()


async def test_a_stuck_peer_that_half_closes_is_gone(start: Start) -> None:
    server = start(WS_SEND_BUFFER="67108864")
    with server.raw("stuck", receive_buffer=4096) as stuck:
        async with server.connect("ada") as ada:
            for number in range(1500):
                await ada.say("🦀" * 990)
                assert (await ada.read("message"))["data"]["seq"] == number + 1
            stuck.shutdown(socket.SHUT_WR)
            await until(lambda: server.stats()["active_users"] == 1)


async def test_what_breaks_the_protocol_leaves_no_traceback(start: Start) -> None:
    server = start()
    close = b"\x88\x82\x00\x00\x00\x00\x03\xe8"
    for sent in (PING * 201 + close, b"\x81\x82\x00\x00\x00\x00\xff\xfe", b"\x81\x82\x00\x00\x00\x00\xff\xfe" + close):
        with server.raw("ada") as peer:
            peer.sendall(sent)
            await asyncio.to_thread(drain, peer)
    await until(lambda: server.stats()["active_users"] == 0)
    assert "Traceback" not in server.log()
    assert "ERROR" not in server.log()


async def test_huge_headers_are_refused(start: Start) -> None:
    server = start()
    before = server.memory()
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as peer:
            flood(peer, b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Big: " + b"x" * 4_000_000)
            answer = drain(peer)  # none where the reset overtook it
            assert not answer or answer.startswith(b"HTTP/1.1 431 ")
    assert server.memory() - before < 24 * 2**20
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as peer:
        peer.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Big: " + b"x" * 66_000)
        assert drain(peer).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("parts", [1, 10])
async def test_a_frame_over_64_kib_is_closed_with_1009(start: Start, parts: int) -> None:
    server = start()
    async with server.connect("ada") as ada:
        text = json.dumps({"type": "message", "content": "x" * 70_000})
        size = -(-len(text) // parts)
        await ada.socket.send([text[at : at + size] for at in range(0, len(text), size)] if parts > 1 else text)
        with pytest.raises(ConnectionClosed) as closed:
            await ada.read("nothing")
        assert closed.value.rcvd
        assert closed.value.rcvd.code == 1009


async def test_neither_compression_nor_the_software_is_offered(start: Start) -> None:
    server = start()
    assert "server" not in server.get("/health").headers
    async with server.connect("ada", compression="deflate") as ada:
        assert ada.socket.response
        assert "Sec-WebSocket-Extensions" not in ada.socket.response.headers
        assert "Server" not in ada.socket.response.headers
    assert "?" not in server.log()
