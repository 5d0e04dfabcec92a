"""The WebSocket endpoint: from ASGI events to frames, from exceptions to error frames and close codes.

Knows nothing of the room's rules.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from starlette.endpoints import WebSocketEndpoint
from starlette.websockets import WebSocket

from app import frames
from app.batch import Batch
from app.chat import Chat
from app.exceptions import ChatError, CloseCode, ConnectionRefused, UnsupportedData
from app.outbox import Outbox, open_outbox
from app.registry import Connection
from app.responses import restarting

SUBPROTOCOL = "chat.v1"

logger = logging.getLogger(__name__)

_PONG = Batch([frames.encode(frames.PongFrame())])


class ChatEndpoint(WebSocketEndpoint):
    """One connection, from its handshake to its end."""

    chat: Chat
    outbox: Outbox | None = None
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
        self.chat = websocket.app.state.chat
        if self.chat.draining:
            await websocket.send_denial_response(restarting())
            return
        _look_for_proxy(websocket)
        refusal = None
        try:
            self.connection = self.chat.admit(*_identity(websocket))
        except ConnectionRefused as error:
            refusal = error
        try:
            offered = SUBPROTOCOL in websocket.scope["subprotocols"]
            await websocket.accept(subprotocol=SUBPROTOCOL if offered else None)
            limit = websocket.app.state.settings.ws_send_buffer
            self.outbox = open_outbox(self.scope, self.send, limit, self._give_up)
            if refusal:
                self._refuse(refusal)
            elif self.connection:
                query = websocket.query_params
                self.chat.join(self.connection, self.outbox, query.get("epoch"), query.get("since"))
        except BaseException:
            await self.on_disconnect(websocket, CloseCode.OUR_FAULT)  # Starlette doesn't call it from here
            raise

    async def decode(self, websocket: WebSocket, message: Any) -> str | bytes:
        """The text or bytes of a frame, as they came."""
        text: str | None = message.get("text")
        return text if text is not None else bytes(message["bytes"])

    async def on_receive(self, websocket: WebSocket, data: str | bytes) -> None:
        """Handles one frame. Never waits, so that nothing delays the next one."""
        if not self.outbox or self.outbox.closed or not self.connection:
            return  # it was refused or closed, and goes on talking
        self.chat.hear(self.connection)
        try:
            self._handle(self.connection, self.outbox, data)
        except ChatError as error:
            self.outbox.write(Batch([frames.error_frame(error, frames.nonce_of(data))]))
        except Exception as error:
            logger.exception("WebSocket error: %s", type(error).__name__)
            self.outbox.close(CloseCode.OUR_FAULT)

    async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None:
        """Frees everything, however the connection ended. Safe to call again."""
        connection, self.connection = self.connection, None
        if connection:
            self.chat.leave(connection)
        if self.outbox:
            await self.outbox.release()

    def _handle(self, connection: Connection, outbox: Outbox, data: str | bytes) -> None:
        if len(data) > frames.MAX_FRAME or (isinstance(data, str) and len(data.encode()) > frames.MAX_FRAME):
            outbox.close(CloseCode.TOO_BIG)
            return
        if isinstance(data, bytes):
            raise UnsupportedData
        frame = frames.decode(data)
        if isinstance(frame, frames.Post):
            self.chat.post(connection, outbox, frame)
        elif isinstance(frame, frames.ClientPing):
            outbox.write(_PONG)

    def _refuse(self, error: ConnectionRefused) -> None:
        assert self.outbox
        self.outbox.write(Batch([frames.error_frame(error)]))
        self.outbox.close(error.close_code)

    def _give_up(self) -> None:
        self._given_up = True
        if self._task:
            self._task.cancel()


def _identity(websocket: WebSocket) -> tuple[str | None, str]:
    """The username asked for (given twice, the last counts) and the client's address."""
    return websocket.query_params.get("username"), websocket.client.host if websocket.client else ""


def _look_for_proxy(websocket: WebSocket) -> None:
    """Says once that a proxy is not believed: all its visitors then share one address.

    A server that believed it has put the visitor's address, which the header names, in the place of the proxy's.
    """
    forwarded, peer = websocket.headers.get("x-forwarded-for"), websocket.client
    if forwarded and peer and peer.host not in forwarded and not getattr(websocket.app.state, "proxy_seen", False):
        websocket.app.state.proxy_seen = True
        logger.warning(
            "X-Forwarded-For from %s is not believed, so all visitors behind it share one address. "
            "If it is your proxy, set FORWARDED_ALLOW_IPS=%s",
            peer.host,
            peer.host,
        )
