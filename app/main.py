"""The application: builds the room, wires it to its routes, and owns its beginning and end.

`create_app` is for a program of one's own, `app` for `uvicorn app.main:app`.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketClose

from app import exceptions, log, metrics, tasks
from app.chat.heartbeat import Heartbeat
from app.chat.registry import ConnectionRegistry
from app.chat.room import Room
from app.chat.timing import RoomTiming
from app.config import Settings, SettingsError, load_settings
from app.engines import Backend, open_backend
from app.engines.pruner import Pruner
from app.exceptions import ChatError, NotFound, StoreError
from app.owner.notifier import notification_format, open_notifier
from app.web import api, owner_api, pages
from app.web.responses import refusal
from app.web.socket import ChatEndpoint

NO_ROOM = NotFound("There is nothing at this address. The room is at /ws/chat.")
EXIT_NO_RESTART = 3  # the exit code of a worker that uvicorn and gunicorn don't start again and again

logger = logging.getLogger(__name__)

# A handshake that is not even let in is counted nowhere (the wire contract).
metrics.refusals.know(exceptions.codes() - {exceptions.OriginNotAllowed.code, exceptions.Restarting.code})
metrics.closes.know((*exceptions.CloseCode, 1002, 1005, 1006, 1007))  # RFC 6455, section 7.4.1

ROUTES = [
    Route("/", pages.index),
    Route("/widget.js", pages.script),
    Route("/widget/{module}", pages.module),
    Route("/health", api.health),
    Route("/api/stats", api.stats),
    Route("/api/history", api.history),
    Route("/docs", pages.swagger_ui),
    Route("/openapi.json", pages.openapi),
    Route("/asyncapi.json", pages.asyncapi),
    WebSocketRoute("/ws/chat", ChatEndpoint),
    Route("/ready", api.ready),
    Route("/metrics", owner_api.show_metrics),
    Route("/api/messages", owner_api.MessagesEndpoint),
    Route("/api/messages/mine", owner_api.MineEndpoint),
    Route("/api/messages/{id}", owner_api.MessageEndpoint),
    Route("/api/bans", owner_api.BansEndpoint),
    Route("/api/bans/{username}", owner_api.BanEndpoint),
    Route("/api/room", owner_api.RoomEndpoint),
]


class ChatApp(Starlette):
    """Starlette, but a WebSocket goes straight to the Router.

    The middleware is about HTTP answers, and each layer would cost every connection memory for as long as it lasts.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            scope["app"] = self
            await self.router(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def create_app(settings: Settings, timing: RoomTiming | None = None) -> Starlette:
    """The application for one room. Nothing is opened before its lifespan starts. `timing`: other than usual."""
    everyone = "*" in settings.cors_origins
    app = ChatApp(
        routes=ROUTES,
        middleware=[
            Middleware(StartupFaults),
            Middleware(SafeHeaders),
            Middleware(
                CORSMiddleware,
                allow_origins=settings.cors_origins,
                allow_credentials=settings.cors_allow_credentials and not everyone,
                allow_methods=("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"),
                allow_headers=("Authorization",),
            ),
            Middleware(ServerErrorMiddleware, handler=api.server_error),  # Starlette's own would be outside of CORS
        ],
        exception_handlers={HTTPException: api.http_error, ChatError: api.chat_error, StoreError: api.store_error},
        lifespan=lifespan,
    )
    app.router.default = nothing_here
    app.router.redirect_slashes = False  # `/health/` is not there, and a redirect would name our scheme and host
    app.state.settings = settings
    app.state.backend = open_backend(settings)
    app.state.timing = timing
    return app


async def nothing_here(scope: Scope, receive: Receive, send: Send) -> None:
    """Whatever no route is for. Starlette would answer a WebSocket with an empty 403."""
    if scope["type"] == "websocket" and "websocket.http.response" in scope.get("extensions", {}):
        await WebSocket(scope, receive, send).send_denial_response(refusal(NO_ROOM))
    elif scope["type"] == "websocket":
        await WebSocketClose()(scope, receive, send)
    else:
        raise HTTPException(404)


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Opens the store, builds the room on it, and starts its tasks; at the end stores everything that was accepted."""
    settings: Settings = app.state.settings
    log.configure(settings.level)
    if "*" in settings.cors_origins:
        logger.warning("CORS_ORIGINS=* lets pages of any site into the room, in their visitors' names")
    backend: Backend = app.state.backend
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(backend.engine.stop)
        opened = await backend.engine.open()
        notifier = open_notifier(settings, backend.claim)
        registry = ConnectionRegistry(settings.ws_max_connections, settings.ws_max_connections_per_ip)
        app.state.room = room = Room(settings, registry, backend, opened, notifier, app.state.timing)
        stack.push_async_callback(room.stop)
        await room.start()
        interval, timeout = settings.ws_heartbeat_interval, settings.ws_heartbeat_timeout
        heartbeat = Heartbeat(registry, interval, timeout, on_beat=room.admission.forget)
        pruner = Pruner(backend.engine, settings.retention_days, settings.max_stored_messages)
        for name, run in (("notifier", notifier.run), ("heartbeat", heartbeat.run), ("pruner", pruner.run)):
            stack.push_async_callback(tasks.end, tasks.spawn(run(), name))
        if settings.notify_url:
            host = urlsplit(settings.notify_url).hostname  # all else in it is a secret
            logger.info("The owner is told of messages by %s, in the format %s", host, notification_format(settings))
        logger.info("%s %s is ready: %d messages so far", settings.app_name, settings.app_version, room.total)
        yield


class StartupFaults:
    """Tells the server why the start failed in a sentence, where Starlette would send a traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_sentence(message: Message) -> None:
            error = sys.exc_info()[1]  # Starlette sends from where it handles the exception
            if message["type"] == "lifespan.startup.failed" and isinstance(error, StoreError):
                message["message"] = str(error)
            await send(message)

        await self.app(scope, receive, send_sentence if scope["type"] == "lifespan" else send)


class SafeHeaders:
    """Adds to every answer what keeps browsers from guessing its type, and caches from keeping it unasked."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_safe(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self.app(scope, receive, send_safe if scope["type"] == "http" else send)


app: Starlette  # made when it is first asked for, so that an import reads no settings


def __getattr__(name: str) -> Starlette:
    """`app`, with the settings of the environment; ends the process with a sentence when these are wrong."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        globals()["app"] = made = create_app(load_settings())
    except SettingsError as error:
        sys.stderr.write(f"The settings are wrong, so the start stops here.\n{error}\n")
        raise SystemExit(EXIT_NO_RESTART) from None
    return made
