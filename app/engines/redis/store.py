"""The store for many workers and machines: one stream in Redis, which every worker appends to and reads.

A worker delivers what it reads, its own messages like everybody's, and continues after an outage where it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import math
import secrets
import uuid
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from app.engines.redis.client import PREFIX, RedisClient
from app.engines.store import NONCE_LIFETIME, SEARCH_TIMEOUT, STORE_TIMEOUT, Opened, Outage, Query, Reset, Stored
from app.exceptions import StoreError
from app.message import Change, Deletion, Draft, Message, Position, deleted, stored

ID_LIFETIME = 600  # seconds that the id of a draft without a nonce is remembered; only this process sends it again
READ_LIMIT = 256  # entries that are read at once
PAGE = 200  # the same for a search: of 1000 the driver makes objects for 25 ms, and nothing else happens then

logger = logging.getLogger(__name__)

Entry = tuple[bytes, dict[bytes, bytes]]


class Seen(NamedTuple):
    """The room as a worker has seen it. `seq` is the newest message's; `changes` counts the changes."""

    epoch: str = ""
    secret: str = ""
    seq: int = 0
    pruned: int = 0
    rules: str = ""
    changes: int = 0


class Record(NamedTuple):
    """One entry of the stream, and its place in it."""

    position: Position
    content: Message | Change


class RedisStore:
    """One worker's view of the room. `keep`: how many of the newest messages `open` returns.

    `timeout` and `search_timeout`: seconds after which `append` and a search give up. `retry`: seconds between two
    tries to reach Redis. `page`: entries that a search reads at once.
    """

    def __init__(
        self,
        client: RedisClient,
        keep: int = 0,
        timeout: float = STORE_TIMEOUT,
        search_timeout: float = SEARCH_TIMEOUT,
        retry: float = 0.25,
        page: int = PAGE,
    ) -> None:
        self._client = client
        self._keep = keep
        self._timeout = timeout
        self._search_timeout = search_timeout
        self._retry = retry
        self._page = page
        self._seen = Seen()  # as far as it came out of the feed
        self._newest_id = ""  # of the message at `_seen.seq`, if it is known
        self._position: Position = (0, 0)  # of the newest entry that came out of the feed
        self._acknowledged = 0  # the highest seq that Redis has stored for this worker
        self._failing = False  # the last `append` failed
        self._searching = asyncio.Lock()  # one search at a time leaves most of the event loop to others

    async def open(self) -> Opened:
        await self._client.check()
        return await self._enter(await self._find_room())

    async def _find_room(self) -> Seen:
        """The room as it is now in Redis, which is made when there is none.

        It has another epoch than before when Redis has lost a message or a change that this worker has seen.
        """
        seen = self._seen
        seq = max(seen.seq, self._acknowledged)
        newest_id = self._newest_id if seq == seen.seq else ""
        secret = seen.secret or secrets.token_hex(32)
        arguments = [PREFIX, str(uuid.uuid4()), secret, seen.epoch, seq, newest_id, seen.rules, seen.changes]
        epoch, key, newest, pruned, rules, changes = await self._client.run("open", ["room"], arguments)
        return Seen(epoch.decode(), key.decode(), int(newest), int(pruned), rules.decode(), int(changes or 0))

    async def _enter(self, room: Seen) -> Opened:
        """Reads the newest messages and the deletions since. The feed continues after them."""
        messages: list[Message] = []
        deletions: list[Deletion] = []
        position, changes = (0, 0), 0
        async for record in self._walk(room.epoch, Query(limit=PAGE, newest=True)):
            position, changes = max(position, record.position), max(changes, record.position[1])
            if isinstance(record.content, Change):
                deletions += reversed(record.content.deletions)
                continue
            messages.append(record.content)
            if len(messages) == self._keep:
                break
        self._seen = room = room._replace(seq=max(room.seq, position[0]), changes=changes)
        self._newest_id = messages[0].id if messages and messages[0].seq == room.seq else ""
        self._position = max(position, (room.seq, 0))
        return Opened(*room[:5], messages[::-1], deletions[::-1], self._position)

    async def append(self, drafts: Sequence[Draft]) -> list[Message]:
        """As Store has it. Tries again while there is time: what Redis stored before its reply was lost is found.

        Raises StoreError at once when the room has become another one, so that the engine begins anew in that one.
        """
        deadline = _now() + (0.0 if self._failing else self._timeout)
        epoch = self._seen.epoch
        while True:
            try:
                messages = await self._append(drafts)
            except StoreError:
                self._failing = not drafts or _now() >= deadline
                if not self._failing:
                    await asyncio.sleep(self._retry)
                if self._failing or self._seen.epoch != epoch:
                    raise
            else:
                self._failing = False
                self._acknowledged = max([self._acknowledged, *(message.seq for message in messages)])
                return messages

    async def _append(self, drafts: Sequence[Draft]) -> list[Message]:
        epoch = self._seen.epoch
        arguments: list[Any] = [epoch, self._seen.seq, PREFIX + "mark:"]
        for draft in drafts:
            nonce_key = f"{draft.session}:{draft.nonce}" if draft.nonce else draft.id
            arguments += (draft.id, nonce_key, NONCE_LIFETIME if draft.nonce else ID_LIFETIME, _body(draft))
        replies = await self._client.run("store", ["room", epoch], arguments)
        return [_stored(reply, draft) for reply, draft in zip(replies, drafts, strict=True)]

    async def apply(self, change: Change) -> Change | None:
        content = {
            "hidden": [deletion[:2] for deletion in change.deletions],
            "pruned": change.pruned,
            "rules": change.rules,
        }
        body = json.dumps({key: value for key, value in content.items() if value})
        rules = ("", "") if change.rules is None else (change.old_rules, change.rules)
        epoch = self._seen.epoch
        entry = await self._client.run("change", ["room", epoch], [epoch, body, change.pruned, *rules])
        return _change(entry[0], entry[1]) if entry else None

    async def find(self, query: Query) -> list[Message]:
        found: list[Message] = []
        until = _now() + self._search_timeout
        async with self._searching if query.by else contextlib.nullcontext():
            async for record in self._walk(self._seen.epoch, query, until):
                if isinstance(record.content, Message) and query.selects(record.content):
                    found.append(record.content)
                    if len(found) == query.limit:
                        break
        return found

    async def _walk(self, epoch: str, query: Query, until: float = math.inf) -> AsyncIterator[Record]:
        """The entries of the stream among which those that a query selects are. `until`: event loop time."""
        key, low, high = PREFIX + epoch, f"({query.after}-0", f"({query.before}-0"
        commands, needle = self._client.commands, f'"{query.value}"'.lower().encode() if query.by else b""
        read = partial(commands.xrevrange, key) if query.newest else partial(commands.xrange, key)
        count = self._page if query.by else min(query.limit, self._page)
        oldest = await self._client.ask(commands.xrange(key, low, high, count=1))
        while oldest:
            entries = await self._client.ask(read(max=high, min=low, count=count))
            if _now() > until:
                # Checked here, because Python 3.11 may lose a cancellation on its way through the driver.
                raise StoreError(f"{self._client.name}: there is too much to look through it in time.")
            for entry in entries:
                if needle in entry[1].get(b"m", b"").lower():
                    yield _record(entry)
            if len(entries) < count or entries[-1][0] == oldest[0][0]:
                return  # asked for what is older than the oldest, Redis would look through all (0.2 s in a million)
            end = f"({entries[-1][0].decode()}"
            low, high = (low, end) if query.newest else (end, high)

    async def feed(self) -> AsyncIterator[Stored]:
        failing_since: float | None = None
        while True:
            try:
                if news := await self._look():
                    yield news
                if failing_since:
                    failing_since = None
                    yield Outage(None)
                async for stored in self._read(_now() + self._client.read_timeout):
                    yield stored
            except StoreError:
                failing_since = failing_since or _now()
                yield Outage(failing_since)
                await asyncio.sleep(self._retry)

    async def _look(self) -> Reset | Change | None:
        """Compares the room in Redis with what was seen of it."""
        room, seen = await self._find_room(), self._seen
        if room.epoch != seen.epoch:
            return await self._reset(room, "The room in Redis was emptied, or has lost what was seen in it")
        if room.pruned > seen.seq:
            return await self._reset(room, "This worker was away for longer than messages are kept")
        if room.changes <= seen.changes and (room.pruned, room.rules) != (seen.pruned, seen.rules):
            self._seen = seen._replace(pruned=room.pruned, rules=room.rules)  # this came while the room was entered
            return Change((), room.pruned, room.rules, position=self._position)
        return None

    async def _reset(self, room: Seen, reason: str) -> Reset:
        opened = await self._enter(room)
        logger.warning("%s, so everybody is told to come back", reason)
        return Reset(opened)

    async def _read(self, until: float) -> AsyncIterator[Stored]:
        """Yields what is new, until it is time to look at the room again.

        The next message is not there when it was deleted, of which a change tells that is there; or when it was pruned,
        with all the changes before it. Pruned entries are the oldest, so only the first of a read can follow on some.
        """
        while _now() < until:
            streams: Any = {PREFIX + self._seen.epoch: "{}-{}".format(*self._position)}
            read = self._client.reader.xread(streams, count=READ_LIMIT, block=int(1000 * self._client.read_timeout))
            records = [_record(entry) for _, entries in await self._client.ask(read) for entry in entries]
            if records and records[0].position > (self._seen.seq + 1, 0) and (news := await self._look()):
                yield news
                if isinstance(news, Reset):
                    return
            for is_message, run in itertools.groupby(records, lambda record: isinstance(record.content, Message)):
                for part in [tuple(run)] if is_message else zip(run, strict=False):
                    yield self._see(part)

    def _see(self, records: Sequence[Record]) -> list[Message] | Change:
        """Notes that entries were read: some messages, or one change."""
        position, newest = records[-1]
        self._position = position
        self._seen = self._seen._replace(seq=max(self._seen.seq, position[0]))
        if isinstance(newest, Message):
            self._newest_id = newest.id
            return [record.content for record in records if isinstance(record.content, Message)]
        pruned = max(self._seen.pruned, newest.pruned)
        rules = self._seen.rules if newest.rules is None else newest.rules
        self._seen = self._seen._replace(pruned=pruned, rules=rules, changes=position[1])
        return newest

    async def tidy(self) -> bool:
        return False  # nonces expire by themselves

    async def close(self) -> None:
        await self._client.close()

    # For the command line, without `open`

    async def export(self) -> AsyncIterator[Message]:
        epoch = await self._client.ask(self._client.commands.hget(PREFIX + "room", "epoch"))
        async for record in self._walk(epoch.decode() if epoch else "", Query(limit=PAGE)):
            if isinstance(record.content, Message):
                yield record.content

    async def reserve(self) -> None:
        ask, commands = self._client.ask, self._client.commands
        seconds, _ = await ask(commands.time())
        if await ask(commands.zcount(PREFIX + "workers", 1000 * seconds, "+inf")):
            raise StoreError(
                f"{self._client.name} is in use. Stop the servers first; one that was killed counts for 9 s."
            )

    async def back_up(self, copy: Path) -> None:
        raise StoreError(f"{self._client.name} is backed up by Redis itself; `export` writes the messages.")

    async def restore(self, copy: Path) -> Path | None:
        raise StoreError(f"{self._client.name} is restored by Redis itself, from its own files.")

    async def wipe(self) -> None:
        await self.reserve()
        ask, commands = self._client.ask, self._client.commands
        cursor = None
        while cursor != 0:
            cursor, keys = await ask(commands.scan(cursor or 0, PREFIX + "*", PAGE))
            if keys:
                await ask(commands.delete(*keys))
        info = await ask(commands.info("persistence"))
        if info.get("aof_enabled"):  # else what was deleted stays in that file until it is large
            await ask(commands.bgrewriteaof())


def _now() -> float:
    return asyncio.get_running_loop().time()


def _position(entry_id: bytes) -> Position:
    seq, _, part = entry_id.partition(b"-")
    return int(seq), int(part)


def _record(entry: Entry) -> Record:
    entry_id, fields = entry
    position = _position(entry_id)
    if body := fields.get(b"m"):
        return Record(position, _parse(body, position[0]))
    return Record(position, _change(entry_id, fields[b"c"]))


def _change(entry_id: bytes, body: bytes) -> Change:
    content, position = json.loads(body), _position(entry_id)
    deletions = tuple(Deletion(seq, message_id, position[0]) for seq, message_id in content.get("hidden", ()))
    return Change(deletions, content.get("pruned", 0), content.get("rules"), position=position)


def _body(draft: Draft) -> bytes:
    content = None if draft.content == draft.text else draft.content
    parts = (draft.id, draft.session, draft.username, content, draft.text, draft.timestamp, draft.nonce, draft.role)
    return json.dumps(parts, ensure_ascii=False, separators=(",", ":")).encode()


def _parse(body: bytes, seq: int) -> Message:
    draft_id, session, username, content, text, timestamp, nonce, role = json.loads(body)
    return Message(draft_id, session, username, text if content is None else content, text, timestamp, nonce, role, seq)


def _stored(reply: tuple[bytes, bytes, bytes], draft: Draft) -> Message:
    """The message that store.lua names for a draft."""
    seq, message_id, body = int(reply[0]), reply[1].decode(), reply[2]
    if body:
        return _parse(body, seq)
    return stored(draft, seq) if message_id == draft.id else deleted(draft, message_id, seq)
