"""The JSON endpoints: their bodies, their errors, and the headers that every answer has."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient, WebSocketTestSession

from app.chat.room import Room
from app.wire.frames import HistoryPage

NewClient = Callable[..., TestClient]
PAGES = ["/", "/widget.js", "/docs", "/openapi.json", "/asyncapi.json", "/health", "/api/stats", "/api/history"]
ORIGIN = "https://site.example"


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The statistics fail with a text that no answer may hold."""

    def fail(_: Room) -> int:
        raise RuntimeError("SECRETWORD")

    monkeypatch.setattr(Room, "users", property(fail))


def test_health_names_service_and_version(client: NewClient) -> None:
    answer = client(app_name="My chat", app_version="9.8.7").get("/health")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ok", "service": "My chat", "version": "9.8.7"}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_health_is_degraded_while_messages_cannot_be_stored(
    client: NewClient, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    served = client()
    monkeypatch.setattr(Room, "healthy", False)
    answer = served.request(method, "/health")
    assert answer.status_code == 503
    if method == "GET":
        assert answer.json() == {"status": "degraded", "service": "Portfolio Backend", "version": "0.1.0"}


def test_stats_count_users_and_messages(client: NewClient) -> None:
    served = client()
    assert served.get("/api/stats").json() == {"active_users": 0, "total_messages": 0}
    with (
        served.websocket_connect("/ws/chat?username=ada") as first,
        served.websocket_connect("/ws/chat?username=ada") as second,
        served.websocket_connect("/ws/chat?username=bob"),
    ):
        first.send_json({"type": "message", "content": "Hello"})
        while second.receive_json()["type"] != "message":
            pass
        assert served.get("/api/stats").json() == {"active_users": 2, "total_messages": 1}
    assert served.get("/api/stats").json() == {"active_users": 0, "total_messages": 1}


def say(socket: WebSocketTestSession, content: str) -> dict[str, Any]:
    """The data of the message as it came back."""
    socket.send_json({"type": "message", "content": content})
    while (frame := socket.receive_json())["type"] != "message":
        pass
    data: dict[str, Any] = frame["data"]
    return data


def test_history_shows_what_a_newcomer_sees(client: NewClient) -> None:
    served = client()
    with served.websocket_connect("/ws/chat?username=ada") as ada:
        said = [say(ada, "one"), say(ada, "two <b>")]
        page = served.get("/api/history").json()
        with served.websocket_connect("/ws/chat?username=bob") as bob:
            assert bob.receive_json()["data"] == page["data"] == said
            session = bob.receive_json()["data"]
    assert {name: page[name] for name in ("epoch", "seq", "owner_online", "paused", "slow_mode")} == {
        name: session[name] for name in ("epoch", "seq", "owner_online", "paused", "slow_mode")
    }
    assert page["active_users"] == 1
    HistoryPage.model_validate(page)


def test_history_of_an_empty_room(client: NewClient) -> None:
    page = client().get("/api/history").json()
    assert (page["data"], page["seq"], page["active_users"]) == ([], 0, 0)


@pytest.mark.parametrize(("limit", "texts"), [(1, ["three"]), (2, ["two", "three"]), (1000, ["two", "three"])])
def test_history_has_the_newest_messages_and_no_more_than_a_newcomer_sees(
    client: NewClient, limit: int, texts: list[str]
) -> None:
    served = client(history_limit=2)
    with served.websocket_connect("/ws/chat?username=ada") as ada:
        for text in ("one", "two", "three"):
            say(ada, text)
    assert [data["content"] for data in served.get(f"/api/history?limit={limit}").json()["data"]] == texts


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "since=3"])
def test_history_refuses_what_it_does_not_know(client: NewClient, query: str) -> None:
    answer = client().get(f"/api/history?{query}")
    assert (answer.status_code, answer.json()["error"]["field"]) == (422, query.partition("=")[0])


def test_history_that_has_not_changed_is_304(client: NewClient) -> None:
    served = client()
    first = served.get("/api/history")
    assert first.headers["cache-control"] == "no-cache"
    again = served.get("/api/history", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    with served.websocket_connect("/ws/chat?username=ada") as ada:
        say(ada, "news")
    assert served.get("/api/history", headers={"If-None-Match": first.headers["etag"]}).status_code == 200


@pytest.mark.parametrize("path", PAGES)
def test_head_is_get_without_the_body(client: NewClient, path: str) -> None:
    served = client()
    plain = {"Accept-Encoding": "identity"}
    got, head = served.get(path, headers=plain), served.head(path, headers=plain)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == got.headers["content-type"]
    assert head.headers["content-length"] == got.headers["content-length"] == str(len(got.content))


@pytest.mark.parametrize(
    "path", ["/nope", "/health/", "/api/stats/", "/docs/", "/api", "/ws/chat", "/..%2f", "/health%00"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_unknown_address_is_a_json_404(client: NewClient, path: str, method: str) -> None:
    answer = client().request(method, path, follow_redirects=False)
    assert answer.status_code == 404
    assert_error(answer.json(), "not_found")


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_other_method_is_a_json_405_with_allow(client: NewClient, path: str, method: str) -> None:
    answer = client().request(method, path)
    assert answer.status_code == 405
    assert {name.strip() for name in answer.headers["allow"].split(",")} == {"GET", "HEAD"}
    assert_error(answer.json(), "method_not_allowed")


def test_fault_of_our_own_is_a_json_500_without_details(client: NewClient, broken: None) -> None:
    answer = client().get("/api/stats")
    assert answer.status_code == 500
    assert_error(answer.json(), "internal_server_error")
    assert "SECRETWORD" not in answer.text
    assert "RuntimeError" not in answer.text


def test_fault_of_our_own_shows_its_traceback_for_debug(client: NewClient, broken: None) -> None:
    error = client(debug=True).get("/api/stats").json()["error"]
    assert set(error) == {"code", "message", "traceback"}
    assert error["traceback"][0].startswith("Traceback")
    assert "RuntimeError: SECRETWORD" in error["traceback"][-1]


def assert_error(body: dict[str, Any], code: str) -> None:
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message"}
    assert body["error"]["code"] == code
    assert body["error"]["message"].endswith(".")


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("GET", "/", "text/html; charset=utf-8"),
        ("GET", "/docs", "text/html; charset=utf-8"),
        ("GET", "/openapi.json", "application/json"),
        ("GET", "/asyncapi.json", "application/json"),
        ("GET", "/health", "application/json"),
        ("HEAD", "/health", "application/json"),
        ("GET", "/nope", "application/json"),
        ("POST", "/health", "application/json"),
        ("GET", "/api/stats", "application/json"),
    ],
)
def test_every_answer_says_what_it_is_and_who_may_keep_it(
    client: NewClient, broken: None, method: str, path: str, kind: str
) -> None:
    headers = client().request(method, path).headers
    assert headers["content-type"] == kind
    assert headers["x-content-type-options"] == "nosniff"
    fixed = path in ("/", "/docs", "/openapi.json", "/asyncapi.json")
    assert headers["cache-control"] == ("no-cache" if fixed else "no-store")


@pytest.mark.parametrize(
    ("settings", "allowed", "credentials"),
    [
        ({"cors_origins": ORIGIN}, ORIGIN, "true"),
        ({"cors_origins": f"https://other.example,{ORIGIN}"}, ORIGIN, "true"),
        ({"cors_origins": ORIGIN, "cors_allow_credentials": False}, ORIGIN, None),
        ({"cors_origins": "*"}, "*", None),
        ({"cors_origins": "*", "cors_allow_credentials": True}, "*", None),
        ({"cors_origins": f"{ORIGIN},*"}, "*", None),
        ({"cors_origins": ""}, None, None),
        ({"cors_origins": "https://site.example:8443"}, None, None),
        ({"cors_origins": "http://site.example"}, None, None),
    ],
)
def test_cors_follows_the_settings(
    client: NewClient, settings: dict[str, Any], allowed: str | None, credentials: str | None
) -> None:
    served = client(**settings)
    headers = served.get("/health", headers={"Origin": ORIGIN}).headers
    assert headers.get("access-control-allow-origin") == allowed
    if allowed:
        assert headers.get("access-control-allow-credentials") == credentials
    preflight = served.options("/api/stats", headers={"Origin": ORIGIN, "Access-Control-Request-Method": "GET"})
    assert (preflight.status_code == 200) is (allowed is not None)
    assert preflight.headers.get("access-control-allow-origin") == allowed


@pytest.mark.parametrize(("path", "status"), [("/nope", 404), ("/health", 200), ("/api/stats", 500)])
def test_page_of_an_allowed_origin_may_read_errors_too(client: NewClient, broken: None, path: str, status: int) -> None:
    answer = client(cors_origins=ORIGIN).get(path, headers={"Origin": ORIGIN})
    assert answer.status_code == status
    assert answer.headers.get("access-control-allow-origin") == ORIGIN


@pytest.mark.parametrize("origins", ["*", ORIGIN])
def test_preflight_lets_authorization_and_delete_through(client: NewClient, origins: str) -> None:
    asked = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "DELETE",
        "Access-Control-Request-Headers": "authorization",
    }
    answer = client(cors_origins=origins).options("/api/messages/1", headers=asked)
    assert answer.status_code == 200
    assert "DELETE" in answer.headers["access-control-allow-methods"]
    assert "authorization" in answer.headers["access-control-allow-headers"].lower()
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_preflight_of_another_origin_is_refused(client: NewClient) -> None:
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "GET"}
    answer = client(cors_origins="https://other.example").options("/health", headers=asked)
    assert answer.status_code == 400
    assert "access-control-allow-origin" not in answer.headers
    assert (answer.headers["x-content-type-options"], answer.headers["cache-control"]) == ("nosniff", "no-store")


def test_requests_are_not_logged_by_the_app_itself(client: NewClient, caplog: pytest.LogCaptureFixture) -> None:
    served = client()
    caplog.set_level(logging.DEBUG, "app")
    caplog.clear()
    served.get("/health?secret=1")
    assert not caplog.records
