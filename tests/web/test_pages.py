"""What is served for people: the documents, Swagger UI, and the demo page, each with what its policy allows."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from app.config import Settings
from app.web.documents import asyncapi_document, openapi_document

NewClient = Callable[..., TestClient]


@pytest.mark.parametrize("path", ["/openapi.json", "/asyncapi.json"])
def test_document_is_served_as_it_is_made(client: NewClient, path: str) -> None:
    served = client(app_name="My chat")
    settings = Settings(engine_url="memory://", app_name="My chat")
    made = openapi_document(settings) if path == "/openapi.json" else asyncapi_document(settings)
    assert served.get(path).json() == made


def test_swagger_ui_is_pinned_by_version_and_hash(client: NewClient) -> None:
    page = client().get("/docs").text
    foreign = re.findall(r'<(?:script|link)[^>]*"https://[^>]*>', page)
    assert len(foreign) == 2
    for tag in foreign:
        assert re.search(r'"https://unpkg\.com/swagger-ui-dist@\d+\.\d+\.\d+/[\w.-]+"', tag)
        digest = re.search(r'integrity="sha384-([^"]+)"', tag)
        assert digest
        assert len(base64.b64decode(digest[1], validate=True)) == 48
        assert 'crossorigin="anonymous"' in tag
    assert 'url: "openapi.json"' in page


def test_swagger_ui_runs_its_own_script_and_no_other(client: NewClient) -> None:
    answer = client().get("/docs")
    (script,) = re.findall(r"<script>(.*?)</script>", answer.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = answer.headers["content-security-policy"]
    assert f"script-src https://unpkg.com 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")


def test_index_names_every_endpoint(client: NewClient) -> None:
    page = client().get("/").text
    for path in ("/ws/chat", "/health", "/api/stats", "/docs", "/openapi.json", "/asyncapi.json"):
        assert path in page
    assert "https://" not in page


@pytest.mark.parametrize(
    ("settings", "host", "shown"),
    [
        ({}, "chat.test:8000", "http://chat.test:8000"),
        ({"public_url": "https://chat.test"}, "10.0.0.1", "https://chat.test"),
        ({}, "a'b", "http://a&#x27;b"),
    ],
)
def test_index_shows_the_line_for_this_server(
    client: NewClient, settings: dict[str, str], host: str, shown: str
) -> None:
    page = client(**settings).get("/", headers={"Host": host}).text
    assert f'&lt;script src="{shown}/widget.js" defer&gt;&lt;/script&gt;' in page


def test_index_allows_its_own_script_and_style_and_no_other(client: NewClient) -> None:
    answer = client().get("/")
    (style,) = re.findall(r"<style>(.*?)</style>", answer.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = answer.headers["content-security-policy"]
    assert f"style-src 'sha256-{digest}';" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert re.findall(r"<script[^>]*>", answer.text) == ['<script src="widget.js" defer>']
