"""The frames that the server sends: a pydantic model of each, and `encode`. A frame is a JSON object with a `type`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Literal

from pydantic import BaseModel, Field
from pydantic_core import to_json

from app import metrics
from app.exceptions import ChatError, RequestRefused, codes
from app.message import Message

HISTORY_OVERHEAD = 100  # bytes of a history frame, beside its messages and the commas between them


class MessageData(BaseModel):
    """A chat message. `content` is safe as HTML element content; `text` is there only where it differs.

    `author` stands for the session that wrote it, and proves nothing.
    """

    id: str
    seq: int
    username: str
    author: str
    content: str
    timestamp: float
    text: str | None = None
    nonce: str | None = None
    role: Literal["owner"] | None = None


class MessageFrame(BaseModel):
    """A chat message, to everyone, the sender included, once it is stored."""

    type: Literal["message"] = "message"
    data: MessageData


class HistoryFrame(BaseModel):
    """The first frame: the newest messages, or exactly those missed (`recovered`), oldest first."""

    type: Literal["history"] = "history"
    data: list[MessageData]
    recovered: bool
    hidden: list[str] | None = None


class RoomData(BaseModel):
    """`paused`: only the owner posts. `slow_mode`: seconds between two messages of a visitor, 0 for none."""

    paused: bool
    slow_mode: float
    owner_online: bool


class SessionData(RoomData):
    """Who the client is, and the state of the room. Intervals are seconds, lengths characters.

    `token` proves this name on the next connection; the owner gets none. `author` is in the client's own messages.
    """

    username: str
    role: Literal["visitor", "owner"]
    token: str | None = None
    epoch: str
    seq: int
    heartbeat_interval: float
    heartbeat_timeout: float
    max_message_length: int
    author: str


class SessionFrame(BaseModel):
    """The second frame: the client's session, and the state of the room."""

    type: Literal["session"] = "session"
    data: SessionData


class HistoryPage(RoomData):
    """The newest messages, oldest first, and the state of the room: what anybody would see on joining."""

    data: list[MessageData]
    epoch: str
    seq: int
    active_users: int


class UserCountData(BaseModel):
    """Usernames connected."""

    count: int


class UserCountFrame(BaseModel):
    """How many users are connected, after each change."""

    type: Literal["user_count"] = "user_count"
    data: UserCountData


class RoomFrame(BaseModel):
    """The state of the room, after each change. `session` has the same three fields."""

    type: Literal["room"] = "room"
    data: RoomData


class HiddenData(BaseModel):
    """Names the message. `nonce` is only in the answer to a post that was sent again."""

    id: str
    nonce: str | None = None


class HiddenFrame(BaseModel):
    """A message is deleted: take it away. It is in no history any more."""

    type: Literal["hidden"] = "hidden"
    data: HiddenData


class SystemData(BaseModel):
    """A user came or went. Not stored, so there is no `seq`."""

    id: str
    username: Literal["System"] = "System"
    content: str
    timestamp: float
    event: Literal["user_joined", "user_left"]
    user: str


class SystemFrame(BaseModel):
    """An announcement, to everyone but the user it is about."""

    type: Literal["system"] = "system"
    data: SystemData


class PingFrame(BaseModel):
    """Asks for a `pong`, to see that the client is alive."""

    type: Literal["ping"] = "ping"


class PongFrame(BaseModel):
    """Answers a client's own `ping`."""

    type: Literal["pong"] = "pong"


class ErrorData(BaseModel):
    """The reason, for programs. `nonce` is that of the refused frame; `retry_after` is seconds, where waiting helps."""

    code: str = Field(json_schema_extra={"enum": [*sorted(codes() - codes(RequestRefused))]})
    nonce: str | None = None
    retry_after: float | None = None


class ErrorFrame(BaseModel):
    """A refusal. `message` says in plain English what was refused."""

    type: Literal["error"] = "error"
    message: str
    data: ErrorData


ServerFrame = (
    HistoryFrame | SessionFrame | MessageFrame | HiddenFrame | UserCountFrame | RoomFrame | SystemFrame
    | PingFrame | PongFrame | ErrorFrame
)  # fmt: skip


def encode(frame: BaseModel) -> bytes:
    """Encodes a frame as JSON in UTF-8. Fields that are None are left out."""
    return frame.__pydantic_serializer__.to_json(frame, exclude_none=True)


def encode_data(message: Message, author: str) -> bytes:
    """Encodes the `data` of a message frame once, for the live frame and for every history it will be in."""
    data = MessageData.model_construct(
        id=message.id,
        seq=message.seq,
        username=message.username,
        author=author,
        content=message.content,
        timestamp=message.timestamp,
        text=message.text if message.text != message.content else None,
        nonce=message.nonce,
        role="owner" if message.role == "owner" else None,
    )
    return encode(data)


def message_frame(data: bytes) -> bytes:
    """Makes a MessageFrame of encoded data."""
    return b'{"type":"message","data":%b}' % data


def history_frame(messages: Iterable[bytes], hidden: Sequence[str] | None = None) -> bytes:
    """Makes a HistoryFrame of encoded data. It is a recovery if `hidden` is given: the ids deleted meanwhile."""
    tail = b'],"recovered":false}' if hidden is None else b'],"recovered":true,"hidden":%b}' % to_json(hidden)
    return b'{"type":"history","data":[' + b",".join(messages) + tail


def history_page(messages: Iterable[bytes], room: RoomData, epoch: str, seq: int, active_users: int) -> bytes:
    """Makes a HistoryPage of encoded data."""
    page = HistoryPage.model_construct(data=[], epoch=epoch, seq=seq, active_users=active_users, **room.model_dump())
    return b'{"data":[%b],' % b",".join(messages) + page.model_dump_json(exclude={"data"}).encode()[1:]


def hidden_frame(message_id: str, nonce: str | None = None) -> bytes:
    """Makes a HiddenFrame."""
    return encode(HiddenFrame(data=HiddenData(id=message_id, nonce=nonce)))


def error_frame(error: ChatError, nonce: str | None = None) -> bytes:
    """Makes an ErrorFrame of an error, and counts it. Nothing that the client sent is in it but the nonce."""
    metrics.refusals.inc(error.code)
    data = ErrorData(code=error.code, nonce=nonce, retry_after=error.retry_after)
    return encode(ErrorFrame(message=str(error), data=data))


class PreparedFrames:
    """Frames that are sent together, in order. Each form is made once, however many connections they are written to."""

    def __init__(self, frames: Sequence[bytes]) -> None:
        self.frames = frames
        self.size = sum(map(len, frames))  # bytes of JSON

    @cached_property
    def texts(self) -> list[str]:
        """The frames for an ASGI server, which adds the WebSocket headers itself."""
        return [frame.decode() for frame in self.frames]

    @cached_property
    def wire(self) -> bytes:
        """The bytes for a bare socket: unmasked, uncompressed text frames (RFC 6455, section 5.2)."""
        return b"".join([part for frame in self.frames for part in (_header(len(frame)), frame)])


def _header(length: int) -> bytes:
    if length < 126:
        return bytes((0x81, length))
    if length < 65536:
        return b"\x81\x7e" + length.to_bytes(2, "big")
    return b"\x81\x7f" + length.to_bytes(8, "big")
