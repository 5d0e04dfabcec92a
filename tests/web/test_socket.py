"""The endpoint: every refusal as it is on the wire, and every way in which a connection ends."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, MutableMapping
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient, WebSocketTestSession

from app.chat.credentials import Handshake
from app.chat.registry import ConnectionRegistry
from app.chat.room import Room
from app.chat.timing import RoomTiming
from app.engines.engine import Engine, EngineTiming
from app.engines.memory import MemoryStore
from app.engines.presence import LocalPresence, PresenceTiming
from app.exceptions import CloseCode
from app.main import create_app
from tests.support.chat import settings_of
from tests.support.running import until

NewClient = Callable[..., TestClient]
URL = "/ws/chat?username=ada"


def read(socket: WebSocketTestSession, *types: str) -> dict[str, Any]:
    """The next frame of these types."""
    while True:
        frame: dict[str, Any] = socket.receive_json()
        if frame["type"] in types:
            return frame


def closed(socket: WebSocketTestSession) -> int:
    """The code of the close frame, after whatever comes before it. None of it tells what went wrong inside."""
    while (message := socket.receive())["type"] != "websocket.close":
        assert "SECRETWORD" not in message["text"]
    assert "SECRETWORD" not in message["reason"]
    return int(message["code"])


def still_works(socket: WebSocketTestSession) -> bool:
    socket.send_json({"type": "ping"})
    return bool(read(socket, "pong", "error")["type"] == "pong")


def test_newcomer_gets_its_first_frames_in_order(client: NewClient) -> None:
    with client().websocket_connect(URL) as socket:
        assert [socket.receive_json()["type"] for _ in range(3)] == ["history", "session", "user_count"]


def test_missed_messages_come_by_epoch_and_since(client: NewClient) -> None:
    served = client()
    with served.websocket_connect(URL) as socket:
        epoch = read(socket, "session")["data"]["epoch"]
        for text in ("one", "two"):
            socket.send_json({"type": "message", "content": text})
            read(socket, "message")
    with served.websocket_connect(f"{URL}&epoch={epoch}&since=1") as socket:
        history = read(socket, "history")
    assert (history["recovered"], [data["content"] for data in history["data"]]) == (True, ["two"])


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("no JSON", "invalid_frame"),
        ("[]", "invalid_frame"),
        ('{"type":"message","content":"\\ud800"}', "invalid_frame"),
        ("[" * 60_000, "invalid_frame"),
        ({"type": "typing"}, "invalid_frame"),
        ({"type": "message"}, "invalid_frame"),
        ({"type": "message", "content": 5}, "invalid_frame"),
        ({"type": "message", "content": "\u200b"}, "empty_message"),
        ({"type": "message", "content": "é" * 1001}, "message_too_long"),
        ({"type": "message", "content": "<script>alert(1)</script>"}, "blocked_content"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_refusal_names_its_reason_and_keeps_the_connection(client: NewClient, frame: Any, code: str) -> None:
    with client().websocket_connect(URL) as socket:
        socket.send_text(frame if isinstance(frame, str) else json.dumps(frame))
        sent = read(socket, "error", "message")
        assert sent["data"] == {"code": code}
        assert sent["message"].endswith(".")
        assert still_works(socket)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("", "empty_message"),
        ("x" * 1001, "message_too_long"),
        ("<img onerror=alert(1)>", "blocked_content"),
        (5, "invalid_frame"),
        ("other", "nonce_reused"),
        ("text", None),
    ],
)
def test_nonce_comes_back_with_refusal_and_acknowledgement(
    client: NewClient, content: object, code: str | None
) -> None:
    with client().websocket_connect(URL) as socket:
        if code == "nonce_reused":
            socket.send_json({"type": "message", "content": "first", "nonce": "n-1"})
            read(socket, "message")
        socket.send_json({"type": "message", "content": content, "nonce": "n-1"})
        sent = read(socket, "error", "message")
        assert (sent["data"].get("code"), sent["data"]["nonce"]) == (code, "n-1")


def test_full_queue_is_unavailable() -> None:
    app = create_app(settings_of())
    app.state.backend = app.state.backend._replace(engine=Engine(MemoryStore(), 32_768, EngineTiming(queue_limit=0)))
    with TestClient(app) as served, served.websocket_connect(URL) as socket:
        socket.send_json({"type": "message", "content": "Hello", "nonce": "n-1"})
        assert read(socket, "error")["data"] == {"code": "unavailable", "nonce": "n-1"}
        assert still_works(socket)


@pytest.mark.parametrize("data", [b"", b"\xff", b'{"type":"ping"}'])
def test_binary_frame_is_refused(client: NewClient, data: bytes) -> None:
    with client().websocket_connect(URL) as socket:
        socket.send_bytes(data)
        assert read(socket, "error")["data"]["code"] == "unsupported_data"
        assert still_works(socket)


@pytest.mark.parametrize("data", ["x" * 65_537, "é" * 32_769, b"x" * 65_537])
def test_frame_over_64_kib_closes_with_1009(client: NewClient, data: str | bytes) -> None:
    with client().websocket_connect(URL) as socket:
        if isinstance(data, bytes):
            socket.send_bytes(data)
        else:
            socket.send_text(data)
        assert closed(socket) == 1009


def test_frame_of_64_kib_is_read(client: NewClient) -> None:
    with client().websocket_connect(URL) as socket:
        frame = '{"type":"message","content":"%s"}'
        socket.send_text(frame % ("é" * ((65_536 - len(frame) + 2) // 2)))
        assert read(socket, "error")["data"]["code"] == "message_too_long"


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["chat.v1"], "chat.v1"),
        (["bearer.secret", "chat.v1"], "chat.v1"),
        (["bearer.secret"], None),
        (["chat.v2"], None),
        ([], None),
    ],
)
@pytest.mark.parametrize("name", ["ada", "", "not%20a%20name"])
def test_subprotocol_is_chosen_when_offered_on_refusals_too(
    client: NewClient, offered: list[str], chosen: str | None, name: str
) -> None:
    with client().websocket_connect(f"/ws/chat?username={name}", subprotocols=offered) as socket:
        assert socket.accepted_subprotocol == chosen
        assert b"bearer" not in str(socket.extra_headers).encode()


@pytest.mark.parametrize(
    "query",
    [
        "", "?", "?username", "?username=", "?name=ada", f"?username={'x' * 51}", "?username=a%20b", "?username=a+b",
        "?username=%00", "?username=ada%00", "?username=ada%0a", "?username=a%0d%0ab", "?username=%D0%BC%D0%B8%D1%80",
        "?username=%ff", "?username=<b>", "?username=ada&username=", "?username=ada&username=b%20c",
    ],
)  # fmt: skip
def test_bad_username_is_refused_with_a_reason(client: NewClient, query: str) -> None:
    served = client()
    with served.websocket_connect(f"/ws/chat{query}") as socket:
        sent = socket.receive_json()
        assert (sent["type"], sent["data"]) == ("error", {"code": "invalid_username"})
        assert closed(socket) == 1008
    assert served.get("/api/stats").json()["active_users"] == 0


def test_refused_client_that_goes_on_talking_is_not_heard(client: NewClient) -> None:
    served = client()
    with served.websocket_connect("/ws/chat") as socket:
        for _ in range(3):
            socket.send_json({"type": "message", "content": "Hello"})
        assert closed(socket) == 1008
    assert served.get("/api/stats").json() == {"active_users": 0, "total_messages": 0}


def test_username_given_twice_counts_the_last(client: NewClient) -> None:
    with client().websocket_connect("/ws/chat?username=not%20one&username=bob") as socket:
        assert read(socket, "session")["data"]["username"] == "bob"


def test_name_held_by_another_address_is_taken(client: NewClient) -> None:
    served = client()
    other = TestClient(served.app, client=("192.0.2.7", 1))
    other.portal = served.portal  # one event loop for both
    with served.websocket_connect(URL), other.websocket_connect("/ws/chat?username=ADA") as socket:
        assert socket.receive_json()["data"] == {"code": "username_taken"}
        assert closed(socket) == 1008


def test_full_room_refuses_and_has_a_place_once_somebody_left(client: NewClient) -> None:
    served = client(ws_max_connections=1)
    with served.websocket_connect(URL) as first:
        for _ in range(3):
            with served.websocket_connect("/ws/chat?username=bob") as socket:
                assert socket.receive_json()["data"] == {"code": "server_full"}
                assert closed(socket) == 1013
        assert still_works(first)
    with served.websocket_connect("/ws/chat?username=bob") as socket:
        assert socket.receive_json()["type"] == "history"


def test_unexpected_exception_closes_with_1011_and_is_logged_once(
    client: NewClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("SECRETWORD")

    served = client()
    with served.websocket_connect("/ws/chat?username=bob") as other, served.websocket_connect(URL) as socket:
        with monkeypatch.context() as patched:
            patched.setattr(Room, "post", fail)
            for _ in range(3):
                socket.send_json({"type": "message", "content": "Hello"})
            assert closed(socket) == 1011
        assert still_works(other)
    faults = [entry for entry in caplog.records if entry.levelno >= logging.ERROR]
    assert [entry.getMessage() for entry in faults] == ["WebSocket error: RuntimeError"]
    assert faults[0].exc_info


def registry_of(app: Starlette) -> ConnectionRegistry:
    """The connections of a started app."""
    room: Room = app.state.room
    return room._registry


class Peer:
    """The ASGI server's end of one connection, whose ways of failing the test chooses."""

    def __init__(self, app: Starlette, query: bytes = b"username=ada") -> None:
        self.app = app
        self.query = query
        self.event_queue: asyncio.Queue[dict[str, Any] | BaseException] = asyncio.Queue()
        self.event_queue.put_nowait({"type": "websocket.connect"})
        self.codes: list[int] = []
        self.fault: BaseException | None = None
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.sent = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    async def receive(self) -> MutableMapping[str, Any]:
        message = await self.event_queue.get()
        if isinstance(message, BaseException):
            raise message
        return message

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] != "websocket.accept":
            await self.flowing.wait()
        if self.fault:
            raise self.fault
        if message["type"] == "websocket.close":
            self.codes.append(message["code"])
        self.sent.set()

    async def run(self) -> None:
        scope = {
            "type": "websocket",
            "path": "/ws/chat",
            "raw_path": b"/ws/chat",
            "query_string": self.query,
            "headers": [],
            "client": ("192.0.2.1", 1),
            "subprotocols": [],
        }
        await self.app(scope, self.receive, self.send)

    async def start(self) -> None:
        self.task = asyncio.create_task(self.run())
        async with asyncio.timeout(5):
            await self.sent.wait()
        for _ in range(10):
            await asyncio.sleep(0)

    async def end(self) -> BaseException | None:
        """What the application ended with."""
        assert self.task
        async with asyncio.timeout(5):
            return (await asyncio.gather(self.task, return_exceptions=True))[0]

    def hear(self, **message: Any) -> None:
        self.event_queue.put_nowait({"type": "websocket.receive", **message})

    def hang_up(self, code: int = 1000) -> None:
        self.event_queue.put_nowait({"type": "websocket.disconnect", "code": code})


@pytest.fixture
async def app(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Starlette]:
    """A started app, in which nothing may be left of any connection at the end."""
    caplog.set_level(logging.INFO, "app")
    app = create_app(settings_of(ws_send_buffer=65_536), RoomTiming(close_timeout=0.01))
    presence = LocalPresence("owner", timing=PresenceTiming(leave_delay=0))
    app.state.backend = app.state.backend._replace(presence=presence)
    async with app.router.lifespan_context(app):
        yield app
        registry = registry_of(app)
        for _ in range(10):
            await asyncio.sleep(0)
        assert (len(registry), app.state.room.users, registry.senders()) == (0, 0, [])
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "sender"]
        await app.state.room.admit(Handshake("ada", "another address", None))  # the name is free
    logged = [entry.getMessage() for entry in caplog.records]
    assert logged.count("User connected: ada") == logged.count("User disconnected: ada")


@pytest.mark.anyio
@pytest.mark.parametrize("code", [1000, 1001, 1005, 1006])
async def test_client_that_closes_leaves_nothing(app: Starlette, code: int) -> None:
    peer = Peer(app)
    await peer.start()
    assert len(registry_of(app)) == 1
    peer.hang_up(code)
    assert await peer.end() is None


@pytest.mark.anyio
async def test_server_that_fails_to_receive_leaves_nothing(app: Starlette) -> None:
    peer = Peer(app)
    await peer.start()
    peer.event_queue.put_nowait(RuntimeError("reset"))
    assert isinstance(await peer.end(), RuntimeError)


@pytest.mark.anyio
async def test_server_that_fails_to_send_leaves_nothing(app: Starlette) -> None:
    peer = Peer(app)
    await peer.start()
    peer.fault = OSError("gone")
    peer.hear(text='{"type":"ping"}')
    peer.hang_up(1006)
    assert await peer.end() is None


@pytest.mark.anyio
async def test_client_that_goes_during_the_handshake_leaves_nothing(app: Starlette) -> None:
    peer = Peer(app)
    peer.fault = OSError("gone")
    peer.task = asyncio.create_task(peer.run())
    assert isinstance(await peer.end(), OSError)  # the server's own exception, which it knows what to do with


@pytest.mark.anyio
async def test_exception_while_joining_leaves_nothing(app: Starlette, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(ConnectionRegistry, "open", fail)
    peer = Peer(app)
    peer.task = asyncio.create_task(peer.run())
    assert isinstance(await peer.end(), RuntimeError)


@pytest.mark.anyio
async def test_cancelled_connection_leaves_nothing(app: Starlette) -> None:
    peer = Peer(app)
    await peer.start()
    assert peer.task
    peer.task.cancel()
    assert isinstance(await peer.end(), asyncio.CancelledError)


@pytest.mark.anyio
@pytest.mark.parametrize("code", [CloseCode.SILENT, CloseCode.TOO_SLOW])
@pytest.mark.parametrize("reads", [True, False])
async def test_connection_that_is_closed_ends_even_when_its_client_does_nothing(
    app: Starlette, code: CloseCode, reads: bool
) -> None:
    peer = Peer(app)
    await peer.start()
    if not reads:
        peer.flowing.clear()
    for _, sender in registry_of(app).senders():
        sender.close(code)
    assert await peer.end() is None
    assert peer.codes == ([code] if reads else [])


@pytest.mark.anyio
async def test_client_that_never_reads_is_gone_and_the_others_have_all(app: Starlette) -> None:
    deaf, talker = Peer(app), Peer(app, b"username=bob")
    await deaf.start()
    await talker.start()
    deaf.flowing.clear()
    for _ in range(100):
        talker.hear(text=json.dumps({"type": "message", "content": "x" * 1000}))
        await asyncio.sleep(0)
    assert await deaf.end() is None
    await until(lambda: app.state.room.total == 100)
    assert not talker.codes
    talker.hang_up()
    assert await talker.end() is None


@pytest.mark.anyio
@pytest.mark.parametrize("answers", [True, False])
async def test_refused_connection_leaves_nothing(app: Starlette, answers: bool) -> None:
    peer = Peer(app, b"username=")
    await peer.start()
    assert len(registry_of(app)) == 0
    if answers:
        peer.hang_up(1008)
    assert await peer.end() is None
    assert peer.codes == [1008]
