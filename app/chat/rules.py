"""The owner's rules: who is banned, whether the room is paused, how slow it is.

The store keeps them as one JSON text, so that each change of them is whole.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from functools import lru_cache

from pydantic import AliasChoices, BaseModel, ConfigDict, Field


class Ban(BaseModel):
    """Keeps a user out, until then (Unix seconds, None for good). `reason` is the owner's own note.

    `session` and `address_hash` (see Credentials.address_hash) are the banned user's, if they were known.
    """

    model_config = ConfigDict(frozen=True)

    username: str
    until: float | None = None
    reason: str | None = None
    session: str | None = None
    address_hash: str | None = Field(  # "mark" is its name in stores since version 0.1.0
        default=None, validation_alias=AliasChoices("address_hash", "mark"), serialization_alias="mark"
    )

    def holds(self) -> bool:
        """Whether the ban is not over yet."""
        return self.until is None or time.time() < self.until


class Rules(BaseModel):
    """`paused`: only the owner posts. `slow_mode`: seconds between two messages of a visitor. `bans`: by name."""

    model_config = ConfigDict(frozen=True)

    paused: bool = False
    slow_mode: float = 0.0
    bans: dict[str, Ban] = {}

    @staticmethod
    @lru_cache(maxsize=1)  # they are looked at for each message, and change seldom
    def parse(text: str) -> Rules:
        """The rules that a store keeps; an empty text of a new store has none."""
        return Rules.model_validate_json(text) if text else Rules()

    def text(self) -> str:
        """The rules as a store keeps them, without bans that are over."""
        bans = {name: ban for name, ban in self.bans.items() if ban.holds()}
        return self.model_copy(update={"bans": bans}).model_dump_json(exclude_defaults=True, by_alias=True)

    def ban(self, username: str) -> Ban | None:
        """The ban of this name, unless it is over."""
        ban = self.bans.get(username.lower())
        return ban if ban and ban.holds() else None


class BanIndex:
    """Bans by username, session and address hash. A look-up takes the same time however many there are."""

    def __init__(self, bans: Mapping[str, Ban]) -> None:
        # Of each key until when it is banned, in Unix seconds: a ban that is over stays until the rules change.
        self._usernames: dict[str, float] = {}
        self._sessions: dict[str, float] = {}
        self._addresses: dict[str, float] = {}
        for username, ban in bans.items():
            until = math.inf if ban.until is None else ban.until
            keys = ((self._usernames, username), (self._sessions, ban.session), (self._addresses, ban.address_hash))
            for index, key in keys:
                if key:
                    index[key] = max(until, index.get(key, 0.0))

    @property
    def has_addresses(self) -> bool:
        """Whether addresses are banned."""
        return bool(self._addresses)

    def extends(self, other: BanIndex) -> bool:
        """Whether it may keep a user out whom the other one lets in."""
        return not (
            self._usernames.items() <= other._usernames.items()
            and self._sessions.items() <= other._sessions.items()
            and self._addresses.items() <= other._addresses.items()
        )

    def refuses(self, username: str, session: str, address_hash: str | None) -> bool:
        """Whether a user with this name, session or address is banned now."""
        until = (
            self._usernames.get(username.lower(), 0.0),
            self._sessions.get(session, 0.0),
            self._addresses.get(address_hash, 0.0) if address_hash else 0.0,
        )
        return time.time() < max(until)
