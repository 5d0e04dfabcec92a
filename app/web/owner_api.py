"""The endpoints for the owner, and those with which visitors delete their own messages.

Each checks the token before it reads, looks up or answers anything else.
"""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import Response

from app import metrics, security
from app.chat.moderation import Moderation
from app.chat.room import Room
from app.chat.rules import Ban
from app.config import Settings
from app.engines.store import Query
from app.exceptions import Hidden, InvalidRequest, InvalidUsername, NotFound
from app.web.requests import NewBan, NewMessage, Page, RoomChange, Whose, bearer_of, body_of, handshake_of, query_of
from app.web.responses import BanList, BanState, HiddenCount, Messages, StoredMessage, answer


async def show_metrics(request: Request) -> Response:
    """What Prometheus scrapes. For everybody with METRICS_PUBLIC=true."""
    if not metrics.installed:
        raise NotFound("Metrics need prometheus-client, which is not installed: pip install -r requirements-prod.txt")
    settings: Settings = request.app.state.settings
    if not settings.metrics_public:
        _owners(request)
    body, content_type = await run_in_threadpool(metrics.render)
    return Response(body, headers={"Content-Type": content_type})


class MessagesEndpoint(HTTPEndpoint):
    """What is stored."""

    async def post(self, request: Request) -> Response:
        """Posts as the owner, and answers when the message is stored."""
        room = _owners(request)
        post = await body_of(request, NewMessage)
        message, new = await room.post_as_owner(post.content, post.nonce)
        if message.deleted:
            raise Hidden
        return answer(StoredMessage.of(message), 201 if new else 200)

    async def get(self, request: Request) -> Response:
        """Pages through it."""
        _owners(request)
        page = query_of(request, Page)
        if page.last and page.model_fields_set != {"last"}:
            raise InvalidRequest("last", "Ask for the last messages, or with after and limit, not for both.")
        if page.last:
            found = (await _moderation(request).find(Query(limit=page.last, newest=True)))[::-1]
        else:
            found = await _moderation(request).find(Query(after=page.after, limit=page.limit))
        return answer(Messages(messages=[StoredMessage.of(message) for message in found]))

    async def delete(self, request: Request) -> Response:
        """Hides all messages of one user."""
        _owners(request)
        username = query_of(request, Whose).username
        return answer(HiddenCount(hidden=await _moderation(request).delete("username", username)))


class MessageEndpoint(HTTPEndpoint):
    """One message."""

    async def delete(self, request: Request) -> Response:
        """Hides it, for the owner, and for the visitor who wrote it."""
        room: Room = request.app.state.room
        session = room.admission.authorize_deletion(handshake_of(request), bearer_of(request))
        message_id = request.path_params["id"]
        if session:
            hidden = await room.moderation.delete_own(message_id, session)
        else:
            hidden = await room.moderation.delete("id", message_id)
        if not hidden:
            raise NotFound("There is no message with this id, or it is hidden already, or it is not yours.")
        return answer(HiddenCount(hidden=hidden))


class MineEndpoint(HTTPEndpoint):
    """The messages of who asks, a visitor."""

    async def delete(self, request: Request) -> Response:
        """Hides them."""
        room: Room = request.app.state.room
        session = room.admission.authorize_erasure(handshake_of(request), bearer_of(request))
        return answer(HiddenCount(hidden=await _moderation(request).delete("session", session)))


class BansEndpoint(HTTPEndpoint):
    """Who is kept out."""

    async def get(self, request: Request) -> Response:
        """All bans."""
        _owners(request)
        bans = _moderation(request).rules.bans.values()
        return answer(BanList(bans=[_state(ban) for ban in bans if ban.holds()]))


class BanEndpoint(HTTPEndpoint):
    """One user, kept out."""

    async def put(self, request: Request) -> Response:
        """Bans."""
        _owners(request)
        username = _username(request)
        ban = await body_of(request, NewBan)
        return answer(_state(await _moderation(request).ban(username, ban.seconds, ban.address, ban.reason)))

    async def get(self, request: Request) -> Response:
        """The ban."""
        _owners(request)
        return answer(_known(_moderation(request).rules.ban(request.path_params["username"])))

    async def delete(self, request: Request) -> Response:
        """Ends the ban, and answers what it was."""
        _owners(request)
        return answer(_known(await _moderation(request).lift(request.path_params["username"])))


class RoomEndpoint(HTTPEndpoint):
    """How the room is."""

    async def get(self, request: Request) -> Response:
        """Tells."""
        return answer(_owners(request).announcer.room())

    async def patch(self, request: Request) -> Response:
        """Pauses it or opens it again, and sets its slow mode."""
        room = _owners(request)
        change = await body_of(request, RoomChange)
        await _moderation(request).set_room(change.paused, change.slow_mode)
        return answer(room.announcer.room())


def _owners(request: Request) -> Room:
    """The room, for its owner. Raises what `Admission.authorize` raises."""
    room: Room = request.app.state.room
    room.admission.authorize(handshake_of(request), bearer_of(request))
    return room


def _moderation(request: Request) -> Moderation:
    room: Room = request.app.state.room
    return room.moderation


def _username(request: Request) -> str:
    settings: Settings = request.app.state.settings
    try:
        return security.check_username(request.path_params["username"], settings.max_username_length)
    except InvalidUsername:
        raise InvalidRequest("username", "No visitor can have such a name.") from None


def _known(ban: Ban | None) -> BanState:
    if not ban:
        raise NotFound("Nobody of this name is banned.")
    return _state(ban)


def _state(ban: Ban) -> BanState:
    return BanState(username=ban.username, until=ban.until, address=bool(ban.address_hash), reason=ban.reason)
