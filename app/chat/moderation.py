"""What the owner decides: bans, pause, slow mode, and deletion. Each change is stored, and holds for all workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from app.chat.credentials import Credentials
from app.chat.registry import Connection
from app.chat.rules import Ban, BanIndex, Rules
from app.chat.timing import RoomTiming
from app.config import Settings
from app.engines import Backend
from app.engines.store import By, Query
from app.exceptions import InvalidRequest, StoreError
from app.message import Change, Deletion, Message

DELETION_BYTES = 100  # of a frame that announces one deletion


class Moderation:
    """The owner's decisions. Every coroutine raises StoreError when the store does not take it."""

    def __init__(self, settings: Settings, backend: Backend, credentials: Credentials, timing: RoomTiming) -> None:
        self.credentials = credentials
        self._timing = timing
        self._owner = settings.owner_username.lower()
        self._delete_step = min(timing.delete_step, settings.ws_send_buffer // 2 // DELETION_BYTES)
        self._engine, self._presence, _ = backend
        self._bans = BanIndex(self.rules.bans)

    @property
    def rules(self) -> Rules:
        """The rules as they are now."""
        return Rules.parse(self._engine.rules)

    def on_rules(self) -> bool:
        """Called when the rules have changed. Returns whether they may ban users who are here."""
        before, self._bans = self._bans, BanIndex(self.rules.bans)
        return self._bans.extends(before)

    def is_banned(self, connection: Connection) -> bool:
        """Whether the user of a connection is banned, or its address. The owner never is."""
        session = connection.session
        if session.role == "owner":
            return False
        if self._bans.has_addresses and connection.address_hash is None:
            connection.address_hash = self.credentials.address_hash(connection.limit_key)
        return self._bans.refuses(session.username, session.id, connection.address_hash)

    def bans_newcomer(self, username: str, session: str, limit_key: str | None) -> bool:
        """The same for a user who is not in yet."""
        address_hash = self.credentials.address_hash(limit_key) if self._bans.has_addresses else None
        return self._bans.refuses(username, session, address_hash)

    async def ban(self, username: str, seconds: float | None, address: bool, reason: str | None) -> Ban:
        """Bans a name and its session, and the address if it is known and may be banned. Raises InvalidRequest.

        `seconds`: how long, None for good. What an earlier ban knew of the user is kept where nothing is known now.
        """
        if username.lower() == self._owner:
            raise InvalidRequest("username", "This is the owner's own name. Ban somebody else.")
        session, limit_key = await self._presence.find(username) or (await self._last_session(username), None)
        before = self.rules.ban(username)
        known_hash = self.credentials.address_hash(limit_key) or (before.address_hash if before else None) or None
        ban = Ban(
            username=username,
            until=None if seconds is None else time.time() + seconds,
            reason=reason,
            session=session or (before.session if before else None),
            address_hash=known_hash if address else None,
        )

        def edit(rules: Rules) -> Rules:
            bans = {**rules.bans, username.lower(): ban}
            if sum(other.holds() for other in bans.values()) > self._timing.max_bans:
                raise InvalidRequest(None, f"There are {self._timing.max_bans} bans already. Lift some first.")
            return rules.model_copy(update={"bans": bans})

        await self._replace_rules(edit)
        return ban

    async def lift(self, username: str) -> Ban | None:
        """Ends a ban, and returns what it was."""
        ban = self.rules.ban(username)

        def edit(rules: Rules) -> Rules:
            others = {name: other for name, other in rules.bans.items() if name != username.lower()}
            return rules.model_copy(update={"bans": others})

        if ban:
            await self._replace_rules(edit)
        return ban

    async def set_room(self, paused: bool | None, slow_mode: float | None) -> None:
        """Pauses or opens the room, and sets its slow mode (seconds, 0 for none). None leaves either as it is."""
        values = {"paused": paused, "slow_mode": slow_mode}
        update = {name: value for name, value in values.items() if value is not None}
        await self._replace_rules(lambda rules: rules.model_copy(update=update))

    async def find(self, query: Query) -> list[Message]:
        """The stored messages that a query selects."""
        return await self._engine.find(query)

    async def delete(self, by: By, value: str) -> int:
        """Deletes all messages with this id, session, or username (in any case), and returns how many.

        What is left of each tells a post that is sent again from a new one.
        """
        step = 1 if by == "id" else self._delete_step
        count, query = 0, Query(limit=step, newest=True, by=by, value=value)
        while found := await self.find(query):
            done = await self._engine.apply(Change(tuple(Deletion(message.seq, message.id) for message in found)))
            count += len(done.deletions) if done else 0
            if by == "id" or len(found) < step:
                break
            query = query._replace(before=found[-1].seq)
            await asyncio.sleep(self._timing.delete_pause)
        return count

    async def delete_own(self, message_id: str, session: str) -> int:
        """Deletes the message with this id if that session wrote it, and returns how many were deleted: 1 or 0."""
        found = await self.find(Query(newest=True, limit=1, by="id", value=message_id))
        return await self.delete("id", message_id) if found and found[0].session == session else 0

    async def _last_session(self, username: str) -> str | None:
        """The session that posted the newest message under a name."""
        newest = await self.find(Query(newest=True, by="username", value=username))
        return newest[0].session if newest else None

    async def _replace_rules(self, edit: Callable[[Rules], Rules]) -> None:
        for _ in range(self._timing.rules_tries):
            old = self._engine.rules
            new = edit(Rules.parse(old)).text()
            if new == old or await self._engine.apply(Change(rules=new, old_rules=old)):
                return
            await asyncio.sleep(self._timing.rules_retry)
        raise StoreError("others change the rules at the same time")
