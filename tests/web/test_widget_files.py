"""The widget's files: how they are served, how large they are, and what they keep away from."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.exceptions import reconnects
from app.web.pages import STATIC
from tests.conftest import need_service

NewClient = Callable[..., TestClient]
FILES = ["widget.js", *sorted(f"widget/{path.name}" for path in (STATIC / "widget").iterdir())]
CHAT = [file for file in FILES[1:] if "owner" not in file]


def size(file: str) -> int:
    """What a browser downloads, in bytes."""
    return len(gzip.compress((STATIC / file).read_bytes(), 9, mtime=0))


def read(file: str) -> str:
    return (STATIC / file).read_text(encoding="utf-8")


def test_button_is_at_most_5_kib(client: NewClient) -> None:
    assert size("widget.js") <= 5 * 1024
    assert int(client().head("/widget.js").headers["content-length"]) == size("widget.js")


def test_chat_that_is_loaded_when_it_is_opened_is_at_most_24_kib() -> None:
    assert sum(map(size, CHAT)) <= 24 * 1024


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("encoding", ["gzip, br", "identity", ""])
def test_files_are_for_every_page(client: NewClient, encoding: str, file: str) -> None:
    answer = client().get(f"/{file}", headers={"Accept-Encoding": encoding})
    assert answer.content == (STATIC / file).read_bytes()
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["cache-control"] == "public, max-age=300"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert answer.headers["vary"].startswith("Accept-Encoding")
    assert answer.headers.get("content-encoding") == ("gzip" if "gzip" in encoding else None)


@pytest.mark.parametrize("file", CHAT)
@pytest.mark.parametrize("origin", ["https://listed.example", "https://stranger.example"])
def test_modules_may_be_imported_by_any_page_so_that_the_chat_can_say_what_is_wrong(
    client: NewClient, file: str, origin: str
) -> None:
    answer = client(cors_origins=("https://listed.example",)).get(f"/{file}", headers={"Origin": origin})
    assert answer.headers["access-control-allow-origin"] in ("*", origin)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("known", ["{}", "W/{}", '"other", {}', "*"])
def test_file_that_is_known_is_not_sent_again(client: NewClient, method: str, known: str, file: str) -> None:
    served = client()
    etag = served.get(f"/{file}").headers["etag"]
    asked = known.format(etag.removeprefix("W/"))
    answer = served.request(method, f"/{file}", headers={"If-None-Match": asked})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert answer.headers["cache-control"] == "public, max-age=300"


@pytest.mark.parametrize("known", ['"other"', "", '"', "W/"])
def test_file_that_is_not_known_is_sent(client: NewClient, known: str) -> None:
    assert client().get("/widget.js", headers={"If-None-Match": known}).text == read("widget.js")


@pytest.mark.parametrize("path", ["/widget/", "/widget/other.js", "/widget/..%2Findex.html", "/widget/%2e%2e/main.py"])
def test_nothing_else_is_served(client: NewClient, path: str) -> None:
    assert client().get(path).status_code == 404


@pytest.mark.parametrize("file", FILES)
def test_widget_makes_no_html(file: str) -> None:
    code = read(file)
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\b|new Function", code
    )
    assert not re.search(r'setAttribute\("(style|on)', code)


def test_requests_are_made_in_three_places() -> None:
    """A look at what is new, the server's API, and the question why nothing answers."""
    assert {file: len(re.findall(r"\bfetch\(", read(file))) for file in FILES if "fetch(" in read(file)} == {
        "widget.js": 1,
        "widget/room.js": 2,
    }


@pytest.mark.parametrize("file", FILES)
def test_nothing_comes_from_elsewhere(file: str) -> None:
    imported = re.findall(r'(?:from |import\()"([^"]+)"', read(file))
    assert all((STATIC / "widget" / name).exists() and name.startswith("./") for name in imported)


def test_owner_s_tools_leave_the_visitor_s_storage_alone() -> None:
    assert not re.search(r"localStorage|sessionStorage\W*[.\[(]|console", read("widget/owner.js"))


def test_widget_and_server_agree_after_which_close_codes_a_client_comes_back() -> None:
    (final,) = re.findall(r"if \(/(\^.*?\$)/\.test\(code\)\)", read("widget/connection.js"))
    codes = range(1000, 5000)
    assert [code for code in codes if bool(re.search(final, str(code))) is reconnects(code)] == []


@pytest.mark.parametrize("file", FILES)
def test_language_is_as_old_as_promised(packages: Path, file: str) -> None:
    """The button is understood by browsers of 2018, so that it can say what is wrong; the rest by those of 2022."""
    need_service(shutil.which("node") is not None, "node is not installed")
    options = {"ecmaVersion": 2020 if file == "widget.js" else 2022, "sourceType": "module"}
    script = "const [, acorn, file, options] = process.argv; const { parse } = require(acorn);"
    script += "parse(require('fs').readFileSync(file, 'utf8'), JSON.parse(options))"
    command = ["node", "-e", script, str(packages / "acorn"), str(STATIC / file), json.dumps(options)]
    assert subprocess.run(command, capture_output=True, text=True, check=False).stderr == ""
    if file == "widget.js":
        assert not re.search(r"\?\.[a-z\[(]|\?\?|\w \*\* |catch \{|#[a-z]+ = |static \w+ =", read(file))
