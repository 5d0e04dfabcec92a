"""Tells the owner that visitors write: at once, and then no more than once in a quiet time, over all workers together.

Decides when there is what to tell. How it is told, and who else tells the owner, is for others to know.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Container, Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

from app import metrics, tasks
from app.config import Settings
from app.engines import Engine
from app.exceptions import StoreError
from app.message import Message
from app.owner.formats import MAX_COUNT, Format, Notification, format_of
from app.owner.webhook import Webhook

if TYPE_CHECKING:  # Redis' driver may be missing
    from app.engines.redis.store import RedisEngine

RETRY = 5.0  # seconds after which a store that was gone is asked again

# Asks for the right to tell of all messages up to a seq. The answer is atomic over all workers: the seconds to wait
# because a quiet time runs, and the seq up to which the owner had been told before. With 0.0 the right is given, and if
# the seq is a later one it now counts as told and a quiet time begins. Raises StoreError.
Claim = Callable[[int], Awaitable[tuple[float, int]]]


class LocalClaim:
    """The claim of a process that is alone. `quiet`: seconds."""

    def __init__(self, quiet: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet = quiet
        self._clock = clock
        self._quiet_until = clock()
        self._told = 0

    async def __call__(self, seq: int) -> tuple[float, int]:
        now, told = self._clock(), self._told
        wait = max(0.0, self._quiet_until - now)
        if not wait and seq > told:
            self._told, self._quiet_until = seq, now + self._quiet
        return wait, told


class Notifier:
    """Keeps what the owner has not been told, the last 1000 messages at most, and tells it when it may.

    `send` answers whether a notice arrived, and raises nothing; without it nobody is told. `on_sent` gets that answer.
    What is on its way when the process ends, or failed, is not told again.
    """

    def __init__(
        self,
        send: Callable[[Notification], Awaitable[bool]] | None,
        claim: Claim,
        public_url: str = "",
        on_sent: Callable[[bool], object] = lambda ok: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._send = send
        self._claim = claim
        self._public_url = public_url
        self._on_sent = on_sent
        self._sleep = sleep
        self._untold: deque[Message] = deque(maxlen=MAX_COUNT)  # by seq
        self._heard = asyncio.Event()
        self._telling: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to tell. Needs a running loop."""
        self._telling = tasks.spawn(self._tell(), "notifier")

    async def stop(self) -> None:
        """Tells no more. Safe to call again, and when it was not started."""
        if self._telling:
            await tasks.end(self._telling)

    def hear(self, messages: Sequence[Message]) -> None:
        """Takes delivered messages, oldest first, while no owner is here. Never waits, never raises."""
        if not self._send:
            return
        self._untold.extend(message for message in messages if message.role != "owner")
        if self._untold:
            self._heard.set()

    def owner_came(self) -> None:
        """The owner is here, and sees the room: what is not told need not be."""
        self._untold.clear()

    def hide(self, seqs: Container[int]) -> None:
        """These messages were hidden: who took one back, or should not have written it, is not told of either."""
        self._untold = deque((message for message in self._untold if message.seq not in seqs), MAX_COUNT)

    async def _tell(self) -> None:
        while True:
            while not self._untold:
                self._heard.clear()
                await self._heard.wait()
            await self._tell_once()

    async def _tell_once(self) -> None:
        newest = self._untold[-1].seq
        try:
            wait, told = await self._claim(newest)
        except StoreError:
            await self._sleep(RETRY)
            return
        self._take(told)  # by another worker
        if wait > 0:
            await self._sleep(wait)
            return
        # The owner may have come during the claim, and what came later than `newest` is not covered by it.
        if (messages := self._take(newest)) and self._send:
            last = messages[-1]
            notice = Notification(last.username, last.text, last.timestamp, len(messages), self._public_url)
            self._on_sent(await self._send(notice))

    def _take(self, seq: int) -> list[Message]:
        """Takes out what is untold up to a seq."""
        taken = []
        while self._untold and self._untold[0].seq <= seq:
            taken.append(self._untold.popleft())
        return taken


def open_notifier(settings: Settings, engine: Engine) -> Notifier:
    """The notifier of a room, which tells nobody if its owner named no URL."""
    send = Webhook(settings.notify_url, notice_format(settings)).send if settings.notify_url else None
    claim: Claim = LocalClaim(settings.notify_quiet)
    if settings.engine_url.startswith("redis"):
        claim = partial(cast("RedisEngine", engine).room.claim_notice, quiet=settings.notify_quiet)
    return Notifier(send, claim, settings.public_url, _count)


def notice_format(settings: Settings) -> Format:
    """What is sent to NOTIFY_URL."""
    return settings.notify_format or format_of(settings.notify_url)


def _count(arrived: bool) -> None:
    metrics.notifications.inc("sent" if arrived else "failed")
