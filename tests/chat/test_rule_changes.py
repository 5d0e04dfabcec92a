"""What a change of the owner's rules costs: counted, because times differ from machine to machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from app.chat.credentials import Credentials
from app.chat.rules import Ban, BanIndex, Rules
from app.chat.timing import RoomTiming
from app.exceptions import Banned, CloseCode
from tests.support.chat import RunningChat, StartChat
from tests.support.fakes import FakeSender

pytestmark = pytest.mark.anyio

LOOK_UP, HASH, BAN = "look-up", "hash", "ban"
MAX_BANS = RoomTiming().max_bans


@pytest.fixture
async def chat(start_chat: StartChat) -> RunningChat:
    return await start_chat(ws_max_connections=1000)


def enter(chat: RunningChat, name: str) -> FakeSender:
    """A visitor with an address of its own."""
    address = f"203.0.113.{len(chat.registry)}"
    return chat.join(name, address, address).sender


def enter_many(chat: RunningChat, count: int) -> list[FakeSender]:
    return [enter(chat, f"visitor{number}") for number in range(count)]


async def ban_many(chat: RunningChat, count: int, **of_each: Any) -> None:
    """Puts so many bans in the place of those before."""
    bans = {f"b{number}": Ban(username=f"b{number}", **of_each) for number in range(count)}
    await chat.replace_rules(Rules(bans=bans))


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a connection is looked up among the bans, an address is hashed, and a ban itself is looked at."""
    counts: Counter[str] = Counter()

    def counted(what: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any) -> Any:
            counts[what] += 1
            return original(*args)

        return wrapper

    monkeypatch.setattr(BanIndex, "refuses", counted(LOOK_UP, BanIndex.refuses))
    monkeypatch.setattr(Credentials, "address_hash", counted(HASH, Credentials.address_hash))
    monkeypatch.setattr(Ban, "__getattribute__", counted(BAN, Ban.__getattribute__))
    return counts


async def test_change_that_bans_nobody_looks_at_no_connection(chat: RunningChat, count: Counter[str]) -> None:
    await ban_many(chat, MAX_BANS, address_hash="m")
    enter_many(chat, 50)
    count.clear()
    await chat.moderation.set_room(paused=True, slow_mode=3.0)
    await chat.moderation.lift("b7")
    assert (count[LOOK_UP], count[HASH]) == (0, 0)


async def test_new_ban_looks_at_each_connection_once(chat: RunningChat, count: Counter[str]) -> None:
    await ban_many(chat, MAX_BANS - 1)
    enter_many(chat, 50)
    count.clear()
    await chat.moderation.ban("eve", None, True, None)
    assert count[LOOK_UP] == 50


async def test_how_often_bans_are_looked_at_does_not_depend_on_the_connections(
    chat: RunningChat, count: Counter[str]
) -> None:
    looks = []
    for visitors in (["ada"], [f"visitor{number}" for number in range(50)]):
        for visitor in visitors:
            enter(chat, visitor)
        await ban_many(chat, 0)
        count.clear()
        await ban_many(chat, 100, address_hash="m", session="s")
        looks.append(count[BAN])
    assert looks[0] == looks[1]


async def test_newcomer_is_checked_without_looking_at_a_ban(chat: RunningChat, count: Counter[str]) -> None:
    await ban_many(chat, MAX_BANS, address_hash="m")
    count.clear()
    enter(chat, "ada")
    assert (count[LOOK_UP], count[BAN]) == (2, 0)  # when it is admitted, and when it joins


async def test_address_of_a_connection_is_hashed_once_however_often_bans_change(
    chat: RunningChat, count: Counter[str]
) -> None:
    enter_many(chat, 20)
    for number in range(5):
        await ban_many(chat, number + 1, address_hash="m")
    assert count[HASH] == 20


async def test_no_address_is_hashed_while_none_is_banned(chat: RunningChat, count: Counter[str]) -> None:
    await ban_many(chat, 10)
    enter_many(chat, 20)
    await ban_many(chat, 20)
    assert count[HASH] == 0


async def test_ban_of_an_address_removes_all_who_come_from_it(chat: RunningChat) -> None:
    eve, ada = enter_many(chat, 2)
    await ban_many(chat, 1, address_hash=Credentials(chat.settings, chat.opened.secret).address_hash("203.0.113.0"))
    assert (eve.code, ada.code) == (CloseCode.REMOVED, None)


async def test_address_bans_of_a_store_with_another_secret_are_compared_with_new_hashes(chat: RunningChat) -> None:
    eve, _ = enter_many(chat, 2)
    await ban_many(chat, 1, address_hash="m")  # so that the hashes are known
    address_hash = Credentials(chat.settings, "another secret").address_hash("203.0.113.0")
    rules = Rules(bans={"x": Ban(username="x", address_hash=address_hash)})
    chat.reset(secret="another secret", rules=rules.text())
    await eve.until("error")
    assert eve.code is CloseCode.REMOVED


@pytest.mark.parametrize("epoch", [{}, {"epoch": "another"}])
async def test_another_store_sends_away_the_visitors_whom_it_does_not_ban(
    chat: RunningChat, epoch: dict[str, str]
) -> None:
    eve, ada = enter_many(chat, 2)
    chat.reset(rules=Rules(bans={"visitor0": Ban(username="visitor0")}).text(), **epoch)
    await ada.closed_with(CloseCode.RESTART)
    assert eve.code is CloseCode.REMOVED


async def test_ban_holds_for_newcomers_before_all_connections_are_looked_at(
    chat: RunningChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[str] = []

    async def remove_banned() -> None:
        with pytest.raises(Banned):
            enter(chat, "eve")
        refused.append("eve")

    monkeypatch.setattr(chat.room.announcer, "remove_banned", remove_banned)
    await chat.moderation.ban("eve", None, False, None)
    assert refused == ["eve"]
