"""What is wrong with an owner's request, and how it is told, at the wire of a real server."""

from __future__ import annotations

from tests.support.owner import NOBODY, UNKNOWN, ask, done, fault, page, post
from tests.support.running import RunningServer

BAD: list[tuple[str, str, object, str | None]] = [
    ("POST", "/api/messages", {}, "content"),
    ("POST", "/api/messages", {"content": 7}, "content"),
    ("POST", "/api/messages", {"content": " \u200b "}, "content"),
    ("POST", "/api/messages", {"content": "x" * 1001}, "content"),
    ("POST", "/api/messages", {"content": "<script>"}, "content"),
    ("POST", "/api/messages", {"content": "x", "nonce": "not a nonce"}, "nonce"),
    ("POST", "/api/messages", {"content": "x", "nonce": ""}, "nonce"),
    ("POST", "/api/messages", {"content": "x", "username": "ada"}, "username"),
    ("POST", "/api/messages", b"no JSON", None),
    ("POST", "/api/messages", b"", "content"),
    ("POST", "/api/messages", b'{"content": "\xff"}', None),
    ("POST", "/api/messages", b'{"content": "\\ud800"}', None),
    ("POST", "/api/messages", b"[" * 5000, None),
    ("POST", "/api/messages", ["content"], None),
    *(("GET", f"/api/messages?limit={limit}", None, "limit") for limit in ("0", "1001", "-1", "many", "1.5", "")),
    *(("GET", f"/api/messages?after={after}", None, "after") for after in ("-1", str(2**53 + 1), "x", "NaN")),
    *(("GET", f"/api/messages?last={last}", None, "last") for last in ("0", "1001", "x")),
    *(("GET", f"/api/messages?last=2&{more}", None, "last") for more in ("after=3", "limit=1")),
    ("GET", "/api/messages?before=5", None, "before"),
    ("DELETE", "/api/messages?username=ada&id=5", None, "id"),
    ("DELETE", "/api/messages", None, "username"),
    ("DELETE", "/api/messages?username=", None, "username"),
    *(("PUT", "/api/bans/ada", {"seconds": seconds}, "seconds") for seconds in (0, -1, 1e300, "60", True)),
    ("PUT", "/api/bans/ada", b'{"seconds": NaN}', "seconds"),
    ("PUT", "/api/bans/ada", b'{"seconds": Infinity}', "seconds"),
    ("PUT", "/api/bans/ada", {"address": "yes"}, "address"),
    ("PUT", "/api/bans/ada", {"reason": "x" * 501}, "reason"),
    ("PUT", "/api/bans/ada", {"until": 1}, "until"),
    ("PUT", "/api/bans/ada", [], None),
    ("PUT", "/api/bans/a%20b", {}, "username"),
    ("PUT", f"/api/bans/{'x' * 51}", {}, "username"),
    ("PUT", "/api/bans/owner", {}, "username"),
    ("PUT", "/api/bans/OWNER", {}, "username"),
    ("PATCH", "/api/room", {"paused": 1}, "paused"),
    ("PATCH", "/api/room", {"slow_mode": -1}, "slow_mode"),
    ("PATCH", "/api/room", {"slow_mode": 86_401}, "slow_mode"),
    ("PATCH", "/api/room", {"owner_online": True}, "owner_online"),
    ("PATCH", "/api/room", b"{", None),
]


def test_refusal_names_the_field(refusing: RunningServer) -> None:
    before = page(refusing), done(ask(refusing, "GET", "/api/bans"))
    wrong = [
        (method, path, body, field)
        for method, path, body, field in BAD
        if (answer := fault(ask(refusing, method, path, body)))[0] != 422 or answer[2] != field
    ]
    assert wrong == []
    assert (page(refusing), done(ask(refusing, "GET", "/api/bans"))) == before
    assert "Traceback" not in refusing.log()


def test_refusal_does_not_quote_what_was_sent(refusing: RunningServer) -> None:
    for body, words in (
        (b'{"content": "two\nlines"}', "The body is not JSON."),
        (b"[]", "The body must be a JSON object."),
        ({"content": "x", "nonce": "<no>"}, '"nonce" must be 1 to 64 of the characters A-Z, a-z, 0-9, - and _.'),
    ):
        message = ask(refusing, "POST", "/api/messages", body).json()["error"]["message"]
        assert words in message
        assert "<no>" not in message


def test_where_all_may_be_left_out_so_may_the_body(refusing: RunningServer) -> None:
    ban = done(ask(refusing, "PUT", "/api/bans/kim"))
    assert ban == {"username": "kim", "until": None, "address": False, "reason": None}
    assert done(ask(refusing, "DELETE", "/api/bans/kim")) == ban
    assert done(ask(refusing, "PATCH", "/api/room"))["paused"] is False


def test_what_is_not_there_is_404(refusing: RunningServer) -> None:
    for method, path in (("DELETE", UNKNOWN), ("DELETE", "/api/messages/x"), ("GET", NOBODY), ("DELETE", NOBODY)):
        assert fault(ask(refusing, method, path))[:2] == (404, "not_found")
    message = post(refusing, "Hello")
    assert done(ask(refusing, "DELETE", f"/api/messages/{message['id']}")) == {"hidden": 1}
    assert fault(ask(refusing, "DELETE", f"/api/messages/{message['id']}"))[0] == 404
    assert done(ask(refusing, "DELETE", "/api/messages?username=nobody")) == {"hidden": 0}


def test_body_over_64_kib_is_413_and_only_for_the_owner(refusing: RunningServer) -> None:
    at_most = b'{"content": "' + b"x" * 65_521 + b'"}'
    for method, path in (("POST", "/api/messages"), ("PUT", NOBODY), ("PATCH", "/api/room")):
        assert ask(refusing, method, path, at_most).status_code == 422
        assert fault(ask(refusing, method, path, at_most + b" "))[:2] == (413, "request_too_large")
        assert fault(ask(refusing, method, path, at_most * 100))[0] == 413
        assert fault(ask(refusing, method, path, at_most + b" ", token=None))[0] == 401


def test_other_methods_are_405_with_those_that_there_are(refusing: RunningServer) -> None:
    asked_for = [
        *(("PUT", "/api/messages"), ("GET", "/api/messages/mine"), ("GET", UNKNOWN), ("POST", "/api/bans")),
        *(("POST", NOBODY), ("DELETE", "/api/room")),
    ]
    refused = [ask(refusing, *request, token=None) for request in asked_for]
    assert {fault(answer)[:2] for answer in refused} == {(405, "method_not_allowed")}
    allowed = [" ".join(sorted(answer.headers["Allow"].split(", "))) for answer in refused]
    assert allowed == ["DELETE GET HEAD POST", "DELETE", "DELETE", "GET HEAD", "DELETE GET HEAD PUT", "GET HEAD PATCH"]
