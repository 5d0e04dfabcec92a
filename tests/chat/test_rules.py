"""The owner's rules as they are kept, and whom they keep out."""

from __future__ import annotations

import time

import pytest

from app.chat.rules import Ban, Rules


def rules(*bans: Ban) -> Rules:
    return Rules(bans={ban.username.lower(): ban for ban in bans})


def test_new_store_has_no_rules() -> None:
    assert Rules.parse("") == Rules() == Rules.parse("{}")
    assert (Rules().paused, Rules().slow_mode, Rules().bans) == (False, 0.0, {})
    assert Rules().text() == "{}"


def test_rules_are_read_as_they_were_written() -> None:
    far = time.time() + 1000
    kept = rules(Ban(username="Eve", until=far, reason='é "🎉"\n', session="s", mark="m"), Ban(username="bob"))
    kept = kept.model_copy(update={"paused": True, "slow_mode": 2.5})
    assert Rules.parse(kept.text()) == kept


def test_ban_that_is_over_holds_no_more_and_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    ban = Ban(username="eve", until=1000.0, session="s", mark="m")
    kept = rules(ban, Ban(username="bob"))
    monkeypatch.setattr(time, "time", lambda: 999.9)
    assert kept.ban("EVE") is ban
    assert kept.refuse("x", "s", None)
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    assert kept.ban("eve") is None
    assert not any((kept.refuse("eve", "x", None), kept.refuse("x", "s", None), kept.refuse("x", "x", "m")))
    assert list(Rules.parse(kept.text()).bans) == ["bob"]


@pytest.mark.parametrize(
    ("username", "session", "mark", "refused"),
    [
        ("eve", "x", None, True),
        ("EvE", "x", "", True),
        ("ada", "s", None, True),
        ("ada", "x", "m", True),
        ("ada", "x", "other", False),
        ("eve2", "x", None, False),
    ],
)
def test_name_session_and_address_are_each_enough(username: str, session: str, mark: str | None, refused: bool) -> None:
    assert rules(Ban(username="Eve", session="s", mark="m")).refuse(username, session, mark) is refused


@pytest.mark.parametrize("mark", ["", None])
def test_what_is_not_known_of_a_banned_user_is_nobody_s(mark: str | None) -> None:
    """An address that must not be banned is not the one of a ban without an address."""
    assert not rules(Ban(username="eve"), Ban(username="bob", mark="", session="")).refuse("ada", "x", mark)
