"""The frames that clients send: a pydantic model of each, and `decode`. A frame is a JSON object with a `type`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints, TypeAdapter, ValidationError

from app.exceptions import InvalidFrame

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


class _WithNonce(BaseModel):
    nonce: Nonce


_adapter: TypeAdapter[ClientFrame] = TypeAdapter(Annotated[ClientFrame, Field(discriminator="type")])
_MESSAGES = {  # by pydantic's type of error; its own messages quote what was sent
    "json_invalid": "This is not JSON, or holds half a character. Send one JSON object in each text frame.",
    "dict_type": 'A frame is a JSON object, such as {"type": "message", "content": "Hello"}.',
    "union_tag_not_found": 'The frame has no "type". Known types are "message", "ping" and "pong".',
    "union_tag_invalid": 'The frame\'s "type" is unknown. Known types are "message", "ping" and "pong".',
    "missing": 'The frame has no "content". Put the message\'s text there.',
    "string_type": '"content" and "nonce" must be strings.',
    "string_pattern_mismatch": '"nonce" must be 1 to 64 of the characters A-Z, a-z, 0-9, - and _.',
}


def decode(raw: str | bytes) -> ClientFrame:
    """Returns the frame that a client sent. Raises InvalidFrame, and nothing else, for anything that is not one."""
    try:
        return _adapter.validate_json(raw)
    except ValidationError as error:
        kind = error.errors(include_url=False, include_context=False, include_input=False)[0]["type"]
        raise InvalidFrame(_MESSAGES.get(kind)) from None


def nonce_of(raw: str | bytes) -> str | None:
    """Returns the nonce of a refused frame, if it has one, so that its sender learns which frame it was."""
    try:
        return _WithNonce.model_validate_json(raw).nonce
    except ValidationError:
        return None
