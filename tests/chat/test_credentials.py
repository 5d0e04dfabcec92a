"""Tokens and reserved names."""

from __future__ import annotations

import re

import pytest

from app.chat.credentials import Credentials, Handshake
from app.exceptions import UsernameReserved
from tests.support.chat import settings_of

OWNER = "o" * 32
SETTINGS = settings_of(owner_token=OWNER, reserved_usernames="system,admin,mod,bot", forwarded_allow_ips="198.51.100.1")
SECRET = "secret of this store"


@pytest.fixture
def credentials() -> Credentials:
    return Credentials(SETTINGS, SECRET)


def test_session_token_proves_its_name_in_any_case(credentials: Credentials) -> None:
    token = credentials.issue("Ada", "a-session")
    assert token.startswith("s1.Ada.")
    assert re.fullmatch(r"[A-Za-z0-9._-]+", token)  # fit to be a subprotocol (RFC 7230, token)
    assert credentials.session_of(token, "ADA") == "a-session"


def test_session_token_is_worth_nothing_for_another_name_or_under_another_secret(credentials: Credentials) -> None:
    token = credentials.issue("ada", "a-session")
    assert credentials.session_of(token, "bob") is None
    assert Credentials(SETTINGS, "another secret").session_of(token, "ada") is None


@pytest.mark.parametrize("position", range(len("s1.ada.a-session.") + 43))
def test_session_token_with_one_character_changed_is_forged(credentials: Credentials, position: int) -> None:
    token = credentials.issue("ada", "a-session")
    forged = token[:position] + ("B" if token[position] == "A" else "A") + token[position + 1 :]
    last_bits = position == len(token) - 1  # base64 has two bits to spare in the last character
    assert credentials.session_of(forged, "ada") is None or last_bits


@pytest.mark.parametrize("bearer", [None, "", "s1.", "s1.ada", "s1.ada.x.", "s1.ada.x.y.z", "....", "s1.é.x.y"])
def test_nonsense_proves_nothing(credentials: Credentials, bearer: str | None) -> None:
    assert credentials.session_of(bearer, "ada") is None


def test_only_the_owner_s_token_makes_the_owner(credentials: Credentials) -> None:
    assert credentials.is_owner(OWNER)
    for bearer in (None, "", OWNER[:-1], OWNER + "o", credentials.issue("owner", "owner"), "é"):
        assert not credentials.is_owner(bearer)
    assert not Credentials(settings_of(), SECRET).is_owner("")
    assert credentials.session_of(credentials.issue("ada", "owner")) is None


@pytest.mark.parametrize(
    "name", ["admin", "ADMIN", "ad-min", "_admin_", "adm1n", "admln", "0wner", "B0T", "m-0-d", "bo_t"]
)
def test_reserved_name_and_its_look_alikes_are_refused(credentials: Credentials, name: str) -> None:
    with pytest.raises(UsernameReserved):
        credentials.check_reserved(name)


@pytest.mark.parametrize("name", ["ada", "admins", "robot", "modern", "owners", "0", "1", "-", "model"])
def test_other_name_is_free(credentials: Credentials, name: str) -> None:
    credentials.check_reserved(name)


def test_secret_key_signs_in_the_place_of_the_store_s_secret(credentials: Credentials) -> None:
    keyed = settings_of(secret_key="a secret key of some length")
    token = Credentials(keyed, SECRET).issue("ada", "a-session")
    assert Credentials(keyed, "another secret").session_of(token, "ada") == "a-session"
    assert credentials.session_of(token, "ada") is None


def test_address_hash_can_be_compared_and_not_read(credentials: Credentials) -> None:
    first, same, other = map(credentials.address_hash, ("203.0.113.7", "203.0.113.7", "203.0.113.8"))
    assert first == same != other
    assert "203.0.113.7" not in first
    assert Credentials(SETTINGS, "another secret").address_hash("203.0.113.7") != first


@pytest.mark.parametrize("limit_key", [None, "127.0.0.1", "::/64", "198.51.100.1"])
def test_address_that_may_be_shared_has_no_hash(credentials: Credentials, limit_key: str | None) -> None:
    assert credentials.address_hash(limit_key) == ""


def test_handshake_knows_its_subprotocols() -> None:
    handshake = Handshake("ada", "1.2.3.4", None, ("chat.v1", "bearer.s1.x"))
    assert (handshake.supports_tokens, handshake.bearer) == (True, "s1.x")
    assert (Handshake("ada", "1.2.3.4", None).supports_tokens, Handshake("ada", "1.2.3.4", None).bearer) == (
        False,
        None,
    )
