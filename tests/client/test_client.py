"""The reference client: its rules, its posts, its way through drops, and the terminal around it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Any, Self

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidURI
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from app.client.__main__ import read_lines, show_frame, show_message, show_state
from app.client.client import ABNORMAL_CLOSURE, FULL_DELAY, ChatClient, Frame, State, backoff
from app.client.pending_posts import RETRY, WINDOW, PendingPosts
from app.exceptions import reconnects
from app.wire.limits import MAX_FRAME
from tests.conftest import Start
from tests.support.running import ROOT

pytestmark = pytest.mark.anyio

Script = Callable[["Peer"], Awaitable[None]]


class Peer:
    """The server's side of one connection, in the test's own hands."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        assert socket.request
        self.path = socket.request.path
        self.offered = socket.request.headers["Sec-WebSocket-Protocol"].split(", ")

    async def send(self, type: str, data: Any = None, **more: Any) -> None:
        await self.socket.send(json.dumps({"type": type, **({} if data is None else {"data": data}), **more}))

    async def welcome(
        self, *history: Frame, recovered: bool = False, epoch: str = "e1", heartbeat: float = 10, **more: Any
    ) -> None:
        await self.send("history", list(history), recovered=recovered)
        seq = more.pop("seq", history[-1]["seq"] if history else 0)
        data = {"username": "ada", "epoch": epoch, "seq": seq, "heartbeat_interval": heartbeat}
        await self.send("session", data | more)

    async def read(self) -> Frame:
        frame: Frame = json.loads(await self.socket.recv())
        return frame

    async def read_post(self) -> tuple[str, str]:
        frame = await self.read()
        return frame["content"], frame["nonce"]

    async def close(self, code: int) -> None:
        await self.socket.close(code)


class Place:
    """A server that plays one script a connection, and a client of it whose waits take no time."""

    def __init__(self, *scripts: Script, **options: Any) -> None:
        self.peers: list[Peer] = []
        self.messages: list[Frame] = []
        self.states: list[State] = []
        self.slept: list[float] = []
        self._scripts = list(scripts)
        self._options = options
        self._failure: BaseException | None = None

    async def _serve(self, socket: ServerConnection) -> None:
        self.peers.append(Peer(socket))
        try:
            await self._scripts.pop(0)(self.peers[-1])
        except ConnectionClosed:
            pass
        except BaseException as failure:
            self._failure = failure
            raise

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)

    async def __aenter__(self) -> Self:
        self._stack = contextlib.AsyncExitStack()
        server: Server = await self._stack.enter_async_context(
            serve(self._serve, "127.0.0.1", 0, subprotocols=[Subprotocol("chat.v1")])
        )
        self.client = ChatClient(
            f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws/chat",
            "ada",
            on_message=self.messages.append,
            on_state=lambda state, _: self.states.append(state),
            jitter=lambda: 0.5,
            sleep=self._sleep,
            **self._options,
        )
        await self._stack.enter_async_context(self.client)
        await self._stack.enter_async_context(asyncio.timeout(10))
        return self

    async def __aexit__(self, *exception: Any) -> None:
        await self._stack.__aexit__(*exception)
        if self._failure:
            raise self._failure

    @property
    def seqs(self) -> list[int]:
        return [data["seq"] for data in self.messages]


def message(seq: int, nonce: str | None = None, username: str = "ada") -> Frame:
    data = {"id": f"id-{seq}", "seq": seq, "username": username, "content": f"text {seq}", "timestamp": 1e9}
    return data | ({"nonce": nonce} if nonce else {})


def then(code: int) -> Script:
    """A script that ends the connection at once."""
    return lambda peer: peer.close(code)


async def stop(peer: Peer) -> None:
    await peer.close(1000)


# Rules


@pytest.mark.parametrize("code", [1000, 1008, 1009, 4500, 4501, 4999])
def test_client_stays_away_after_a_final_code(code: int) -> None:
    assert not reconnects(code)


@pytest.mark.parametrize("code", [1001, 1002, 1005, 1006, 1011, 1012, 1013, 1014, 4000, 4001, 4499, 5000])
def test_client_comes_back_after_any_other_code(code: int) -> None:
    assert reconnects(code)


def test_backoff_has_full_jitter_and_a_bound() -> None:
    assert [backoff(attempt, 1.0) for attempt in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert backoff(100_000, 1.0) == 30
    assert backoff(5, 0.0) == 0
    assert backoff(3, 0.25) == 1


async def test_wrong_url_is_refused_at_once() -> None:
    with pytest.raises(InvalidURI):
        ChatClient("http://localhost", "ada")


# PendingPosts


def contents(posts: PendingPosts) -> list[str]:
    taken = []
    while frame := posts.next_frame():
        taken.append(json.loads(frame)["content"])
    return taken


async def test_posts_wait_for_the_session_and_go_again_in_order_after_a_drop() -> None:
    posts = PendingPosts()
    nonces = [posts.add(text) for text in ("one", "two", "three")]
    assert contents(posts) == []
    posts.release()
    assert contents(posts) == ["one", "two", "three"]
    posts.acknowledge(nonces[1])
    posts.hold()
    assert contents(posts) == []
    posts.release()
    assert contents(posts) == ["one", "three"]
    assert len(posts) == 2


async def test_only_a_window_of_posts_is_under_way() -> None:
    posts = PendingPosts()
    nonces = [posts.add(str(number)) for number in range(2 * WINDOW)]
    posts.release()
    assert len(contents(posts)) == WINDOW
    posts.acknowledge(nonces[0])
    assert contents(posts) == [str(WINDOW)]
    posts.acknowledge(nonces[0])
    posts.acknowledge("another's")
    posts.acknowledge(None)
    assert contents(posts) == []


async def test_refused_posts_go_again_one_at_a_time_after_the_pause() -> None:
    posts = PendingPosts()
    nonces = [posts.add(text) for text in ("one", "two", "three")]
    posts.release()
    contents(posts)
    assert posts.refuse(nonces[2], "blocked_content", 0.0)
    assert posts.refuse(nonces[0], "rate_limited", 2.5)
    assert posts.refuse(nonces[1], "unavailable", 0.0)
    assert not posts.refuse(None, "server_full", 0.0)
    assert posts.pause == 2.5
    assert contents(posts) == []
    posts.pause = 0.0
    assert contents(posts) == ["one"]
    posts.acknowledge(nonces[0])
    assert contents(posts) == ["two"]


@pytest.mark.parametrize("text", ["x" * MAX_FRAME, "\ud800"])
async def test_text_that_no_frame_holds_is_refused(text: str) -> None:
    posts = PendingPosts()
    with pytest.raises(ValueError):
        posts.add(text)
    assert len(posts) == 0


# Connections


async def test_return_names_token_epoch_and_the_last_seq() -> None:
    async def first(peer: Peer) -> None:
        await peer.welcome(message(4), token="s1.abc")
        await peer.send("message", message(5, username="bob"))
        await peer.close(1012)

    async with Place(first, stop) as place:
        await place.client.ended()
    assert place.seqs == [4, 5]
    assert [peer.path.partition("?")[2] for peer in place.peers] == ["username=ada", "username=ada&epoch=e1&since=5"]
    assert [peer.offered for peer in place.peers] == [["chat.v1"], ["chat.v1", "bearer.s1.abc"]]
    assert place.states == [State.CONNECTING, State.ONLINE, State.WAITING, State.CONNECTING, State.ENDED]


async def test_waits_grow_until_a_session_and_a_full_room_is_left_alone_longer() -> None:
    async def limited(peer: Peer) -> None:
        await peer.send("error", {"code": "rate_limited", "retry_after": 7.0}, message="Too fast.")
        await peer.close(1013)

    async def short(peer: Peer) -> None:
        await peer.welcome()
        await peer.close(4000)

    async with Place(then(1001), then(1013), limited, then(1011), short, then(4001), stop) as place:
        await place.client.ended()
    assert place.slept == [0.25, FULL_DELAY + 0.5, 7.0 + 1, 2, 0.25, 0.5]


@pytest.mark.parametrize("code", [1000, 1008, 1009, 4500])
async def test_client_ends_on_a_final_code(code: int) -> None:
    async with Place(then(code)) as place:
        place.client.post("Hello")
        await place.client.ended()
        assert await place.client.settle() == 1
    assert (len(place.peers), place.slept, place.client.state) == (1, [], State.ENDED)


async def test_silence_of_two_heartbeats_ends_the_connection_but_a_ping_is_answered() -> None:
    async def silent(peer: Peer) -> None:
        await peer.welcome(heartbeat=0.02)
        await peer.send("ping")
        assert await peer.read() == {"type": "pong"}
        await peer.socket.wait_closed()
        assert peer.socket.close_code == ABNORMAL_CLOSURE

    async with Place(silent, stop) as place:
        await place.client.ended()
    assert len(place.peers) == 2


async def test_unacknowledged_posts_go_again_with_the_same_nonces() -> None:
    posts: list[list[tuple[str, str]]] = []

    async def first(peer: Peer) -> None:
        await peer.welcome()
        posts.append([await peer.read_post() for _ in range(3)])
        nonces = [nonce for _, nonce in posts[0]]
        await peer.send("message", message(1, nonces[0]))
        await peer.send("message", message(2, nonces[1], username="bob"))  # which acknowledges nothing
        await peer.close(1001)

    async def second(peer: Peer) -> None:
        await peer.welcome(message(3, posts[0][2][1]), recovered=True)
        posts.append([await peer.read_post()])
        await peer.send("message", message(4, posts[1][0][1]))

    async with Place(first, second) as place:
        for text in ("one", "two", "three"):
            place.client.post(text)
        assert await place.client.settle() == 0
    assert [[text for text, _ in group] for group in posts] == [["one", "two", "three"], ["two"]]
    assert posts[1][0] == posts[0][1]
    assert place.seqs == [1, 2, 3, 4]


@pytest.mark.parametrize(("refusal", "wait"), [({"retry_after": 3.5}, 3.5), ({}, RETRY)])
async def test_post_goes_again_when_the_refusal_passes(refusal: Frame, wait: float) -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        post = await peer.read_post()
        data = {"code": "rate_limited" if refusal else "unavailable", "nonce": post[1], **refusal}
        await peer.send("error", data, message="Later.")
        assert await peer.read_post() == post
        await peer.send("message", message(1, post[1]))

    async with Place(script) as place:
        place.client.post("Hello")
        assert await place.client.settle() == 0
    assert place.slept == [wait]


async def test_nothing_is_shown_twice_and_another_epoch_is_taken_over() -> None:
    async def first(peer: Peer) -> None:
        await peer.welcome(message(7), message(8))
        await peer.send("message", message(8))
        await peer.close(1012)

    async def second(peer: Peer) -> None:
        await peer.welcome(message(8), {**message(2), "id": "new"}, epoch="e2")
        await peer.send("user_count", {"count": 1})
        await peer.close(1012)

    async def third(peer: Peer) -> None:  # is cut off before the session frame
        await peer.send("history", [message(9)], recovered=False)
        await peer.close(1012)

    async with Place(first, second, third, stop) as place:
        await place.client.ended()
    assert place.seqs == [7, 8, 2, 9]
    queries = [peer.path.partition("username=ada")[2] for peer in place.peers]
    assert queries == ["", "&epoch=e1&since=8", "&epoch=e2&since=2", ""]


async def test_memory_of_ids_is_bounded() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome(message(1), message(2), message(3), message(1), message(3))
        await peer.close(1000)

    async with Place(script, max_seen=2) as place:
        await place.client.ended()
    assert place.seqs == [1, 2, 3, 1]


@pytest.mark.parametrize(("status", "attempts"), [(403, 1), (302, 1), (503, 2), (429, 2)])
async def test_http_refusal_is_final_unless_it_passes(status: int, attempts: int) -> None:
    seen: list[str] = []

    def refuse(connection: ServerConnection, request: Request) -> Response:
        seen.append(request.path)
        response = connection.respond(HTTPStatus(status if len(seen) == 1 else 403), "No.")
        response.headers["Location"] = "/elsewhere"
        return response

    async def never(socket: ServerConnection) -> None:
        raise AssertionError(f"{socket} was let in")

    async with serve(never, "127.0.0.1", 0, process_request=refuse) as server, asyncio.timeout(10):
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/?room=1"
        async with ChatClient(url, "ada", jitter=lambda: 0.0) as client:
            await client.ended()
    assert seen == ["/?room=1&username=ada"] * attempts


async def test_leaving_is_a_normal_close() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.read_post()
        here.set()
        await peer.socket.wait_closed()

    here = asyncio.Event()
    async with Place(script) as place:
        place.client.post("Hello")
        await here.wait()
    assert (place.peers[0].socket.close_code, place.client.state) == (1000, State.ENDED)


async def test_fault_of_the_client_comes_out() -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.send("message", {})
        await peer.socket.wait_closed()

    with pytest.raises(ExceptionGroup, match="TaskGroup"):
        async with Place(script) as place:
            await place.client.ended()


# The terminal


def test_terminal_shows_text_as_typed_and_escapes_what_would_drive_it(capsys: pytest.CaptureFixture[str]) -> None:
    show_message({**message(1), "content": "a &lt; b", "text": "a < b", "role": "owner"})
    show_message({**message(2), "content": "\x1b[2J\nada: forged\u202e"})
    show_frame({"type": "history", "data": [message(1)], "recovered": True})
    show_frame({"type": "history", "data": [], "recovered": False})
    show_frame({"type": "user_count", "data": {"count": 3}})
    show_frame({"type": "system", "data": {"content": "bob joined\r"}})
    show_frame({"type": "error", "message": "Too long.", "data": {"code": "message_too_long", "nonce": "n"}})
    show_frame({"type": "error", "message": "Full.", "data": {"code": "server_full"}})
    for state in State:
        show_state(state, f"{state.name}.")
    lines = capsys.readouterr().out.split("\n")
    assert [line[8:] for line in lines[:2]] == ["ada (owner): a < b", r"ada: \x1b[2J\nada: forged\u202e"]
    assert lines[2:6] == [
        "* Back again; 1 messages came meanwhile, none is lost.",
        "* In the room: 3",
        r"* bob joined\r",
        "* Too long.",
    ]
    assert [line.split(".")[0] for line in lines[6:]] == ["* CONNECTING", "* ONLINE", "* WAITING", "* ENDED", ""]


async def test_lines_come_from_a_file_whatever_it_holds(tmp_path: Any) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"one\n\xff\n" + b"x" * 150_000 + b"\nlast")
    with path.open("rb") as file:
        lines = [line async for line in read_lines(file.fileno())]
    assert (lines[0], lines[1], lines[-1]) == ("one", "\N{REPLACEMENT CHARACTER}", "last")
    assert "".join(lines[2:-1]) == "x" * 150_000


@contextlib.asynccontextmanager
async def terminal(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    command = (sys.executable, "-m", "app.client", *arguments)
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, cwd=ROOT)
    try:
        async with asyncio.timeout(60):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_terminal_asks_for_a_name_and_posts_what_is_piped_in(start: Start) -> None:
    url = f"ws://127.0.0.1:{start().port}/ws/chat"
    async with terminal("--url", url) as process:
        out, _ = await process.communicate(b"ada\nHello\n\n" + b"x" * 70_000 + b"\nGoodbye")
    assert process.returncode == 0
    lines = out.decode().splitlines()
    assert lines[0] == f"Your name: * Connecting to {url} as ada."
    assert [line[8:] for line in lines if line.startswith("[")] == ["ada: Hello", "ada: Goodbye"]
    assert lines[-1] == "* You left."


async def test_terminal_survives_a_restart_and_ends_on_ctrl_c(start: Start) -> None:
    server = start()
    async with terminal("--url", f"ws://127.0.0.1:{server.port}/ws/chat", "--name", "ada") as process:
        assert process.stdin
        assert process.stdout
        await line_with(process.stdout, "Connected")
        for how in ("kill", "terminate"):
            await asyncio.to_thread(getattr(server, how))
            process.stdin.write(f"after {how}\n".encode())
            await line_with(process.stdout, "Trying again")
            await asyncio.to_thread(server.start)
            await line_with(process.stdout, f"ada: after {how}")
        process.send_signal(signal.SIGINT)
        await line_with(process.stdout, "You left.")
        assert await process.wait() == 0


async def line_with(stream: asyncio.StreamReader, part: str) -> None:
    while part not in (line := (await stream.readline()).decode()):
        assert line, f"the output ended without {part!r}"


async def test_terminal_says_why_it_may_not_enter(start: Start) -> None:
    url = f"ws://127.0.0.1:{start().port}/ws/chat"
    async with terminal("--url", url, "--name", "system") as process:
        out, _ = await process.communicate(b"Hello\n")
    assert process.returncode == 1
    assert out.decode().splitlines()[-1] == "* Without an acknowledgement: 1."
    async with terminal("--url", "http://localhost", "--name", "ada") as process:
        out, _ = await process.communicate()
    assert (process.returncode, b"is not the URL of a room" in out) == (2, True)
