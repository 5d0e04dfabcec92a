"""The room's keys in Redis, and the scripts that change them, for the engine and the roster of every worker.

Each change is one script, so that it happens whole or not at all. Knows nothing of what the workers do with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import secrets
import uuid
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import DataError, NoPermissionError, RedisError, ResponseError

from app.exceptions import StoreError
from app.message import Change, Draft, Hiding, Message, stored

PREFIX = "{portfolio-chat}:"  # in braces, so that a Redis Cluster keeps all of them on one node
KEEP_EVENTS = 1_000
NONCE_SECONDS = 2 * 24 * 3600  # how long a nonce is remembered: the wire contract's 24 h and a reserve
ID_SECONDS = 600  # the same for a draft without one, which only this server sends again
READ_LIMIT = 256  # entries at once
PAGE = 200  # the same where all are read: of 1000 the driver makes objects for 25 ms, and nothing else happens then
READ_SECONDS = 5.0  # how long to wait for the next one; it also finds out whether the connection still lives
TIMEOUT = 2.5  # seconds for an answer, so that a second try fits into the patience of the one who posts
OLDEST = (6, 2)  # version of Redis

Entry = tuple[bytes, dict[bytes, bytes]]
Position = tuple[int, int]


class Found(NamedTuple):
    """The room as Redis has it; `seq` is the newest message's, up to `pruned` all are gone."""

    epoch: str
    secret: str
    seq: int
    pruned: int
    rules: str
    changes: int  # how many there were


class Record(NamedTuple):
    """One entry of the stream, and what it says. The id of a message is (seq, 0), of a change (seq before it, n)."""

    id: Position
    content: Message | Change


class RedisRoom:
    """One room in the database that `url` names. Everything raises StoreError when Redis does not do what it should."""

    def __init__(self, url: str) -> None:
        self._name = _without_password(url)
        options: Any = {"retry": Retry(NoBackoff(), 0), "protocol": 2, "socket_connect_timeout": TIMEOUT}
        self._client = Redis.from_url(url, socket_timeout=TIMEOUT, **options)
        # A blocking read needs a connection, and a patience, of its own.
        self._reader = Redis.from_url(url, socket_timeout=READ_SECONDS + TIMEOUT, **options)
        self._open, self._store, self._change = map(self._script, ("open", "store", "change"))
        self._presence, self._notice = map(self._script, ("presence", "notice"))

    def _script(self, name: str) -> Any:
        return self._client.register_script((Path(__file__).parent / f"{name}.lua").read_text())

    async def check(self) -> str | None:
        """What the owner should be warned of: that Redis forgets. Raises StoreError when it is too old."""
        try:
            info = await self._answer(self._client.info())
        except StoreError as error:
            if isinstance(error.__cause__, NoPermissionError):
                return None
            raise
        version = str(info.get("redis_version", "7.0"))
        if tuple(map(int, version.split(".")[:2])) < OLDEST:
            raise StoreError(f"{self._name} is Redis {version}. Use Redis 6.2 or later, or Valkey.")
        if not info.get("aof_enabled"):
            return f"{self._name} loses messages when it stops. Set: appendonly yes, appendfsync always"
        if info.get("maxmemory_policy", "noeviction") != "noeviction":
            return f"{self._name} may drop messages when it is full. Set: maxmemory-policy noeviction"
        return None

    async def open(self, epoch: str, secret: str, seq: int, newest: str, changes: int, rules: str) -> Found:
        """Finds the room, or makes it with `secret` and `rules`.

        It is another one, with another epoch, when the old one is gone, or has not got the message of id `newest` at
        `seq` (the newest seen in it; the id may be unknown), or fewer than `changes`.
        """
        arguments = [PREFIX, str(uuid.uuid4()), secret or secrets.token_hex(32), epoch, seq, newest, rules, changes]
        found = await self._run(self._open, ["room"], arguments)
        name, key, newest_seq, pruned, kept, count = found
        return Found(name.decode(), key.decode(), int(newest_seq), int(pruned), kept.decode(), int(count or 0))

    async def walk(
        self,
        epoch: str,
        after: int,
        before: int,
        newest: bool = False,
        count: int = PAGE,
        needle: bytes = b"",
        until: float = math.inf,
    ) -> AsyncIterator[Record]:
        """What the stream holds between the messages at two seqs, oldest or newest first, read `count` entries at once.

        With a `needle`, in small letters, only messages that hold it somewhere. `until`: event loop time.
        """
        key, low, high = PREFIX + epoch, f"({after}-0", f"({before}-0"
        read = partial(self._client.xrevrange, key) if newest else partial(self._client.xrange, key)
        oldest = await self._answer(self._client.xrange(key, low, high, count=1))
        while oldest:
            entries = await self._answer(read(max=high, min=low, count=count))
            if asyncio.get_running_loop().time() > until:
                # Checked here, because Python 3.11 may lose a cancellation on its way through the driver.
                raise StoreError(f"{self._name}: there is too much to look through it in time.")
            for entry in entries:
                if needle in entry[1].get(b"m", b"").lower():
                    yield _record(entry)
            if len(entries) < count or entries[-1][0] == oldest[0][0]:
                return  # asked for what is older than the oldest, Redis would look through all (0.2 s in a million)
            end = f"({entries[-1][0].decode()}"
            low, high = (low, end) if newest else (end, high)

    async def store(self, epoch: str, drafts: Sequence[Draft], seq: int) -> list[Message]:
        """For each draft its message, or the one that has its nonce. Safe to call again with the same drafts.

        `seq` is the newest that was seen: into a room that has lost it, nothing is stored.
        """
        arguments: list[Any] = [epoch, seq, PREFIX + "mark:"]
        for draft in drafts:
            mark = f"{draft.session}:{draft.nonce}" if draft.nonce else draft.id
            arguments += (draft.id, mark, NONCE_SECONDS if draft.nonce else ID_SECONDS, _body(draft))
        replies = await self._run(self._store, ["room", epoch], arguments)
        return [_stored(reply, draft) for reply, draft in zip(replies, drafts, strict=True)]

    async def change(self, epoch: str, change: Change, old: str) -> Record | None:
        """Makes a change; its entry, None when it is not `old` rules that hold. Safe to call again."""
        told = {"hidden": [hiding[:2] for hiding in change.hidden], "pruned": change.pruned, "rules": change.rules}
        body = json.dumps({what: value for what, value in told.items() if value})
        rules = (old, change.rules) if change.rules else ("", "")
        entry = await self._run(self._change, ["room", epoch], [epoch, body, change.pruned, *rules])
        return _record((entry[0], {b"c": entry[1]})) if entry else None

    async def holder(self, username: str) -> dict[str, Any] | None:
        """Who has a name, or had it a moment ago, as presence.lua keeps it."""
        entry = await self._answer(self._client.hget(PREFIX + "names", username.lower()))
        return cast(dict[str, Any], json.loads(entry)) if entry else None

    async def claim_notice(self, seq: int, quiet: float) -> tuple[float, int]:
        """As notifier.Claim, with the quiet time in seconds."""
        wait, told = await self._run(self._notice, ["room"], [seq, int(1000 * quiet)])
        return wait / 1000, told

    async def presence(
        self, worker: str, operations: list[Any], turn: int, version: int, settings: Sequence[int | str]
    ) -> Any:
        """Runs presence.lua: None when the worker must begin anew, else version, number of users, whether the owner is

        among them, and results. `settings`: its times, the limit of announcements, the owner's name.
        """
        keys = ["room", "names", "online", "workers", "leaving", "events", "turns"]
        arguments = [PREFIX + "at:", worker, json.dumps(operations), turn, version, *settings, KEEP_EVENTS]
        reply = await self._run(self._presence, keys, arguments)
        return (reply[0], reply[1], bool(reply[2]), json.loads(reply[3])) if reply else None

    async def last_event(self) -> bytes:
        """The id of the newest event."""
        entries = await self._answer(self._client.xrevrange(PREFIX + "events", count=1))
        return bytes(entries[0][0]) if entries else b"0"

    async def read(self, epoch: str, after: Position, event: bytes) -> tuple[list[Record], list[Entry]]:
        """Waits for entries after `after` and events after `event`, for READ_SECONDS at most."""
        streams: Any = {PREFIX + epoch: "{}-{}".format(*after), PREFIX + "events": event}
        found = await self._answer(self._reader.xread(streams, count=READ_LIMIT, block=int(1000 * READ_SECONDS)))
        entries = {name.decode(): new for name, new in found}
        return [_record(entry) for entry in entries.get(PREFIX + epoch, [])], entries.get(PREFIX + "events", [])

    async def close(self) -> None:
        """Closes all connections. Safe to call again."""
        for client in (self._client, self._reader):
            with contextlib.suppress(StoreError):  # a broken connection is closed already
                await self._answer(client.aclose())

    async def _run(self, script: Any, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        return await self._answer(script(keys=[PREFIX + key for key in keys], args=arguments))

    async def _answer(self, asked: Any) -> Any:
        """Awaits the driver. Raises StoreError, whatever comes out of it.

        A connection that breaks comes out as any exception, of the driver, asyncio or uvloop (which raises RuntimeError
        on a transport that the peer has reset); the driver closes such a connection. DataError alone is our own fault:
        what was asked cannot be encoded.
        """
        try:
            return await asked
        except DataError:
            raise
        except Exception as error:
            said = str(error).rstrip(".") if isinstance(error, (RedisError, OSError)) else repr(error)
            advice = "" if isinstance(error, ResponseError) else " Check that Redis runs, and ENGINE_URL."
            raise StoreError(f"{self._name}: {said or type(error).__name__}.{advice}") from error


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _body(draft: Draft) -> bytes:
    content = None if draft.content == draft.text else draft.content
    parts = (draft.id, draft.session, draft.username, content, draft.text, draft.timestamp, draft.nonce, draft.role)
    return json.dumps(parts, ensure_ascii=False, separators=(",", ":")).encode()


def _parse(body: bytes, seq: int) -> Message:
    draft_id, session, username, content, text, timestamp, nonce, role = json.loads(body)
    return Message(draft_id, session, username, text if content is None else content, text, timestamp, nonce, role, seq)


def _position(number: bytes) -> Position:
    seq, _, part = number.partition(b"-")
    return int(seq), int(part)


def _record(entry: Entry) -> Record:
    number, fields = entry
    position = _position(number)
    if body := fields.get(b"m"):
        return Record(position, _parse(body, position[0]))
    told = json.loads(fields[b"c"])
    hidden = tuple(Hiding(seq, message, position[0]) for seq, message in told.get("hidden", ()))
    return Record(position, Change(hidden, told.get("pruned", 0), told.get("rules")))


def _stored(reply: tuple[bytes, bytes, bytes], draft: Draft) -> Message:
    seq, by, body = reply
    if body:
        return _parse(body, int(seq))
    if by.decode() == draft.id:
        return stored(draft, int(seq))
    return Message(by.decode(), draft.session, "", "", "", 0.0, draft.nonce, seq=int(seq))
