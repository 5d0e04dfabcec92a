"""The owner's rules as they are stored, and the users that they keep out."""

from __future__ import annotations

import time

import pytest

from app.chat.rules import Ban, BanIndex, Rules


def rules(*bans: Ban) -> Rules:
    return Rules(bans={ban.username.lower(): ban for ban in bans})


def index(*bans: Ban) -> BanIndex:
    return BanIndex(rules(*bans).bans)


def test_new_store_has_no_rules() -> None:
    assert Rules.parse("") == Rules() == Rules.parse("{}")
    assert (Rules().paused, Rules().slow_mode, Rules().bans) == (False, 0.0, {})
    assert Rules().text() == "{}"


def test_rules_are_read_as_they_were_written() -> None:
    far = time.time() + 1000
    kept = rules(Ban(username="Eve", until=far, reason='é "🎉"\n', session="s", address_hash="m"), Ban(username="bob"))
    kept = kept.model_copy(update={"paused": True, "slow_mode": 2.5})
    assert Rules.parse(kept.text()) == kept


def test_address_hash_keeps_its_name_in_stores() -> None:
    text = '{"bans":{"eve":{"username":"eve","mark":"h"}}}'
    kept = rules(Ban(username="eve", address_hash="h"))
    assert Rules.parse(text) == kept
    assert kept.text() == text


def test_rules_that_were_read_last_are_not_read_again() -> None:
    text = rules(Ban(username="eve")).text()
    assert Rules.parse(text) is Rules.parse(text)


def test_ban_that_is_over_holds_no_more_and_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    ban = Ban(username="eve", until=1000.0, session="s", address_hash="m")
    kept = rules(ban, Ban(username="bob"))
    monkeypatch.setattr(time, "time", lambda: 999.9)
    assert kept.ban("EVE") is ban
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    assert kept.ban("eve") is None
    assert list(Rules.parse(kept.text()).bans) == ["bob"]


@pytest.mark.parametrize("who", [("eve", "x", None), ("x", "s", None), ("x", "x", "m")])
def test_ban_ends_by_itself_in_an_index_made_before(
    who: tuple[str, str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = index(Ban(username="eve", until=1000.0, session="s", address_hash="m"))
    monkeypatch.setattr(time, "time", lambda: 999.9)
    assert known.refuses(*who)
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    assert not known.refuses(*who)


@pytest.mark.parametrize("later", [2000.0, None])
@pytest.mark.parametrize("longest_first", [True, False])
def test_of_two_bans_of_one_address_the_longer_one_holds(
    later: float | None, longest_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bans = [Ban(username="eve", until=later, address_hash="m"), Ban(username="bob", until=1000.0, address_hash="m")]
    known = index(*(bans if longest_first else bans[::-1]))
    monkeypatch.setattr(time, "time", lambda: 1500.0)
    assert known.refuses("x", "x", "m")


@pytest.mark.parametrize(
    ("username", "session", "address_hash", "refused"),
    [
        ("eve", "x", None, True),
        ("EvE", "x", "", True),
        ("ada", "s", None, True),
        ("ada", "x", "m", True),
        ("ada", "x", "other", False),
        ("eve2", "x", None, False),
        ("s", "m", "eve", False),
    ],
)
def test_name_session_and_address_are_each_enough(
    username: str, session: str, address_hash: str | None, refused: bool
) -> None:
    assert index(Ban(username="Eve", session="s", address_hash="m")).refuses(username, session, address_hash) is refused


@pytest.mark.parametrize("address_hash", ["", None])
def test_what_is_not_known_of_a_banned_user_matches_nobody(address_hash: str | None) -> None:
    """An address that must not be banned is not the one of a ban without an address."""
    assert not index(Ban(username="eve"), Ban(username="bob", address_hash="", session="")).refuses(
        "ada", "x", address_hash
    )


@pytest.mark.parametrize(
    ("before", "after", "extends"),
    [
        ([], [], False),
        ([], [Ban(username="eve")], True),
        ([Ban(username="eve")], [Ban(username="eve", reason="a note")], False),
        ([Ban(username="eve"), Ban(username="bob")], [Ban(username="eve")], False),
        ([Ban(username="eve")], [Ban(username="bob")], True),
        ([Ban(username="eve", until=5.0)], [Ban(username="eve")], True),
        ([Ban(username="eve")], [Ban(username="eve", session="s")], True),
        ([Ban(username="eve")], [Ban(username="eve", address_hash="m")], True),
    ],
)
def test_index_extends_one_that_refuses_less(before: list[Ban], after: list[Ban], extends: bool) -> None:
    assert index(*after).extends(index(*before)) is extends
