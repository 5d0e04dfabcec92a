"""The exceptions against the wire contract: their codes, their sentences, and when to come back."""

from __future__ import annotations

from typing import Any

import pytest

from app.exceptions import (
    ChatError,
    CloseCode,
    ConnectionRefused,
    InvalidRequest,
    InvalidUsername,
    MessageTooLong,
    NotFound,
    RateLimited,
    RequestRefused,
    ServerFull,
    SlowMode,
    reconnects,
)

# The contract's table of close codes, with "any other 1xxx" for 1011.
RECONNECT = {
    1000: False,
    1001: True,
    1008: False,
    1009: False,
    1011: True,
    1012: True,
    1013: True,
    4000: True,
    4001: True,
    4500: False,
    4501: False,
}
CONTRACT_CODES = {
    "server_full", "too_many_connections", "rate_limited", "invalid_username", "invalid_token", "username_reserved",
    "username_taken", "banned", "invalid_frame", "unsupported_data", "empty_message", "message_too_long",
    "blocked_content", "nonce_reused", "unavailable", "paused", "slow_mode",
}  # fmt: skip
HTTP_CODES = {"unauthorized": 401, "forbidden": 403, "not_found": 404, "hidden": 410, "invalid_request": 422}
HTTP_CODES |= {"request_too_large": 413, "origin_not_allowed": 403, "restarting": 503}
ARGUMENTS: dict[type[ChatError], tuple[Any, ...]] = {
    RateLimited: (1.5,),
    SlowMode: (1.5,),
    NotFound: ("There is nothing.",),
    InvalidRequest: ("limit", "That is too much."),
    MessageTooLong: (1001, 1000),
    InvalidUsername: (50,),
}


def kinds(root: type[ChatError] = ChatError) -> list[type[ChatError]]:
    return [kind for child in root.__subclasses__() for kind in (child, *kinds(child))]


CONCRETE = [kind for kind in kinds() if kind not in (ConnectionRefused, RequestRefused)]


def made(kind: type[ChatError]) -> ChatError:
    return kind(*ARGUMENTS.get(kind, ()))


@pytest.mark.parametrize("code", list(CloseCode))
def test_close_code_says_whether_to_reconnect(code: CloseCode) -> None:
    assert reconnects(code) is RECONNECT[code]


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1009, 1012, 1013, 4000, 4001])
def test_close_code_of_the_contract_is_known(code: int) -> None:
    assert CloseCode(code) == code


@pytest.mark.parametrize("kind", CONCRETE)
def test_chat_error_has_a_code_of_the_contract_and_a_sentence(kind: type[ChatError]) -> None:
    error = made(kind)
    assert error.code in CONTRACT_CODES or HTTP_CODES[error.code] == error.status
    assert str(error)[0].isupper()
    assert str(error).endswith(".")
    assert error.retry_after is None or error.retry_after > 0


def test_codes_are_unique() -> None:
    codes = [kind.code for kind in CONCRETE]
    assert len(codes) == len(set(codes)) >= 10


@pytest.mark.parametrize("kind", [kind for kind in CONCRETE if issubclass(kind, ConnectionRefused)])
def test_refused_connection_closes_with_1013_when_full_else_1008(kind: type[ConnectionRefused]) -> None:
    full = kind.code in ("server_full", "too_many_connections", "rate_limited")
    assert kind.close_code == (1013 if full else 1008)


def test_sentence_may_be_replaced_and_holds_the_numbers() -> None:
    assert str(ServerFull("Other words.")) == "Other words."
    assert "1001" in str(MessageTooLong(1001, 1000))
    assert "1000" in str(MessageTooLong(1001, 1000))
    assert "50" in str(InvalidUsername(50))
