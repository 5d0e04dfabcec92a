"""The owner's rules: who is banned, whether the room is paused, how slow it is.

Kept in the store as one JSON text, so that each change of it is whole. Knows nothing of connections or of a store.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from functools import lru_cache

from pydantic import BaseModel, ConfigDict

MAX_BANS = 1000  # each change of the rules is written and read as a whole


class Ban(BaseModel):
    """Keeps somebody out, until then (Unix seconds, None for good). `reason` is the owner's own note.

    `session` and `mark` (of an address, see Credentials.mark) are the banned user's, where they were known.
    """

    model_config = ConfigDict(frozen=True)

    username: str
    until: float | None = None
    reason: str | None = None
    session: str | None = None
    mark: str | None = None

    def holds(self) -> bool:
        """Whether it is not over."""
        return self.until is None or time.time() < self.until


class Rules(BaseModel):
    """`paused`: only the owner posts. `slow_mode`: seconds between two messages of a visitor. `bans`: by name."""

    model_config = ConfigDict(frozen=True)

    paused: bool = False
    slow_mode: float = 0.0
    bans: dict[str, Ban] = {}

    @staticmethod
    @lru_cache(maxsize=1)  # an act of the owner begins with the rules that were read last
    def parse(text: str) -> Rules:
        """The rules that a store keeps; of a new one, none."""
        return Rules.model_validate_json(text) if text else Rules()

    def text(self) -> str:
        """As a store keeps them. Bans that are over are left out."""
        bans = {name: ban for name, ban in self.bans.items() if ban.holds()}
        return self.model_copy(update={"bans": bans}).model_dump_json(exclude_defaults=True)

    def ban(self, username: str) -> Ban | None:
        """The ban of this name, unless it is over."""
        ban = self.bans.get(username.lower())
        return ban if ban and ban.holds() else None


class BanIndex:
    """Bans by username, session and address mark. A look-up takes the same time however many there are."""

    def __init__(self, bans: Mapping[str, Ban]) -> None:
        # Of each key until when it is banned, in Unix seconds: a ban that is over stays until the rules change.
        self._usernames: dict[str, float] = {}
        self._sessions: dict[str, float] = {}
        self._marks: dict[str, float] = {}
        for username, ban in bans.items():
            until = math.inf if ban.until is None else ban.until
            keys = ((self._usernames, username), (self._sessions, ban.session), (self._marks, ban.mark))
            for index, key in keys:
                if key:
                    index[key] = max(until, index.get(key, 0.0))

    @property
    def has_marks(self) -> bool:
        """Whether addresses are banned."""
        return bool(self._marks)

    def extends(self, other: BanIndex) -> bool:
        """Whether it may keep somebody out whom the other one lets in."""
        pairs = zip(self._indexes(), other._indexes(), strict=True)
        return not all(mine.items() <= others.items() for mine, others in pairs)

    def refuses(self, username: str, session: str, mark: str | None) -> bool:
        """Whether a user with this name, session or address is banned now."""
        until = (
            self._usernames.get(username.lower(), 0.0),
            self._sessions.get(session, 0.0),
            self._marks.get(mark, 0.0) if mark else 0.0,
        )
        return time.time() < max(until)

    def _indexes(self) -> tuple[dict[str, float], ...]:
        return self._usernames, self._sessions, self._marks
