"""The widget as a file: how it is served, and how large it is."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from app.docs import STATIC

NewClient = Callable[..., TestClient]
SOURCE = (STATIC / "widget.js").read_bytes()


def test_widget_is_at_most_10_kib(client: NewClient) -> None:
    assert len(gzip.compress(SOURCE, 9)) <= 10 * 1024
    assert int(client().head("/widget.js").headers["content-length"]) <= 10 * 1024


@pytest.mark.parametrize("encoding", ["gzip, br", "identity", ""])
def test_widget_is_for_every_page(client: NewClient, encoding: str) -> None:
    answer = client().get("/widget.js", headers={"Accept-Encoding": encoding})
    assert answer.content == SOURCE
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["cache-control"] == "public, max-age=300"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert answer.headers["vary"].startswith("Accept-Encoding")
    assert answer.headers.get("content-encoding") == ("gzip" if "gzip" in encoding else None)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("known", ["{}", "W/{}", '"other", {}', "*"])
def test_widget_that_is_known_is_not_sent_again(client: NewClient, method: str, known: str) -> None:
    served = client()
    etag = served.get("/widget.js").headers["etag"]
    asked = known.format(etag.removeprefix("W/"))
    answer = served.request(method, "/widget.js", headers={"If-None-Match": asked})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert answer.headers["cache-control"] == "public, max-age=300"


@pytest.mark.parametrize("known", ['"other"', "", '"', "W/"])
def test_widget_that_is_not_known_is_sent(client: NewClient, known: str) -> None:
    assert client().get("/widget.js", headers={"If-None-Match": known}).content == SOURCE


def test_widget_makes_no_html_and_needs_nothing() -> None:
    code = SOURCE.decode()
    sinks = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\b|new Function|\bimport\b|\bfetch\b"
    )
    assert not re.search(sinks, code)
    assert not re.search(r'setAttribute\("(style|on)', code)
