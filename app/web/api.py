"""The JSON endpoints, and the JSON that every failed request gets."""

from __future__ import annotations

import hashlib
import logging
import traceback

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app import metrics
from app.chat.room import Room
from app.config import Settings
from app.exceptions import ChatError, Restarting, Unavailable
from app.web.requests import Recent, is_current, query_of
from app.web.responses import Error, ErrorDetail, Health, Ready, Stats, answer, refusal

logger = logging.getLogger(__name__)

_SENTENCES = {
    404: "There is nothing at this address. GET / names what there is.",
    405: "This address does not take that method. The Allow header names those that it takes.",
}


async def health(request: Request) -> Response:
    """200 while messages can be stored, else 503. Touches neither disk nor network."""
    room: Room = request.app.state.room
    settings: Settings = request.app.state.settings
    body = Health(status="ok" if room.healthy else "degraded", service=settings.app_name, version=settings.app_version)
    return answer(body, 200 if room.healthy else 503)


async def stats(request: Request) -> Response:
    """How many are here, and how much was ever said."""
    room: Room = request.app.state.room
    return answer(Stats(active_users=room.users, total_messages=room.total))


async def history(request: Request) -> Response:
    """What a newcomer would see. From memory, and mostly 304 for a page that asks every few seconds."""
    room: Room = request.app.state.room
    page = room.peek(query_of(request, Recent).limit)
    headers = {"Cache-Control": "no-cache", "ETag": f'"{hashlib.sha256(page).hexdigest()[:32]}"'}
    if is_current(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(page, headers=headers, media_type="application/json")


async def ready(request: Request) -> Response:
    """200 when messages can be stored and will be, else 503 with the reason."""
    room: Room = request.app.state.room
    if room.draining:
        return refusal(Restarting())
    if not room.healthy:
        reason = "Messages can't be stored at the moment; the log has the reason. It is tried again by itself."
        return refusal(Unavailable(reason))
    return answer(Ready())


async def chat_error(request: Request, error: Exception) -> Response:
    """What the room or the door refuses, over HTTP."""
    assert isinstance(error, ChatError)
    metrics.refusals.inc(error.code)
    return refusal(error)


async def store_error(request: Request, error: Exception) -> Response:
    """The store failed or did not answer, so that it is not known whether it was done."""
    logger.error("%s %s failed: %s", request.method, request.url.path, error)
    return await chat_error(request, Unavailable("The store does not take it at the moment. Try again."))


async def http_error(request: Request, error: Exception) -> Response:
    """404, 405 and the like."""
    assert isinstance(error, HTTPException)
    code = error.detail.lower().replace(" ", "_")
    detail = ErrorDetail(code=code, message=_SENTENCES.get(error.status_code, error.detail))
    return answer(Error(error=detail), error.status_code, error.headers)


async def server_error(request: Request, error: Exception) -> Response:
    """500: our own fault, which the server logs. What it was is nobody else's business, but for DEBUG=true."""
    settings: Settings = request.app.state.settings
    detail = ErrorDetail(
        code="internal_server_error",
        message="Something went wrong here. Try again; if it stays, tell the owner of this site.",
        traceback=traceback.format_exception(error) if settings.debug else None,
    )
    return answer(Error(error=detail), 500)
