"""The reference client: how to stay in the room through drops and restarts.

Speaks the wire from the other side and knows nothing of the server but its close codes.
"""

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
from app.exceptions import CloseCode

FIRST_DELAY, MAX_DELAY = 0.5, 30.0  # seconds, bounds of the random wait before the first and a late reconnection
FULL_DELAY = 5.0  # seconds before coming back to a full room that does not say when
FIRST_PATIENCE = 20.0  # seconds of silence that are borne before the session frame tells the heartbeat
MAX_HISTORY = 2**24  # bytes of one frame from the server
MAX_SEEN = 20_000  # ids remembered, twice the longest history
BROKEN = 1006  # RFC 6455: stands for a connection that ended without a close frame
PONG = json.dumps({"type": "pong"})

Frame = dict[str, Any]


class State(Enum):
    """Where a client is. ENDED is final."""

    CONNECTING = auto()
    ONLINE = auto()
    WAITING = auto()
    ENDED = auto()


def comes_back(code: int) -> bool:
    """Whether a client should reconnect after a close code."""
    final = (CloseCode.NORMAL, CloseCode.REFUSED, CloseCode.TOO_BIG)
    return code not in final and not 4500 <= code < 5000


def backoff(attempt: int, jitter: float) -> float:
    """Seconds to wait after `attempt` failures in a row. `jitter`: a random number from 0 to 1.

    Full jitter, so that those who were cut off together do not come back together.
    """
    return jitter * min(MAX_DELAY, FIRST_DELAY * 2.0 ** min(attempt, 10))


class ChatClient:
    """Stays in the room while its context is open, and posts each message exactly once.

    `on_message` gets the data of each message once, `on_frame` every frame before the client acts on it, `on_state`
    each new state with words for people. `jitter` makes random numbers from 0 to 1. Raises InvalidURI for a wrong URL.
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
    ) -> None:
        parse_uri(url)
        self.url, self.name = url, name
        self.token: str | None = None  # proves the name on the next connection
        self.epoch: str | None = None  # of the room that `seq` is of
        self.seq: int | None = None  # everything up to here was seen
        self.state = State.CONNECTING
        self._on_message, self._on_frame, self._on_state = on_message, on_frame, on_state
        self._jitter, self._sleep = jitter, sleep
        self._posts = PendingPosts()
        self._seen: dict[str, None] = {}  # ids, oldest first
        self._patience, self._attempt = FIRST_PATIENCE, 0
        self._reset()

    def _reset(self) -> None:
        """Forgets what belongs to one connection."""
        self._posts.hold()
        self._refusal, self._at_least = "", 0.0  # the last frame, if it was an error: why, and seconds to stay away

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
        """Posts a message as soon as that is possible, and again until it is acknowledged. Returns its nonce.

        Raises ValueError for a text that no frame can hold.
        """
        return self._posts.add(text)

    async def settle(self, at_most: int = 0) -> int:
        """Waits until at most so many posts are without an answer, or the client has ended. How many there are then."""
        waiting = asyncio.create_task(self._posts.settle(at_most), name="settle")
        try:
            await asyncio.wait({waiting, self._task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            await asyncio.wait({waiting})
        return len(self._posts)

    async def ended(self) -> None:
        """Waits until the client gives up, because the server said so."""
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        while True:
            self._enter(State.CONNECTING, f"Connecting to {self.url} as {self.name}.")
            self._reset()
            code, why = await self._visit()
            if not comes_back(code):
                self._enter(State.ENDED, why)
                return
            at_least = self._at_least or (FULL_DELAY if code == CloseCode.FULL else 0.0)
            delay = at_least + backoff(self._attempt, self._jitter())
            self._attempt += 1
            self._enter(State.WAITING, f"{why} Trying again in {delay:.1f} s.")
            await self._sleep(delay)

    def _enter(self, state: State, why: str) -> None:
        self.state = state
        self._on_state(state, why)

    async def _visit(self) -> tuple[int, str]:
        """One connection, from its handshake to its end: its close code, and words for people."""
        try:
            async with self._connect() as socket, asyncio.TaskGroup() as group:
                sending = group.create_task(self._send(socket), name="posts")
                end = await self._listen(socket)
                sending.cancel()
                return end
        except InvalidStatus as error:
            status = error.response.status_code
            final = 300 <= status < 500 and status not in (408, 425, 429)  # these three pass
            return CloseCode.REFUSED if final else BROKEN, f"The server answers with HTTP status {status}."
        except (OSError, EOFError, WebSocketException) as error:
            return BROKEN, f"The server can't be reached: {str(error) or type(error).__name__}."

    def _connect(self) -> connect:
        query: dict[str, object] = {"username": self.name}
        if self.epoch is not None:
            query |= {"epoch": self.epoch, "since": self.seq}
        return _Connect(
            f"{self.url}{'&' if '?' in self.url else '?'}{urlencode(query)}",
            subprotocols=list(map(Subprotocol, ["chat.v1", f"bearer.{self.token}"][: 2 if self.token else 1])),
            compression=None,
            ping_interval=None,  # the room has a heartbeat of its own
            close_timeout=2.0,  # seconds for a goodbye
            max_size=MAX_HISTORY,
        )

    async def _listen(self, socket: ClientConnection) -> tuple[int, str]:
        try:
            while True:
                async with asyncio.timeout(self._patience):
                    frame = json.loads(await socket.recv())
                    if frame["type"] == "ping":
                        await socket.send(PONG)  # in time as well: it can't be sent to a server that reads nothing
                self._take(frame)
        except asyncio.CancelledError:
            await socket.close()  # says goodbye; the library would say that something went wrong
            raise
        except TimeoutError:
            socket.transport.abort()  # who is silent would not answer a goodbye either
            return BROKEN, f"Nothing was heard for {self._patience:.1f} s."
        except ConnectionClosed as closed:
            close = closed.rcvd or closed.sent
            code, reason = (close.code, close.reason) if close else (BROKEN, "")
            return code, self._refusal or f"The connection ended ({f'{code} {reason}'.strip()})."

    async def _send(self, socket: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):  # the listener learns of it, too
            while await self._posts.wake.wait():
                self._posts.wake.clear()
                pause, self._posts.pause = self._posts.pause, 0.0
                if pause:
                    await self._sleep(pause)
                while frame := self._posts.take():
                    await socket.send(frame, text=True)

    def _take(self, frame: Frame) -> None:
        self._on_frame(frame)
        self._refusal, self._at_least = "", 0.0  # an error ends the connection only as the last frame
        if frame["type"] == "history":
            if not frame["recovered"]:
                self.epoch = self.seq = None  # until the session frame says of which room and up to where this is
            for data in frame["data"]:
                self._take_message(data)
        elif frame["type"] == "session":
            self._take_session(frame["data"])
        elif frame["type"] == "message":
            self._take_message(frame["data"])
        elif frame["type"] == "hidden":
            self._posts.acknowledge(frame["data"].get("nonce"))
        elif frame["type"] == "error":
            self._take_error(frame["message"], frame["data"])

    def _take_session(self, data: Frame) -> None:
        self.name, self.epoch, self.seq = data["username"], data["epoch"], data["seq"]
        self.token = data.get("token") or self.token
        self._patience = 2 * data["heartbeat_interval"]
        self._attempt = 0
        self._enter(State.ONLINE, f"Connected as {self.name}.")
        self._posts.release()

    def _take_message(self, data: Frame) -> None:
        if self.seq is not None:
            self.seq = max(self.seq, data["seq"])  # an old one comes again where its acknowledgement was lost
        if data["username"] == self.name:
            self._posts.acknowledge(data.get("nonce"))
        if data["id"] in self._seen:
            return
        self._seen[data["id"]] = None
        if len(self._seen) > MAX_SEEN:
            del self._seen[next(iter(self._seen))]
        self._on_message(data)

    def _take_error(self, message: str, data: Frame) -> None:
        wait = data.get("retry_after", 0.0)
        if not self._posts.refuse(data.get("nonce"), data["code"], wait):
            self._refusal, self._at_least = message, wait


class _Connect(connect):
    """Follows no redirect, which would hand the token to another server."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc
