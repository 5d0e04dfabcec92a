"""The engine for many workers and machines: a stream in Redis, which every worker stores into and reads from.

A worker delivers what it reads, in `seq` order, its own messages like everybody's; after an outage it goes on where it
was. So storing is done only when the reader has got that far.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import logging
import operator
from collections.abc import Callable, Sequence
from typing import cast

from app import metrics, tasks
from app.engines.base import FIRST, LAST, SEARCH_PATIENCE, By, Engine, Listener
from app.engines.redis_room import PAGE, READ_SECONDS, Entry, Found, Position, Record, RedisRoom
from app.engines.writer import PATIENCE
from app.exceptions import StoreError
from app.message import Change, Draft, Hiding, Message

RETRY = 0.25  # seconds between two tries to reach Redis

_content = operator.attrgetter("content")

logger = logging.getLogger(__name__)


class RedisEngine(Engine):
    """One worker's part of the room in `room`. `on_events` gets what others write about who is here."""

    def __init__(self, room: RedisRoom, keep: int, batch_bytes: int) -> None:
        super().__init__(keep, batch_bytes)
        self.room = room
        self.on_events: Callable[[Sequence[Entry]], None] = lambda entries: None
        self.epoch, self.secret, self.seq, self.pruned, self.rules = "", "", 0, 0, ""
        self._newest = ""  # id of the message at `seq`, where it is known
        self._position = (0, 0)  # the newest entry that everybody here has got
        self._changes = 0  # the number of the newest change among those
        self._awaited: set[str] = set()  # ids of the drafts that are being stored, and not read yet
        self._entered = 0  # how often the room was entered
        self._acknowledged = 0  # the highest seq that Redis said to be stored, perhaps not read yet
        self._event = b"0"  # the newest event that was heard
        self._moved = asyncio.Event()
        self._searching = asyncio.Lock()  # one search at a time leaves most of the loop to others
        self._following: asyncio.Task[None] | None = None

    async def start(self, listener: Listener) -> None:
        """As Engine has it; from then on, what any worker stores is delivered."""
        await super().start(listener)
        self._following = tasks.spawn(self._follow(), "stream reader")

    async def _open(self) -> tuple[list[Message], list[Hiding]]:
        if warning := await self.room.check():
            logger.warning("%s", warning)
        self._event = await self.room.last_event()
        return await self._enter(await self.room.open("", "", 0, "", 0, ""))

    async def _enter(self, found: Found) -> tuple[list[Message], list[Hiding]]:
        """Takes the room as it is now; its newest messages, and what was hidden since."""
        past: list[Message] = []
        hidden: list[Hiding] = []
        position, self._changes = (0, 0), 0
        self._entered += 1
        async for record in self.room.walk(found.epoch, FIRST, LAST, newest=True):
            position = max(position, record.id)
            self._changes = max(self._changes, record.id[1])
            if isinstance(record.content, Change):
                hidden += reversed(record.content.hidden)
                continue
            past.append(record.content)
            if len(past) == self.keep:
                break
        self.epoch, self.secret, self.seq, self.pruned, self.rules, _ = found
        self.seq = max(self.seq, position[0])
        self._newest = past[0].id if past and past[0].seq == self.seq else ""
        self._position = max(position, (self.seq, 0))
        self._awaited.difference_update(message.id for message in past)
        return past[::-1], hidden[::-1]

    async def _store(self, drafts: list[Draft]) -> list[Message]:
        """Tries again while there is time: what was stored without our knowing is found, not stored twice."""
        self._awaited = {draft.id for draft in drafts}
        while True:
            epoch, entered = self.epoch, self._entered
            try:
                with metrics.storing(len(drafts)):
                    messages = await self.room.store(epoch, drafts, self.seq)
                break
            except StoreError:
                if not drafts or not self.healthy:
                    raise
            await asyncio.sleep(RETRY)
        if messages:
            seq = max(message.seq for message in messages)
            self._acknowledged = max(self._acknowledged, seq)
            await self._read_up_to((seq, 0), entered)
        return [_gone(message) if message.id in self._awaited else message for message in messages]

    async def _find(
        self, after: int, before: int, limit: int, newest: bool, by: By | None = None, value: str = ""
    ) -> list[Message]:
        found: list[Message] = []
        until = asyncio.get_running_loop().time() + (SEARCH_PATIENCE if by else PATIENCE)
        count, needle = (PAGE, f'"{value}"'.lower().encode()) if by else (min(limit, PAGE), b"")
        async with self._searching if by else contextlib.nullcontext():
            async for record in self.room.walk(self.epoch, after, before, newest, count, needle, until):
                message = record.content
                if isinstance(message, Message) and (not by or getattr(message, by).lower() == value.lower()):
                    found.append(message)
                    if len(found) == limit:
                        break
        return found

    async def _apply(self, change: Change, old: str) -> Change | None:
        entered = self._entered
        entry = await self.room.change(self.epoch, change, old)
        if not entry:
            return None
        await self._read_up_to(entry.id, entered)
        return cast(Change, entry.content)

    async def _read_up_to(self, position: Position, entered: int) -> None:
        """So that no answer overtakes what was stored before it."""
        while self._position < position and self._entered == entered:
            self._moved.clear()
            await self._moved.wait()
        if self._entered != entered:
            raise StoreError("Redis may have lost what it had just stored")

    async def _hand_out(self, messages: Sequence[Message]) -> None:
        """The reader has done it."""

    async def _tell(self, change: Change) -> None:
        """The reader has done this, too."""

    async def _close(self) -> None:
        if self._following:
            await tasks.end(self._following)
        await self.room.close()

    async def _follow(self) -> None:
        """Reads on for ever, and over every outage."""
        clock = asyncio.get_running_loop().time
        failing: float | None = None  # since when
        told = False
        while True:
            try:
                await self._look()
                if failing:
                    self._wake.set()  # so that the writer finds out at once
                failing, told = None, False
                await self._read(clock() + READ_SECONDS)
                continue
            except StoreError:
                failing = failing or clock()
                if self.healthy:
                    self._wake.set()
            except Exception:
                logger.exception("The stream reader failed")
            if failing and clock() - failing > PATIENCE and not told:
                told = True
                self._listener.trouble()
            await asyncio.sleep(RETRY)

    async def _look(self) -> bool:
        """Whether the room is another one than it was."""
        known = max(self.seq, self._acknowledged)
        newest = self._newest if known == self.seq else ""
        found = await self.room.open(self.epoch, self.secret, known, newest, self._changes, self.rules)
        if found.epoch != self.epoch:
            return await self._renew(found, "The room in Redis was emptied, or has lost what was seen in it")
        if found.pruned > self.seq:
            return await self._renew(found, "This worker was away for longer than messages are kept")
        if found.changes <= self._changes and (found.pruned, found.rules) != (self.pruned, self.rules):
            await super()._tell(Change((), found.pruned, found.rules))  # which came while the room was entered
        return False

    async def _read(self, until: float) -> None:
        """Hands on what comes, until it is time to look at the room again.

        The next message is not there when it was hidden, of which a change tells that is there; or when it was pruned,
        with all the changes before it. Pruned entries are the oldest, so only the first of a read can follow on some.
        """
        clock = asyncio.get_running_loop().time
        while clock() < until:
            records, events = await self.room.read(self.epoch, self._position, self._event)
            if events:
                self._event = events[-1][0]
                self.on_events(events)
            if records and records[0].id > (self.seq + 1, 0) and await self._look():
                return
            while records:
                handed = await self._hand_on(records)
                self._position = records[handed - 1].id
                self._moved.set()
                records = records[handed:]

    async def _hand_on(self, records: Sequence[Record]) -> int:
        """Delivers what makes one batch, or tells of one change. How many records that was."""
        number, content = records[0]
        if isinstance(content, Change):
            self._changes = number[1]
            self.seq = max(self.seq, number[0])
            await super()._tell(content)
            return 1
        contents = itertools.takewhile(lambda content: isinstance(content, Message), map(_content, records))
        messages = cast(list[Message], list(contents))
        messages = messages[: self._drafts.fitting(messages)]
        self._newest = messages[-1].id
        self._awaited.difference_update(message.id for message in messages)  # what then is left was hidden before
        await super()._hand_out(messages)
        return len(messages)

    async def _renew(self, found: Found, why: str) -> bool:
        past, hidden = await self._enter(found)
        logger.warning("%s, so everybody is told to come back", why)
        self._listener.renew(past, hidden)
        self._moved.set()
        return True


def _gone(message: Message) -> Message:
    """What is left of a message that was hidden."""
    return dataclasses.replace(message, username="", content="", text="")
