"""The documents of the interfaces: valid to published validators, and complete."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, validate
from pydantic import BaseModel
from starlette.routing import Route

from app.config import Settings
from app.exceptions import CloseCode, RequestRefused, codes
from app.main import ROUTES
from app.web.documents import OPERATIONS, asyncapi_document, openapi_document
from app.web.responses import Error, Health, Stats
from app.wire import client_frames, frames
from app.wire.client_frames import ClientFrame
from app.wire.frames import ServerFrame

MODELS: tuple[type[BaseModel], ...] = (*get_args(ClientFrame), *get_args(ServerFrame))
PAGES = {("GET", path) for path in ("/", "/widget.js", "/widget/{module}", "/docs", "/openapi.json", "/asyncapi.json")}
SCRIPT = """
const { Parser } = require("@asyncapi/parser");
const text = require("fs").readFileSync(0, "utf8");
new Parser().parse(text).then(({ document, diagnostics }) => {
  const errors = diagnostics.filter(({ severity }) => severity === 0);
  console.log(JSON.stringify({ parsed: Boolean(document), errors }));
});
"""


@pytest.fixture(params=[{}, {"app_name": 'A "quoted" name', "app_version": "2.0.0-rc.1", "max_username_length": 7}])
def settings(request: pytest.FixtureRequest) -> Settings:
    return Settings.model_validate(request.param)


def references(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def resolved(document: dict[str, Any], reference: str) -> Any:
    part: Any = document
    for step in reference.removeprefix("#/").split("/"):
        part = part[step]
    return part


@pytest.mark.parametrize("document_of", [openapi_document, asyncapi_document])
def test_every_reference_resolves(document_of: Callable[[Settings], dict[str, Any]], settings: Settings) -> None:
    document = document_of(settings)
    found = set(references(document))
    assert found
    for reference in found:
        assert reference.startswith("#/")
        assert resolved(document, reference)


def test_openapi_is_valid(settings: Settings) -> None:
    document = openapi_document(settings)
    assert document["openapi"].startswith("3.1")
    validate(json.loads(json.dumps(document)), cls=OpenAPIV31SpecValidator)


def test_openapi_names_every_json_endpoint_and_its_answers(settings: Settings) -> None:
    document = openapi_document(settings)
    served = {(method, route.path) for route in ROUTES if isinstance(route, Route) for method in methods_of(route)}
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == {(method, path) for method, path in served if method != "HEAD"} - PAGES
    assert len(OPERATIONS) == len(described)
    for path, model in (("/health", Health), ("/api/stats", Stats)):
        responses = document["paths"][path]["get"]["responses"]
        assert schema_of(document, responses["200"])["properties"].keys() == model.model_fields.keys()
        assert schema_of(document, responses["default"])["properties"].keys() == Error.model_fields.keys()
    assert "503" in document["paths"]["/health"]["get"]["responses"]
    assert (document["info"]["title"], document["info"]["version"]) == (settings.app_name, settings.app_version)


def methods_of(route: Route) -> set[str]:
    methods = ("GET", "POST", "PUT", "PATCH", "DELETE")
    return set(route.methods or (method for method in methods if hasattr(route.endpoint, method.lower())))


def schema_of(document: dict[str, Any], response: dict[str, Any]) -> Any:
    return resolved(document, response["content"]["application/json"]["schema"]["$ref"])


def test_asyncapi_covers_every_frame(settings: Settings) -> None:
    document = asyncapi_document(settings)
    messages = document["components"]["messages"]
    assert set(messages) == {model.__name__ for model in MODELS}
    assert set(document["channels"]["chat"]["messages"]) == set(messages)
    for model in MODELS:
        message = messages[model.__name__]
        assert message["name"] == model.model_fields["type"].annotation.__args__[0]  # type: ignore[union-attr] # a Literal has it
        schema = resolved(document, message["payload"]["$ref"])
        assert set(schema["properties"]) == set(model.model_fields)
        assert "type" in schema["required"]


def test_documents_name_every_code(settings: Settings) -> None:
    schemas = asyncapi_document(settings)["components"]["schemas"]
    frames = schemas["ErrorData"]["properties"]["code"]["enum"]
    assert {"banned", "paused", "slow_mode", "rate_limited", "invalid_frame", "username_taken"} <= set(frames)
    assert not {"not_found", "unauthorized", "origin_not_allowed"} & set(frames)
    requests = openapi_document(settings)["components"]["schemas"]["ErrorDetail"]["properties"]["code"]["examples"]
    assert {*frames} == codes() - codes(RequestRefused)
    assert codes(RequestRefused) | {"invalid_token", "rate_limited", "unavailable", "method_not_allowed"} <= {*requests}
    assert not {"banned", "username_taken", "paused"} & {*requests}
    described = asyncapi_document(settings)["channels"]["chat"]["description"]
    assert all(f"{code} " in described for code in CloseCode)
    assert "1012 (restart; come back)" in described


def test_body_is_required_where_something_in_it_is(settings: Settings) -> None:
    paths = openapi_document(settings)["paths"]
    required = {
        f"{method} {path}": operation["requestBody"]["required"]
        for path, methods in paths.items()
        for method, operation in methods.items()
        if "requestBody" in operation
    }
    assert required == {"post /api/messages": True, "put /api/bans/{username}": False, "patch /api/room": False}


def test_every_frame_model_is_in_one_of_the_unions() -> None:
    declared = {
        model
        for model in (*vars(frames).values(), *vars(client_frames).values())
        if isinstance(model, type) and issubclass(model, BaseModel) and "type" in model.model_fields
    }
    assert declared == set(MODELS)


def test_asyncapi_tells_who_sends_what(settings: Settings) -> None:
    document = asyncapi_document(settings)
    for action, union in (("receive", ClientFrame), ("send", ServerFrame)):
        operation = document["operations"][action]
        assert operation["action"] == action
        named = [reference["$ref"].rpartition("/")[2] for reference in operation["messages"]]
        assert named == [model.__name__ for model in get_args(union)]
    query = document["channels"]["chat"]["bindings"]["ws"]["query"]["properties"]
    assert query["username"]["maxLength"] == settings.max_username_length
    assert set(query) == {"username", "epoch", "since"}


def parsed(packages: Path, document: dict[str, Any]) -> dict[str, Any]:
    command = ["node", "-e", SCRIPT]
    found = subprocess.run(
        command, cwd=packages, input=json.dumps(document), capture_output=True, text=True, timeout=60, check=True
    )
    result: dict[str, Any] = json.loads(found.stdout)
    return result


def test_asyncapi_is_valid(packages: Path, settings: Settings) -> None:
    document = asyncapi_document(settings)
    assert document["asyncapi"] == "3.0.0"
    assert parsed(packages, document) == {"parsed": True, "errors": []}


def test_asyncapi_parser_finds_faults(packages: Path, settings: Settings) -> None:
    document = {**asyncapi_document(settings), "channels": {"chat": {"messages": {"x": {"$ref": "#/nowhere"}}}}}
    assert parsed(packages, document)["errors"]
