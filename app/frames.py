"""The wire: a pydantic model of every frame, and the way from bytes to a frame and back.

Knows nothing of sockets or of Starlette. One frame is one JSON object, told apart by `type`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints, TypeAdapter, ValidationError

from app.exceptions import ChatError, InvalidFrame
from app.message import Message

HISTORY_BYTES = 100  # of a history frame, beside its messages and the commas between them
MAX_FRAME = 65_536  # bytes that a client may send in one frame
Nonce = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class Post(BaseModel):
    """Post a message. A client may send it again with the same `nonce`: it is stored once."""

    type: Literal["message"]
    content: str
    nonce: Nonce | None = None


class ClientPing(BaseModel):
    """Asks for a `pong`."""

    type: Literal["ping"]


class ClientPong(BaseModel):
    """Answers a `ping`."""

    type: Literal["pong"]


ClientFrame = Post | ClientPing | ClientPong


class MessageData(BaseModel):
    """A chat message. `content` is safe as HTML element content; `text` is there only where it differs."""

    id: str
    seq: int
    username: str
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


class SessionData(BaseModel):
    """Who you are and where the room stands. Intervals are seconds, lengths characters.

    `token` proves this name on the next connection; the owner gets none.
    """

    username: str
    role: Literal["visitor", "owner"]
    token: str | None = None
    epoch: str
    seq: int
    heartbeat_interval: float
    heartbeat_timeout: float
    max_message_length: int


class SessionFrame(BaseModel):
    """The second frame."""

    type: Literal["session"] = "session"
    data: SessionData


class UserCountData(BaseModel):
    """Usernames connected."""

    count: int


class UserCountFrame(BaseModel):
    """How many are here, after each change."""

    type: Literal["user_count"] = "user_count"
    data: UserCountData


class SystemData(BaseModel):
    """Somebody came or went. Not stored, so without `seq`."""

    id: str
    username: Literal["System"] = "System"
    content: str
    timestamp: float
    event: Literal["user_joined", "user_left"]
    user: str


class SystemFrame(BaseModel):
    """An announcement, to everyone but whom it is about."""

    type: Literal["system"] = "system"
    data: SystemData


class PingFrame(BaseModel):
    """Asks for a `pong`, to see that the client is alive."""

    type: Literal["ping"] = "ping"


class PongFrame(BaseModel):
    """Answers a client's own `ping`."""

    type: Literal["pong"] = "pong"


class ErrorData(BaseModel):
    """Why, for programs. `nonce` is the refused frame's own; `retry_after` is seconds, where waiting helps."""

    code: str
    nonce: str | None = None
    retry_after: float | None = None


class ErrorFrame(BaseModel):
    """What was refused, in plain English."""

    type: Literal["error"] = "error"
    message: str
    data: ErrorData


ServerFrame = (
    HistoryFrame | SessionFrame | MessageFrame | UserCountFrame | SystemFrame | PingFrame | PongFrame | ErrorFrame
)


class _Marked(BaseModel):
    nonce: Nonce


_client_frame: TypeAdapter[ClientFrame] = TypeAdapter(Annotated[ClientFrame, Field(discriminator="type")])

# pydantic's own sentences quote what was sent, so each kind of fault gets one of ours.
_FAULTS = {
    "json_invalid": "This is not JSON, or holds half a character. Send one JSON object in each text frame.",
    "dict_type": 'A frame is a JSON object, such as {"type": "message", "content": "Hello"}.',
    "union_tag_not_found": 'The frame has no "type". Known types are "message", "ping" and "pong".',
    "union_tag_invalid": 'The frame\'s "type" is unknown. Known types are "message", "ping" and "pong".',
    "missing": 'The frame has no "content". Put the message\'s text there.',
    "string_type": '"content" and "nonce" must be strings.',
    "string_pattern_mismatch": '"nonce" must be 1 to 64 of the characters A-Z, a-z, 0-9, - and _.',
}


def decode(raw: str | bytes) -> ClientFrame:
    """The frame that a client sent. Raises InvalidFrame whatever it holds, never anything else."""
    try:
        return _client_frame.validate_json(raw)
    except ValidationError as error:
        kind = error.errors(include_url=False, include_context=False, include_input=False)[0]["type"]
        raise InvalidFrame(_FAULTS.get(kind)) from None


def nonce_of(raw: str | bytes) -> str | None:
    """The nonce of a frame that was refused, so that its sender learns which one it was."""
    try:
        return _Marked.model_validate_json(raw).nonce
    except ValidationError:
        return None


def encode(frame: BaseModel) -> bytes:
    """A frame as JSON in UTF-8. Fields that are None are left out."""
    return frame.__pydantic_serializer__.to_json(frame, exclude_none=True)


def encode_data(message: Message) -> bytes:
    """The `data` of a message frame: encoded once, for the live frame and for every history it will be in."""
    data = MessageData.model_construct(
        id=message.id,
        seq=message.seq,
        username=message.username,
        content=message.content,
        timestamp=message.timestamp,
        text=message.text if message.text != message.content else None,
        nonce=message.nonce,
        role="owner" if message.role == "owner" else None,
    )
    return encode(data)


def message_frame(data: bytes) -> bytes:
    """A MessageFrame around ready-made data."""
    return b'{"type":"message","data":%b}' % data


def history_frame(datas: Iterable[bytes], recovered: bool) -> bytes:
    """A HistoryFrame around ready-made data."""
    tail = b'],"recovered":true,"hidden":[]}' if recovered else b'],"recovered":false}'
    return b'{"type":"history","data":[' + b",".join(datas) + tail


def error_frame(error: ChatError, nonce: str | None = None) -> bytes:
    """An ErrorFrame that says what `error` says, and nothing of what the client sent but its nonce."""
    data = ErrorData(code=error.code, nonce=nonce, retry_after=error.retry_after)
    return encode(ErrorFrame(message=str(error), data=data))
