"""The documents about the interfaces: OpenAPI of the HTTP API, AsyncAPI of the WebSocket API.

Both are made from the models that the endpoints use and the wire is decoded with.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from app.config import Settings
from app.exceptions import CloseCode, reconnects
from app.web.requests import NewBan, NewMessage, RoomChange
from app.web.responses import BanList, BanState, Error, Health, HiddenCount, Messages, Ready, Stats, StoredMessage
from app.wire.client_frames import ClientFrame
from app.wire.frames import HistoryPage, RoomData, ServerFrame

Answers = dict[str, type[BaseModel] | None]  # by status; None for plain text


class Operation(NamedTuple):
    """One thing that the HTTP API does. `whose` token it takes, of which one is enough; none for nobody's."""

    method: str
    path: str
    name: str
    summary: str
    answers: Answers
    body: type[BaseModel] | None = None
    query: tuple[str, ...] = ()
    whose: tuple[str, ...] = ("owner",)


DONE: Answers = dict.fromkeys(("401", "403", "422", "429", "503"), Error)
FOUND: Answers = {**DONE, "404": Error}
SENT: Answers = {**DONE, "413": Error}
METRICS: Answers = {"200": None, **dict.fromkeys(("401", "403", "404", "429"), Error)}
OPERATIONS = (
    Operation("get", "/health", "health", "Does the service work?", {"200": Health, "503": Health}, whose=()),
    Operation("get", "/ready", "ready", "Can messages be stored?", {"200": Ready, "503": Error}, whose=()),
    Operation("get", "/metrics", "metrics", "Figures for Prometheus", METRICS),
    Operation(
        "get", "/api/history", "history", "What a newcomer would see", {"200": HistoryPage, "422": Error},
        query=("recent",), whose=(),
    ),
    Operation("get", "/api/stats", "stats", "How busy is the room?", {"200": Stats}, whose=()),
    Operation(
        "post", "/api/messages", "postMessage", "Post as the owner",
        {"201": StoredMessage, "200": StoredMessage, **SENT, "409": Error, "410": Error}, NewMessage,
    ),
    Operation(
        "get", "/api/messages", "getMessages", "Page through what is stored", {"200": Messages, **DONE},
        query=("after", "limit", "last"),
    ),
    Operation(
        "delete", "/api/messages", "hideMessages", "Hide all messages of one user", {"200": HiddenCount, **DONE},
        query=("username",),
    ),
    Operation(
        "delete", "/api/messages/{id}", "hideMessage", "Hide a message: any as the owner, else one of your own",
        {"200": HiddenCount, **FOUND}, whose=("owner", "visitor"),
    ),
    Operation(
        "delete", "/api/messages/mine", "eraseMine", "Hide all of your own messages", {"200": HiddenCount, **DONE},
        whose=("visitor",),
    ),
    Operation("get", "/api/bans", "getBans", "Who is banned?", {"200": BanList, **DONE}),
    Operation("put", "/api/bans/{username}", "ban", "Ban a user", {"200": BanState, **SENT}, NewBan),
    Operation("get", "/api/bans/{username}", "getBan", "Is a user banned?", {"200": BanState, **FOUND}),
    Operation("delete", "/api/bans/{username}", "liftBan", "Lift a ban", {"200": BanState, **FOUND}),
    Operation("get", "/api/room", "getRoom", "How is the room?", {"200": RoomData, **DONE}),
    Operation("patch", "/api/room", "changeRoom", "Pause the room, or slow it", {"200": RoomData, **SENT}, RoomChange),
)  # fmt: skip
PARAMETERS: dict[str, dict[str, Any]] = {
    "after": {
        "schema": {"type": "integer", "minimum": 0, "default": 0},
        "description": "The last `seq` seen: the oldest messages after it.",
    },
    "limit": {"schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}},
    "recent": {
        "name": "limit",
        "schema": {"type": "integer", "minimum": 1, "maximum": 1000},
        "description": "How many of the newest messages; HISTORY_LIMIT at most, and when left out.",
    },
    "last": {
        "schema": {"type": "integer", "minimum": 1, "maximum": 1000},
        "description": "How many of the newest messages, instead of `after` and `limit`.",
    },
    "username": {"schema": {"type": "string"}, "description": "In any case."},
    "id": {"schema": {"type": "string"}},
}
TOKENS = {
    "owner": {"type": "http", "scheme": "bearer", "description": "OWNER_TOKEN"},
    "visitor": {"type": "http", "scheme": "bearer", "description": "The `token` of a `session` frame"},
}


@functools.lru_cache(maxsize=8)
def openapi_document(settings: Settings) -> dict[str, Any]:
    """The HTTP API as an OpenAPI 3.1 document."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _described(operation)
    answered = {model for operation in OPERATIONS for model in operation.answers.values() if model}
    asked = {operation.body for operation in OPERATIONS if operation.body}
    schemas = _schemas(_sorted(answered), "serialization") | _schemas(_sorted(asked), "validation")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": settings.app_name,
            "version": settings.app_version,
            "summary": "One public chat room.",
            "description": "Messages travel over the WebSocket at `/ws/chat`; [asyncapi.json](asyncapi.json) says how.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": TOKENS},
    }


def _described(operation: Operation) -> dict[str, Any]:
    answers: Answers = {**operation.answers, "default": Error}
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": {status: _answer(model) for status, model in answers.items()},
    }
    inside = [name for name in PARAMETERS if f"{{{name}}}" in operation.path]
    parameters = [{"name": name, "in": "path", "required": True, **PARAMETERS[name]} for name in inside]
    required = operation.method == "delete"
    parameters += [{"name": name, "in": "query", "required": required, **PARAMETERS[name]} for name in operation.query]
    if parameters:
        described["parameters"] = parameters
    if operation.body:
        required = any(field.is_required() for field in operation.body.model_fields.values())
        described["requestBody"] = {"required": required, **_content(operation.body)}
    if operation.whose:
        described["security"] = [{name: []} for name in operation.whose]
    return described


def _answer(model: type[BaseModel] | None) -> dict[str, Any]:
    if not model:
        return {"description": "Plain text.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    return {"description": model.__doc__, **_content(model)}


def _content(model: type[BaseModel]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}}


def _sorted(models: set[type[BaseModel]]) -> tuple[type[BaseModel], ...]:
    return tuple(sorted(models, key=lambda model: model.__name__))


@functools.lru_cache(maxsize=8)
def asyncapi_document(settings: Settings) -> dict[str, Any]:
    """The WebSocket API as an AsyncAPI 3.0 document."""
    client, server = get_args(ClientFrame), get_args(ServerFrame)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": settings.app_name,
            "version": settings.app_version,
            "description": "One public chat room. Frames are JSON objects in text frames, told apart by `type`. "
            "The first frames are `history`, `session` and `user_count`.",
        },
        "defaultContentType": "application/json",
        "channels": {"chat": _channel(settings, (*client, *server))},
        "operations": {"receive": _operation("receive", client), "send": _operation("send", server)},
        "components": {
            "messages": {model.__name__: _message(model) for model in (*client, *server)},
            "schemas": _schemas(client, "validation") | _schemas(server, "serialization"),
        },
    }


def _channel(settings: Settings, models: tuple[type[BaseModel], ...]) -> dict[str, Any]:
    name = {"type": "string", "pattern": "^[A-Za-z0-9_-]+$", "minLength": 1, "maxLength": settings.max_username_length}
    seq = {"type": "integer", "minimum": 0, "maximum": 2**53, "description": "The newest `seq` seen, on coming back."}
    epoch = {"type": "string", "description": "The `epoch` of the last session, on coming back."}
    query = {"type": "object", "required": ["username"], "properties": {"username": name, "epoch": epoch, "since": seq}}
    return {
        "address": "/ws/chat",
        "description": f"The room. Offer the subprotocol `chat.v1`. Close codes: {_close_codes()}.",
        "messages": {model.__name__: {"$ref": f"#/components/messages/{model.__name__}"} for model in models},
        "bindings": {"ws": {"method": "GET", "query": query}},
    }


def _close_codes() -> str:
    """All of them, and after which a client should come back."""
    return ", ".join(f"{code} ({code.reason}{'; come back' if reconnects(code) else ''})" for code in CloseCode)


def _operation(action: str, models: tuple[type[BaseModel], ...]) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": "#/channels/chat"},
        "summary": "What a client sends." if action == "receive" else "What the server sends.",
        "messages": [{"$ref": f"#/channels/chat/messages/{model.__name__}"} for model in models],
    }


def _message(model: type[BaseModel]) -> dict[str, Any]:
    return {
        "name": model.model_json_schema()["properties"]["type"]["const"],
        "summary": model.__doc__,
        "payload": {"$ref": f"#/components/schemas/{model.__name__}"},
    }


def _schemas(models: tuple[type[BaseModel], ...], mode: JsonSchemaMode) -> dict[str, Any]:
    wanted = [(model, mode) for model in models]
    schemas: dict[str, Any] = models_json_schema(wanted, ref_template="#/components/schemas/{model}")[1]["$defs"]
    for schema in schemas.values():
        if "const" in schema["properties"].get("type", {}):  # a frame always has its type, though it is a default
            schema["required"] = list(dict.fromkeys(["type", *schema.get("required", [])]))
    return schemas
