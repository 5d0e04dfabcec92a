"""The widget and the owner's tools as files: how they are served, and how large the widget is."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from app.exceptions import reconnects
from app.web.pages import STATIC

NewClient = Callable[..., TestClient]
SOURCE = (STATIC / "widget.js").read_bytes()
FILES = ["widget.js", "owner.js"]


def test_widget_is_at_most_10_kib(client: NewClient) -> None:
    assert len(gzip.compress(SOURCE, 9)) <= 10 * 1024
    assert int(client().head("/widget.js").headers["content-length"]) <= 10 * 1024


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("encoding", ["gzip, br", "identity", ""])
def test_widget_is_for_every_page(client: NewClient, encoding: str, file: str) -> None:
    answer = client().get(f"/{file}", headers={"Accept-Encoding": encoding})
    assert answer.content == (STATIC / file).read_bytes()
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["cache-control"] == "public, max-age=300"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert answer.headers["vary"].startswith("Accept-Encoding")
    assert answer.headers.get("content-encoding") == ("gzip" if "gzip" in encoding else None)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("known", ["{}", "W/{}", '"other", {}', "*"])
def test_widget_that_is_known_is_not_sent_again(client: NewClient, method: str, known: str, file: str) -> None:
    served = client()
    etag = served.get(f"/{file}").headers["etag"]
    asked = known.format(etag.removeprefix("W/"))
    answer = served.request(method, f"/{file}", headers={"If-None-Match": asked})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert answer.headers["cache-control"] == "public, max-age=300"


@pytest.mark.parametrize("known", ['"other"', "", '"', "W/"])
def test_widget_that_is_not_known_is_sent(client: NewClient, known: str) -> None:
    assert client().get("/widget.js", headers={"If-None-Match": known}).content == SOURCE


@pytest.mark.parametrize("file", FILES)
def test_widget_makes_no_html(file: str) -> None:
    code = (STATIC / file).read_text(encoding="utf-8")
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\b|new Function", code
    )
    assert not re.search(r'setAttribute\("(style|on)', code)


def test_widget_needs_nothing_but_the_owner_s_tools() -> None:
    code = SOURCE.decode()
    assert re.findall(r"\bimport\b.*|\bfetch\b.*", code) == [
        'import(new URL("owner.js", this.connection.server)).then('
    ]
    tools = (STATIC / "owner.js").read_text(encoding="utf-8")
    assert not re.search(r"\bimport\b(?!\.meta\.url)|localStorage|console", tools)
    assert len(re.findall(r"\bfetch\b", tools)) == 1


def test_widget_and_server_agree_after_which_close_codes_a_client_comes_back() -> None:
    (final,) = re.findall(rb"if \(/(\^.*?\$)/\.test\(code\)\)", SOURCE)
    codes = range(1000, 5000)
    assert [code for code in codes if bool(re.search(final.decode(), str(code))) is reconnects(code)] == []
