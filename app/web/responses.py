"""The HTTP answers: a pydantic model of each, which both the endpoints and the documentation use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, Self

from pydantic import BaseModel, Field
from starlette.responses import Response

from app import exceptions
from app.exceptions import ChatError, RequestRefused
from app.message import Message

# Those of our own refusals, and Starlette's.
CODES = {refusal.code for refusal in exceptions.refusals() if refusal.over_http}
CODES |= {"method_not_allowed", "internal_server_error"}


class Health(BaseModel):
    """Whether the service works. `degraded`: messages can't be stored, or it is about to stop."""

    status: Literal["ok", "degraded"]
    service: str = Field(examples=["Portfolio Backend"])
    version: str = Field(examples=["0.1.0"])


class Stats(BaseModel):
    """How busy the room is."""

    active_users: int = Field(ge=0, description="Usernames connected now.")
    total_messages: int = Field(ge=0, description="Messages ever accepted.")


class StoredMessage(BaseModel):
    """A message as it is kept. `text` is what was typed, `content` the same, safe as HTML; times are Unix seconds."""

    id: str
    seq: int
    username: str
    content: str
    text: str
    timestamp: float
    role: str
    nonce: str | None = None

    @classmethod
    def of(cls, message: Message) -> Self:
        """The message, for the owner."""
        return cls(
            id=message.id,
            seq=message.seq,
            username=message.username,
            content=message.content,
            text=message.text,
            timestamp=message.timestamp,
            role=message.role,
            nonce=message.nonce,
        )


class Messages(BaseModel):
    """Messages, oldest first."""

    messages: list[StoredMessage]


class HiddenCount(BaseModel):
    """How many messages are hidden now that were not."""

    hidden: int


class BanState(BaseModel):
    """Who is kept out, and until when (Unix seconds, null for good). `address`: whether the address is banned, too."""

    username: str
    until: float | None
    address: bool
    reason: str | None


class BanList(BaseModel):
    """All bans that hold."""

    bans: list[BanState]


class Ready(BaseModel):
    """Messages can be stored, and will be."""

    status: Literal["ready"] = "ready"


class ErrorDetail(BaseModel):
    """What is wrong: a code for programs, a sentence for people. `traceback` only with `DEBUG=true`.

    `field`: which part of the request; `retry_after`: seconds, where waiting helps.
    """

    code: str = Field(examples=sorted(CODES))
    message: str
    field: str | None = None
    retry_after: float | None = None
    traceback: list[str] | None = None


class Error(BaseModel):
    """The answer to every request that fails."""

    error: ErrorDetail


def answer(model: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A model as JSON. Nothing may keep it: each of these is true only now."""
    fixed = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    body = model.model_dump_json(exclude_none=not isinstance(model, BanState | BanList))
    return Response(body, status, {**(headers or {}), **fixed}, media_type="application/json")


def refusal(error: ChatError) -> Response:
    """What the room or the door refuses, over HTTP."""
    assert error.over_http, f"{error.code} is in no document of the HTTP API: set over_http"
    field = error.field or ("content" if error.status == 422 and not isinstance(error, RequestRefused) else None)
    detail = ErrorDetail(code=error.code, message=str(error), field=field, retry_after=error.retry_after)
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    return answer(Error(error=detail), error.status, headers)
