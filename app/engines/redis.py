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
from app.engines.redis_room import Entry, RedisRoom
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
        self._event = b"0"  # the newest event that was heard
        self._newest = ""  # id of the message at `seq`, where it is known
        self._moved = asyncio.Event()
        self._following: asyncio.Task[None] | None = None

    async def start(self, listener: Listener) -> None:
        """As Engine has it; from then on, what any worker stores is delivered."""
        await super().start(listener)
        self._following = tasks.spawn(self._follow(), "stream reader")

    async def _open(self) -> list[Message]:
        if warning := await self.room.check():
            logger.warning("%s", warning)
        await self.room.open(0, "")
        self._event = await self.room.last_event()
        return await self._past()

    async def _past(self) -> list[Message]:
        past = await self.room.newest(max(1, self.keep))
        self.epoch, self.secret = self.room.epoch, self.room.secret
        self.seq, self._newest = self.room.seq, ""
        if past and past[-1].seq >= self.seq:
            self.seq, self._newest = past[-1].seq, past[-1].id
        return past[-self.keep :] if self.keep else []

    async def _store(self, drafts: list[Draft]) -> list[Message]:
        """Tries again while there is time: what was stored without our knowing is found, not stored twice."""
        while True:
            try:
                messages = await self.room.store(drafts, self.seq)
                break
            except StoreError:
                if not drafts or not self.healthy:
                    raise
            await asyncio.sleep(RETRY)
        while messages and self.seq < max(message.seq for message in messages):
            self._moved.clear()
            await self._moved.wait()
        return messages

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
                await self.room.open(self.seq, self._newest)
                if self.epoch != self.room.epoch:
                    await self._renew("It was emptied, or has lost what was seen in it")
                if failing:
                    self._wake.set()  # so that the writer finds out at once
                failing, told = None, False
                await self._read()
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

    async def _read(self) -> None:
        """Delivers what comes, until nothing comes for a while."""
        while True:
            messages, events = await self.room.read(self.seq, self._event)
            if not messages and not events:
                return
            if events:
                self._event = events[-1][0]
                self.on_events(events)
            if messages and messages[0].seq != self.seq + 1:
                await self._renew("This worker was away for longer than it keeps messages")
                messages = []
            while messages:
                fitting = self._fitting(messages)
                self._newest = messages[fitting - 1].id
                await super()._hand_out(messages[:fitting])
                self._moved.set()
                messages = messages[fitting:]

    async def _renew(self, why: str) -> None:
        logger.warning("The room in Redis is another one now, so everybody is told to come back. %s", why)
        past = await self._past()
        self._listener.renew(past)
        self._moved.set()
