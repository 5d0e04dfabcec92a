"""The endpoints for the owner, and the one for visitors who want their messages gone.

Nothing is read, looked up or told before it is clear who asks.
"""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from app import metrics, security
from app.chat import Chat
from app.config import Settings
from app.engines import By, Engine
from app.exceptions import Hidden, InvalidRequest, InvalidUsername, NotFound
from app.moderation import Moderation
from app.requests import NewBan, NewMessage, Page, RoomChange, bearer_of, body_of, handshake_of, query_of
from app.responses import BanList, BanState, HiddenCount, Messages, StoredMessage, answer
from app.rules import Ban


async def show_metrics(request: Request) -> Response:
    """What Prometheus scrapes. For everybody with METRICS_PUBLIC=true."""
    if not metrics.installed:
        raise NotFound("Metrics need prometheus-client, which is not installed: pip install -r requirements-prod.txt")
    settings: Settings = request.app.state.settings
    if not settings.metrics_public:
        _owners(request)
    body, content_type = await run_in_threadpool(metrics.render)
    return Response(body, headers={"Content-Type": content_type})


async def post_message(request: Request) -> Response:
    """Posts as the owner, and answers when the message is stored."""
    chat = _owners(request)
    post = await body_of(request, NewMessage)
    message, new = await chat.post_as_owner(post.content, post.nonce)
    if message.gone and not new:
        raise Hidden
    return answer(StoredMessage.of(message), 201 if new else 200)


async def get_messages(request: Request) -> Response:
    """Pages through what is stored."""
    _owners(request)
    page = query_of(request, Page)
    engine: Engine = request.app.state.engine
    found = await engine.page(page.after, page.limit)
    return answer(Messages(messages=[StoredMessage.of(message) for message in found]))


async def hide_message(request: Request) -> Response:
    """Hides one message."""
    _owners(request)
    hidden = await _hide(request, "id", request.path_params["id"])
    if not hidden.hidden:
        raise NotFound("There is no message with this id, or it is hidden already.")
    return answer(hidden)


async def hide_messages(request: Request) -> Response:
    """Hides all messages of one user."""
    _owners(request)
    username = request.query_params.get("username")
    if not username:
        raise InvalidRequest("username", "Say whose messages to hide: ?username=…")
    return answer(await _hide(request, "username", username))


async def erase_mine(request: Request) -> Response:
    """Hides all messages of who asks."""
    chat: Chat = request.app.state.chat
    handshake = handshake_of(request)
    session = chat.admission.session_of(handshake, bearer_of(request))
    chat.admission.check_erasure(handshake)
    return answer(await _hide(request, "session", session))


async def put_ban(request: Request) -> Response:
    """Bans a user."""
    _owners(request)
    username = _username(request)
    ban = await body_of(request, NewBan)
    return answer(_state(await _moderation(request).ban(username, ban.seconds, ban.address, ban.reason)))


async def get_ban(request: Request) -> Response:
    """The ban of a user."""
    _owners(request)
    return answer(_known(_moderation(request).rules.ban(request.path_params["username"])))


async def lift_ban(request: Request) -> Response:
    """Ends a ban, and answers what it was."""
    _owners(request)
    return answer(_known(await _moderation(request).lift(request.path_params["username"])))


async def get_bans(request: Request) -> Response:
    """All bans."""
    _owners(request)
    bans = _moderation(request).rules.bans.values()
    return answer(BanList(bans=[_state(ban) for ban in bans if ban.holds()]))


async def change_room(request: Request) -> Response:
    """Pauses the room or opens it again, and sets its slow mode."""
    chat = _owners(request)
    change = await body_of(request, RoomChange)
    await _moderation(request).set_room(change.paused, change.slow_mode)
    return answer(chat.room())


def _owners(request: Request) -> Chat:
    """The room, for its owner. Raises what `Admission.authorize` raises."""
    chat: Chat = request.app.state.chat
    chat.admission.authorize(handshake_of(request), bearer_of(request))
    return chat


def _moderation(request: Request) -> Moderation:
    moderation: Moderation = request.app.state.moderation
    return moderation


async def _hide(request: Request, by: By, value: str) -> HiddenCount:
    engine: Engine = request.app.state.engine
    return HiddenCount(hidden=await engine.hide(by, value))


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
    return BanState(username=ban.username, until=ban.until, address=bool(ban.mark), reason=ban.reason)
