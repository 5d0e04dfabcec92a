"""What clients may send: a pydantic model of every frame, and the way from bytes to a frame.

Knows nothing of sockets. One frame is one JSON object, told apart by `type`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints, TypeAdapter, ValidationError

from app.exceptions import InvalidFrame

MAX_FRAME = 65_536  # bytes
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
