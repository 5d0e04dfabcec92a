"""What comes over HTTP: a pydantic model of each body and query, and who sends it.

Knows nothing of what is done with it.
"""

from __future__ import annotations

import logging
import re
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect, HTTPConnection, Request

from app import security
from app.chat.credentials import Handshake
from app.exceptions import InvalidRequest, RequestTooLarge
from app.wire.client_frames import Nonce
from app.wire.limits import MAX_FRAME

YEARS = 100 * 366 * 86_400.0  # seconds
FORWARDING = ("X-Forwarded-For", "Forwarded", "X-Real-IP")  # what only proxies send

logger = logging.getLogger(__name__)


class Body(BaseModel):
    """Strictly typed; what is not known is refused, because a misspelt field would be ignored in silence."""

    model_config = ConfigDict(extra="forbid", strict=True)


class NewMessage(Body):
    """A message to post. With a `nonce`, it may be sent again: it is stored once."""

    content: str
    nonce: Nonce | None = None


class NewBan(Body):
    """For how many seconds (for good when left out), whether the address, too, and a note of your own."""

    seconds: Annotated[float, Field(gt=0, le=YEARS, allow_inf_nan=False)] | None = None
    address: bool = False
    reason: Annotated[str, Field(max_length=500)] | None = None


class RoomChange(Body):
    """`paused`: only the owner posts. `slow_mode`: seconds between two messages of a visitor, 0 for none."""

    paused: bool | None = None
    slow_mode: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] | None = None


class Query(BaseModel):
    """From text, and as in a body what is not known is refused."""

    model_config = ConfigDict(extra="forbid")


class Page(Query):
    """Which messages: the oldest after a seq, `limit` at most; or else the `last` ones."""

    after: int = Field(0, ge=0, le=2**53)
    limit: int = Field(100, ge=1, le=1000)
    last: Annotated[int, Field(ge=1, le=1000)] | None = None


class Recent(Query):
    """How many of the newest messages; as many as a newcomer sees when left out."""

    limit: Annotated[int, Field(ge=1, le=1000)] | None = None


class Whose(Query):
    """Whose messages."""

    username: Annotated[str, Field(min_length=1)]


Model = TypeVar("Model", bound=BaseModel)


def handshake_of(connection: HTTPConnection) -> Handshake:
    """Who asks. (A username given twice: the last counts.)"""
    host = connection.client.host if connection.client else ""
    return Handshake(
        username=connection.query_params.get("username"),
        address=host,
        limit_key=security.limit_key(host, _behind_unknown_proxy(connection, host)),
        subprotocols=tuple(connection.scope.get("subprotocols", ())),
    )


def bearer_of(request: Request) -> str | None:
    """The token that a request shows (RFC 6750, section 2.1)."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip().isascii() else None


def is_current(request: Request, etag: str) -> bool:
    """Whether the client has this version already (If-None-Match, RFC 9110, section 13.1.2)."""
    known = re.findall(r'"[^"]*"|\*', request.headers.get("if-none-match", ""))
    return "*" in known or etag.removeprefix("W/") in known


async def body_of(request: Request, model: type[Model]) -> Model:
    """The body. Raises InvalidRequest, which names the field, and RequestTooLarge."""
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_FRAME:
                raise RequestTooLarge
    except ClientDisconnect:
        raise InvalidRequest(None, "The body ends early.") from None
    try:
        return model.model_validate_json(body or b"{}")  # where all may be left out, so may the braces
    except ValidationError as error:
        raise _fault(error) from None


def query_of(request: Request, model: type[Model]) -> Model:
    """The query. Raises InvalidRequest, which names the field."""
    try:
        return model.model_validate(dict(request.query_params))
    except ValidationError as error:
        raise _fault(error) from None


def _fault(error: ValidationError) -> InvalidRequest:
    """In our own words where pydantic's would quote what was sent."""
    fault = error.errors(include_url=False, include_input=False)[0]
    field = str(fault["loc"][0]) if fault["loc"] else None
    if fault["type"] == "json_invalid":
        return InvalidRequest(None, 'The body is not JSON. Line breaks and quotes in a text are written \\n and \\".')
    if not field:
        return InvalidRequest(None, "The body must be a JSON object.")
    if fault["type"] == "extra_forbidden":
        return InvalidRequest(field[:80], "There is no such field.")
    if fault["type"] == "string_pattern_mismatch":
        return InvalidRequest(field, f'"{field}" must be 1 to 64 of the characters A-Z, a-z, 0-9, - and _.')
    message = str(fault["msg"])
    return InvalidRequest(field, f'"{field}" is not allowed like this: {message[:1].lower()}{message[1:]}.')


def _behind_unknown_proxy(connection: HTTPConnection, host: str) -> bool:
    """Whether the peer sent forwarded addresses and is not believed, which is logged once.

    A server that believed it has put the visitor's address, which the header names, in the place of the peer's.
    """
    forwarded = ",".join(connection.headers.getlist("x-forwarded-for"))
    if host in map(str.strip, forwarded.split(",")):
        return False
    sent = next((header for header in FORWARDING if header.lower() in connection.headers), None)
    if sent and not getattr(connection.app.state, "proxy_seen", False):
        connection.app.state.proxy_seen = True
        logger.warning(
            "%s from %s is not believed, so all visitors behind it share one address. "
            "If it is your proxy, let it send X-Forwarded-For, and add %s to FORWARDED_ALLOW_IPS",
            sent,
            host,
            host,
        )
    return sent is not None
