"""Origins and addresses, as security.py tells them apart."""

from __future__ import annotations

import pytest

from app.security import limit_key, origin_allowed, origin_of

OWN = ["http://localhost:8000", "https://chat.example.com"]
LISTED = ["https://site.example", "http://[::1]:3000"]


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://a.example", ("https", "a.example", 443)),
        ("https://a.example:443", ("https", "a.example", 443)),
        ("https://a.example/", ("https", "a.example", 443)),
        ("https://a.example:0", ("https", "a.example", 0)),
        ("https://a.example//", None),
        ("HTTP://A.Example:8000", ("http", "a.example", 8000)),
        ("http://[::1]:3000", ("http", "::1", 3000)),
        ("app://localhost", ("app", "localhost", 0)),
        ("null", None),
        ("", None),
        ("https://", None),
        ("https://user@a.example", None),
        ("https://a.example/path", None),
        ("https://a.example?x", None),
        ("https://a.example:port", None),
        ("https://a.example:99999", None),
        ("https://[::1", None),
    ],
)
def test_origin_is_scheme_host_and_port(text: str, origin: tuple[str, str, int] | None) -> None:
    assert origin_of(text) == origin


@pytest.mark.parametrize(
    "sent", [[], ["http://localhost:8000"], ["https://chat.example.com:443"], [LISTED[0]], [LISTED[1]]]
)
def test_own_and_listed_origins_and_no_browser_are_let_in(sent: list[str]) -> None:
    assert origin_allowed(sent, OWN, LISTED)


@pytest.mark.parametrize(
    "sent",
    [["null"], [""], ["http://localhost"], ["https://localhost:8000"], ["http://site.example"], [LISTED[0], LISTED[0]]],
)
def test_any_other_origin_and_two_at_once_are_not(sent: list[str]) -> None:
    assert not origin_allowed(sent, OWN, LISTED)
    assert origin_allowed(sent, OWN, ["*"])


def test_nothing_is_the_same_origin_as_an_empty_public_url() -> None:
    assert not origin_allowed(["null"], ["", "http://"], [])


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("127.0.0.1", "127.0.0.1"),
        ("", None),
        ("/run/chat.sock", None),
    ],
)
def test_limits_count_by_address_and_by_64_bits_of_ipv6(host: str, key: str | None) -> None:
    assert limit_key(host, hidden=False) == key


@pytest.mark.parametrize(
    ("host", "limited"),
    [
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("::1", False),
        ("fd00::1", False),
        ("100.64.0.1", False),
        ("8.8.8.8", True),
    ],
)
def test_private_peer_that_hides_its_visitors_is_not_limited(host: str, limited: bool) -> None:
    assert (limit_key(host, hidden=True) is not None) is limited
