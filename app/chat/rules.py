"""The owner's rules: who is banned, whether the room is paused, how slow it is.

Kept in the store as one JSON text, so that each change of it is whole. Knows nothing of connections or of a store.
"""

from __future__ import annotations

import time
from typing import Self

from pydantic import BaseModel, ConfigDict

MAX_BANS = 1000  # each newcomer is compared with all of them


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

    @classmethod
    def parse(cls, text: str) -> Self:
        """The rules that a store keeps; of a new one, none."""
        return cls.model_validate_json(text) if text else cls()

    def text(self) -> str:
        """As a store keeps them. Bans that are over are left out."""
        bans = {name: ban for name, ban in self.bans.items() if ban.holds()}
        return self.model_copy(update={"bans": bans}).model_dump_json(exclude_defaults=True)

    def ban(self, username: str) -> Ban | None:
        """The ban of this name, unless it is over."""
        ban = self.bans.get(username.lower())
        return ban if ban and ban.holds() else None

    def refuse(self, username: str, session: str, mark: str | None) -> bool:
        """Whether somebody with this name, session or address is banned."""
        return bool(self.ban(username)) or any(
            ban.holds() for ban in self.bans.values() if session == ban.session or (mark and mark == ban.mark)
        )
