"""The engine for many workers and machines: a stream in Redis, which every worker stores into and reads from.

A worker delivers what it reads, in `seq` order, its own messages like everybody's; after an outage it goes on where it
was. So storing is done only when the reader has got that far.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from app import tasks
from app.engines.base import PATIENCE, Engine, Listener
from app.engines.redis_room import READ_SECONDS, Entry, Found, RedisRoom
from app.exceptions import StoreError
from app.message import Draft, Message

RETRY = 0.25  # seconds between two tries to reach Redis

logger = logging.getLogger(__name__)


class RedisEngine(Engine):
    """One worker's part of the room in `room`. `on_events` gets what others write about who is here."""

    def __init__(self, room: RedisRoom, keep: int, batch_bytes: int) -> None:
        super().__init__(keep, batch_bytes)
        self.room = room
        self.on_events: Callable[[Sequence[Entry]], None] = lambda entries: None
        self.epoch, self.secret, self.seq = "", "", 0
        self._newest = ""  # id of the message at `seq`, where it is known
        self._delivered = 0  # the newest seq that everybody here has got
        self._acknowledged = 0  # the highest seq that Redis said to be stored, perhaps not read yet
        self._event = b"0"  # the newest event that was heard
        self._moved = asyncio.Event()
        self._following: asyncio.Task[None] | None = None

    async def start(self, listener: Listener) -> None:
        """As Engine has it; from then on, what any worker stores is delivered."""
        await super().start(listener)
        self._following = tasks.spawn(self._follow(), "stream reader")

    async def _open(self) -> list[Message]:
        if warning := await self.room.check():
            logger.warning("%s", warning)
        self._event = await self.room.last_event()
        return await self._enter(await self.room.open("", "", 0, ""))

    async def _enter(self, found: Found) -> list[Message]:
        """Takes the room as it is now; its newest messages."""
        past = await self.room.newest(found.epoch, max(1, self.keep))
        self.epoch, self.secret, self.seq = found
        self._newest = ""
        if past and past[-1].seq >= self.seq:
            self.seq, self._newest = past[-1].seq, past[-1].id
        self._delivered = self.seq
        return past[-self.keep :] if self.keep else []

    async def _store(self, drafts: list[Draft]) -> list[Message]:
        """Tries again while there is time: what was stored without our knowing is found, not stored twice."""
        while True:
            epoch = self.epoch
            try:
                messages = await self.room.store(epoch, drafts, self.seq)
                break
            except StoreError:
                if not drafts or not self.healthy:
                    raise
            await asyncio.sleep(RETRY)
        await self._read_up_to(max((message.seq for message in messages), default=0), epoch)
        return messages

    async def _read_up_to(self, seq: int, epoch: str) -> None:
        """So that no answer overtakes what was stored before it."""
        self._acknowledged = max(self._acknowledged, seq)
        while self._delivered < seq and self.epoch == epoch:
            self._moved.clear()
            await self._moved.wait()
        if self.epoch != epoch:
            raise StoreError("Redis may have lost what it had just stored")

    async def _hand_out(self, messages: Sequence[Message]) -> None:
        """The reader has done it."""

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

    async def _look(self) -> None:
        """Whether the room is still the one that it was."""
        known = max(self.seq, self._acknowledged)
        found = await self.room.open(self.epoch, self.secret, known, self._newest if known == self.seq else "")
        if found.epoch != self.epoch:
            await self._renew(found, "It was emptied, or has lost what was seen in it")

    async def _read(self, until: float) -> None:
        """Delivers what comes, until nothing comes for a while, or until it is time to look at the room again."""
        clock = asyncio.get_running_loop().time
        while clock() < until:
            messages, events = await self.room.read(self.epoch, self.seq, self._event)
            if events:
                self._event = events[-1][0]
                self.on_events(events)
            if messages and messages[0].seq > self.seq + 1 < await self.room.oldest(self.epoch):
                found = Found(self.epoch, self.secret, self.seq)
                await self._renew(found, "This worker was away for longer than messages are kept")
                return
            while messages:
                fitting = self._fitting(messages)
                self._newest = messages[fitting - 1].id
                await super()._hand_out(messages[:fitting])
                self._delivered = self.seq
                self._moved.set()
                messages = messages[fitting:]

    async def _renew(self, found: Found, why: str) -> None:
        past = await self._enter(found)
        logger.warning("The room in Redis is another one now, so everybody is told to come back. %s", why)
        self._listener.renew(past)
        self._moved.set()
