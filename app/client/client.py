"""The reference client: stays in the room through drops and restarts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from typing import Any, Self
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from app.client.pending_posts import PendingPosts
from app.exceptions import CloseCode, reconnects

FIRST_DELAY, MAX_DELAY = 0.5, 30.0  # seconds, bounds of the random wait before the first and a late reconnection
FULL_DELAY = 5.0  # seconds before reconnecting to a full room that does not say when
FIRST_TIMEOUT = 20.0  # seconds of silence, until the session frame tells the heartbeat's interval
MAX_SERVER_FRAME = 2**24  # bytes
MAX_SEEN = 20_000  # ids remembered, twice the longest history
ABNORMAL_CLOSURE = 1006  # RFC 6455: a connection that ended without a close frame
PONG = json.dumps({"type": "pong"})

Frame = dict[str, Any]


class State(Enum):
    """The state of a client. ENDED is final."""

    CONNECTING = auto()
    ONLINE = auto()
    WAITING = auto()
    ENDED = auto()


def backoff(attempt: int, jitter: float) -> float:
    """Returns the seconds to wait after `attempt` failures in a row. `jitter`: a random number from 0 to 1.

    Full jitter, so that clients that were cut off together do not come back together.
    """
    return jitter * min(MAX_DELAY, FIRST_DELAY * 2.0 ** min(attempt, 10))


class ChatClient:
    """Stays in the room while its context is open, and posts each message exactly once.

    `on_message` gets the data of each message once, `on_frame` every frame before the client acts on it, `on_state`
    each new state and a sentence about it. `jitter` makes random numbers from 0 to 1. Raises InvalidURI.
    """

    def __init__(
        self,
        url: str,
        name: str,
        on_message: Callable[[Frame], object] = lambda _: None,
        on_frame: Callable[[Frame], object] = lambda _: None,
        on_state: Callable[[State, str], object] = lambda _, __: None,
        jitter: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        max_seen: int = MAX_SEEN,
    ) -> None:
        parse_uri(url)
        self.url, self.name = url, name
        self.token: str | None = None  # proves the name on the next connection
        self.epoch: str | None = None  # of the room that `seq` counts in
        self.seq: int | None = None  # of the newest message that was seen, as were all before it
        self.state = State.CONNECTING
        self._on_message, self._on_frame, self._on_state = on_message, on_frame, on_state
        self._jitter, self._sleep = jitter, sleep
        self._max_seen = max_seen
        self._posts = PendingPosts()
        self._seen: dict[str, None] = {}  # ids, oldest first
        self._timeout, self._attempt = FIRST_TIMEOUT, 0
        self._reset()

    def _reset(self) -> None:
        """Forgets what belongs to one connection."""
        self._posts.hold()
        self._last_error, self._retry_after = "", 0.0  # of the last frame, if it was an error: its text, and seconds

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="chat client")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.result()  # raises what went wrong
        elif self.state is not State.ENDED:
            self._enter(State.ENDED, "You left.")

    def post(self, text: str) -> str:
        """Posts a message as soon as possible, and again until it is acknowledged. Returns its nonce.

        Raises ValueError for a text that no frame can hold.
        """
        return self._posts.add(text)

    async def settle(self, at_most: int = 0) -> int:
        """Waits until at most that many posts are unanswered, or the client has ended. Returns how many are left."""
        waiting = asyncio.create_task(self._posts.settle(at_most), name="settle")
        try:
            await asyncio.wait({waiting, self._task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            await asyncio.wait({waiting})
        return len(self._posts)

    async def ended(self) -> None:
        """Waits until the client has ended because the server refuses it."""
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        while True:
            self._enter(State.CONNECTING, f"Connecting to {self.url} as {self.name}.")
            self._reset()
            code, why = await self._connect_once()
            if not reconnects(code):
                self._enter(State.ENDED, why)
                return
            retry_after = self._retry_after or (FULL_DELAY if code == CloseCode.FULL else 0.0)
            delay = retry_after + backoff(self._attempt, self._jitter())
            self._attempt += 1
            self._enter(State.WAITING, f"{why} Trying again in {delay:.1f} s.")
            await self._sleep(delay)

    def _enter(self, state: State, why: str) -> None:
        self.state = state
        self._on_state(state, why)

    async def _connect_once(self) -> tuple[int, str]:
        """Runs one connection from its handshake to its end. Returns the close code, and a sentence for people."""
        try:
            async with self._connect() as socket, asyncio.TaskGroup() as group:
                sending = group.create_task(self._send(socket), name="posts")
                end = await self._listen(socket)
                sending.cancel()
                return end
        except InvalidStatus as error:
            status = error.response.status_code
            final = 300 <= status < 500 and status not in (408, 425, 429)  # these three are temporary
            return CloseCode.REFUSED if final else ABNORMAL_CLOSURE, f"The server answers with HTTP status {status}."
        except (OSError, EOFError, WebSocketException) as error:
            return ABNORMAL_CLOSURE, f"The server can't be reached: {str(error) or type(error).__name__}."

    def _connect(self) -> connect:
        query: dict[str, object] = {"username": self.name}
        if self.epoch is not None:
            query |= {"epoch": self.epoch, "since": self.seq}
        return _Connect(
            f"{self.url}{'&' if '?' in self.url else '?'}{urlencode(query)}",
            subprotocols=list(map(Subprotocol, ["chat.v1", f"bearer.{self.token}"][: 2 if self.token else 1])),
            compression=None,
            ping_interval=None,  # the room has a heartbeat of its own
            close_timeout=2.0,  # seconds
            max_size=MAX_SERVER_FRAME,
        )

    async def _listen(self, socket: ClientConnection) -> tuple[int, str]:
        try:
            while True:
                async with asyncio.timeout(self._timeout):
                    frame = json.loads(await socket.recv())
                    if frame["type"] == "ping":
                        await socket.send(PONG)  # with the timeout: a server that reads nothing blocks it
                self._receive(frame)
        except asyncio.CancelledError:
            await socket.close()  # with 1000; the library would report an error
            raise
        except TimeoutError:
            socket.transport.abort()  # a silent server would not answer a close frame either
            return ABNORMAL_CLOSURE, f"Nothing was heard for {self._timeout:.1f} s."
        except ConnectionClosed as closed:
            close = closed.rcvd or closed.sent
            code, reason = (close.code, close.reason) if close else (ABNORMAL_CLOSURE, "")
            return code, self._last_error or f"The connection ended ({f'{code} {reason}'.strip()})."

    async def _send(self, socket: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):  # the listener learns of it as well
            while await self._posts.wake.wait():
                self._posts.wake.clear()
                pause, self._posts.pause = self._posts.pause, 0.0
                if pause:
                    await self._sleep(pause)
                while frame := self._posts.next_frame():
                    await socket.send(frame, text=True)

    def _receive(self, frame: Frame) -> None:
        self._on_frame(frame)
        self._last_error, self._retry_after = "", 0.0  # an error ends the connection only as the last frame
        if frame["type"] == "history":
            if not frame["recovered"]:
                self.epoch = self.seq = None  # until the session frame tells them
            for data in frame["data"]:
                self._receive_message(data)
        elif frame["type"] == "session":
            self._receive_session(frame["data"])
        elif frame["type"] == "message":
            self._receive_message(frame["data"])
        elif frame["type"] == "hidden":
            self._posts.acknowledge(frame["data"].get("nonce"))
        elif frame["type"] == "error":
            self._receive_error(frame["message"], frame["data"])

    def _receive_session(self, data: Frame) -> None:
        self.name, self.epoch, self.seq = data["username"], data["epoch"], data["seq"]
        self.token = data.get("token") or self.token
        self._timeout = 2 * data["heartbeat_interval"]
        self._attempt = 0
        self._enter(State.ONLINE, f"Connected as {self.name}.")
        self._posts.release()

    def _receive_message(self, data: Frame) -> None:
        if self.seq is not None:
            self.seq = max(self.seq, data["seq"])  # an older one comes again if its acknowledgement was lost
        if data["username"] == self.name:
            self._posts.acknowledge(data.get("nonce"))
        if data["id"] in self._seen:
            return
        self._seen[data["id"]] = None
        if len(self._seen) > self._max_seen:
            del self._seen[next(iter(self._seen))]
        self._on_message(data)

    def _receive_error(self, message: str, data: Frame) -> None:
        wait = data.get("retry_after", 0.0)
        if not self._posts.refuse(data.get("nonce"), data["code"], wait):
            self._last_error, self._retry_after = message, wait


class _Connect(connect):
    """A connection that follows no redirect, because that would hand the token to another server."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc
