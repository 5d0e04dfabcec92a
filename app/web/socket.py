"""The WebSocket endpoint: from ASGI events to frames, from exceptions to error frames and close codes.

Knows nothing of the room's rules.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from urllib.parse import urlsplit

from starlette.endpoints import WebSocketEndpoint
from starlette.websockets import WebSocket

from app import metrics, security
from app.chat.credentials import SUBPROTOCOL
from app.chat.registry import Connection
from app.chat.room import Room
from app.config import Settings
from app.exceptions import (
    ChatError,
    CloseCode,
    ConnectionRefused,
    InvalidFrame,
    OriginNotAllowed,
    RequestRefused,
    Restarting,
    UnsupportedData,
)
from app.web.requests import handshake_of
from app.web.responses import refusal
from app.wire import client_frames, frames
from app.wire.frames import PreparedFrames
from app.wire.limits import MAX_FRAME
from app.wire.sender import Sender, open_sender

LONG = 256  # characters of a frame past which it may be expensive, and waits for its turn

logger = logging.getLogger(__name__)

_PONG = PreparedFrames([frames.encode(frames.PongFrame())])


class ChatEndpoint(WebSocketEndpoint):
    """One connection, from its handshake to its end."""

    room: Room
    sender: Sender | None = None
    connection: Connection | None = None
    _task: asyncio.Task[object] | None = None
    _given_up = False

    async def dispatch(self) -> None:
        """Runs the connection. Ends quietly when the client takes nothing more, not even a close frame."""
        self._task = asyncio.current_task()
        try:
            await super().dispatch()
        except asyncio.CancelledError:
            if not self._given_up or not self._task:
                raise
            self._task.uncancel()

    async def on_connect(self, websocket: WebSocket) -> None:
        """Lets the client in, or accepts only to say why not: before the handshake a browser would not see it."""
        self.room = websocket.app.state.room
        if error := self._refused_unseen(websocket):
            await websocket.send_denial_response(refusal(error))
            return
        handshake = handshake_of(websocket)
        refused = None
        try:
            self.connection = await self.room.admit(handshake)
        except ConnectionRefused as error:
            refused = error
        try:
            await websocket.accept(subprotocol=SUBPROTOCOL if handshake.supports_tokens else None)
            limit = websocket.app.state.settings.ws_send_buffer
            self.sender = open_sender(self.scope, self.send, limit, self._give_up, self.room.timing.close_timeout)
            if refused:
                raise refused
            assert self.connection
            query = websocket.query_params
            self.room.join(self.connection, self.sender, query.get("epoch"), query.get("since"))
        except ConnectionRefused as error:
            self._refuse(error)
        except BaseException:
            await self.on_disconnect(websocket, CloseCode.INTERNAL_ERROR)  # Starlette doesn't call it from here
            raise

    async def decode(self, websocket: WebSocket, message: Any) -> str | bytes:
        """The text or bytes of a frame, as they came."""
        text: str | None = message.get("text")
        return text if text is not None else bytes(message["bytes"])

    async def on_receive(self, websocket: WebSocket, data: str | bytes) -> None:
        """Handles one frame. Waits at most for its turn, if it is long, and never for what it brings about."""
        if len(data) <= LONG or not self.connection:
            self._receive(data)
            return
        async with self.room.throttle.turn(self.connection.limit_key or self.connection.session.id):
            self._receive(data)

    def _receive(self, data: str | bytes) -> None:
        if not self.sender or self.sender.closed or not self.connection:
            return  # it was refused or closed, and goes on talking
        self.room.hear(self.connection)
        try:
            self._handle(self.connection, self.sender, data)
        except ChatError as error:
            self.sender.write(PreparedFrames([frames.error_frame(error, client_frames.nonce_of(data))]))
            bad = isinstance(error, InvalidFrame | UnsupportedData)
            if bad and self.room.admission.is_flood(self.connection, bad=True):
                self.sender.close(CloseCode.FLOOD)
        except Exception as error:
            logger.exception("WebSocket error: %s", type(error).__name__)
            self.sender.close(CloseCode.INTERNAL_ERROR)

    async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None:
        """Frees everything, however the connection ended. Safe to call again."""
        connection, self.connection = self.connection, None
        if connection:
            self.room.leave(connection)
        sender, self.sender = self.sender, None
        if sender:
            metrics.closes.inc(int(sender.code or close_code))
            await sender.release()

    def _refused_unseen(self, websocket: WebSocket) -> RequestRefused | None:
        """Returns why the handshake is refused with an HTTP status, which a page can't read, or None."""
        settings: Settings = websocket.app.state.settings
        scheme = "https" if websocket.url.scheme == "wss" else "http"
        public = urlsplit(settings.public_url)
        own = [f"{scheme}://{websocket.headers.get('host', '')}", f"{public.scheme}://{public.netloc}"]
        if not security.origin_allowed(websocket.headers.getlist("origin"), own, settings.cors_origins):
            return OriginNotAllowed()
        return Restarting() if self.room.draining else None

    def _handle(self, connection: Connection, sender: Sender, data: str | bytes) -> None:
        if self.room.admission.is_flood(connection, bad=False):
            sender.close(CloseCode.FLOOD)
            return
        if len(data) > MAX_FRAME // 4 and _size(data) > MAX_FRAME:
            sender.close(CloseCode.TOO_BIG)
            return
        if isinstance(data, bytes):
            raise UnsupportedData
        frame = client_frames.decode(data)
        if isinstance(frame, client_frames.Post):
            self.room.post(connection, sender, frame)
        elif isinstance(frame, client_frames.ClientPing):
            sender.write(_PONG)

    def _refuse(self, error: ConnectionRefused) -> None:
        assert self.sender
        self.sender.write(PreparedFrames([frames.error_frame(error)]))
        self.sender.close(error.close_code)

    def _give_up(self) -> None:
        self._given_up = True
        if self._task:
            self._task.cancel()


def _size(data: str | bytes) -> int:
    return len(data.encode() if isinstance(data, str) else data)
