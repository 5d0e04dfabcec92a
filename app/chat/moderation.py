"""How the owner keeps order: bans, and how the room is. Each change is kept, and holds for all workers.

Knows the store and who is here, nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from app.chat.room import Chat
from app.chat.rules import MAX_BANS, Ban, Rules
from app.engines import Engine
from app.engines.presence import LocalPresence
from app.exceptions import InvalidRequest, StoreError

TRIES = 50  # to change rules that others change at the same time
RETRY = 0.02  # seconds, in which this worker learns of the others' rules


class Moderation:
    """The owner's acts. All raise StoreError when the store does not take them."""

    def __init__(self, chat: Chat, presence: LocalPresence, engine: Engine, owner: str) -> None:
        self._chat = chat
        self._presence = presence
        self._engine = engine
        self._owner = owner

    @property
    def rules(self) -> Rules:
        """As they are now."""
        return self._chat.admission.rules

    async def ban(self, username: str, seconds: float | None, address: bool, reason: str | None) -> Ban:
        """Bans a name and its session, and the address if it is known and may be banned. Raises InvalidRequest.

        `seconds`: for how long, None for good. What an earlier ban of the name knew is kept where now nothing is known.
        """
        if username.lower() == self._owner.lower():
            raise InvalidRequest("username", "This is the owner's own name. Ban somebody else.")
        session, limit_key = await self._presence.find(username) or (await self._last_session(username), None)
        mark = self._chat.admission.mark(limit_key)
        before = self.rules.ban(username)
        ban = Ban(
            username=username,
            until=None if seconds is None else time.time() + seconds,
            reason=reason,
            session=session or (before.session if before else None),
            mark=(mark or (before.mark if before else None) or None) if address else None,
        )

        def edit(rules: Rules) -> Rules:
            bans = {**rules.bans, username.lower(): ban}
            if sum(other.holds() for other in bans.values()) > MAX_BANS:
                raise InvalidRequest(None, f"There are {MAX_BANS} bans already. Lift some first.")
            return rules.model_copy(update={"bans": bans})

        await self._amend(edit)
        return ban

    async def lift(self, username: str) -> Ban | None:
        """Ends a ban, and returns what it was."""
        ban = self.rules.ban(username)

        def edit(rules: Rules) -> Rules:
            others = {name: other for name, other in rules.bans.items() if name != username.lower()}
            return rules.model_copy(update={"bans": others})

        if ban:
            await self._amend(edit)
        return ban

    async def set_room(self, paused: bool | None, slow_mode: float | None) -> None:
        """Pauses the room or not, and sets its slow mode (seconds, 0 for none). None leaves it as it is."""
        wanted = {"paused": paused, "slow_mode": slow_mode}
        update = {what: value for what, value in wanted.items() if value is not None}
        await self._amend(lambda rules: rules.model_copy(update=update))

    async def _last_session(self, username: str) -> str | None:
        """Whose the newest message under this name is."""
        newest = await self._engine.find("username", username, 1)
        return newest[0].session if newest else None

    async def _amend(self, edit: Callable[[Rules], Rules]) -> None:
        for _ in range(TRIES):
            old = self._engine.rules
            new = edit(Rules.parse(old)).text()
            if new == old or await self._engine.amend(old, new):
                return
            await asyncio.sleep(RETRY)
        raise StoreError("others change the rules at the same time")
