"""Notifies the owner that visitors write: at once, then no more than once in a quiet time, over all workers together.

Decides when there is something to notify of; how it is sent is for the `send` that it is given.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Container, Sequence

from app import metrics
from app.config import Settings
from app.engines.claim import NotificationClaim
from app.exceptions import StoreError
from app.message import Message
from app.owner.formats import MAX_COUNT, Format, Notification, format_of
from app.owner.webhook import Webhook

RETRY = 5.0  # seconds after which a store that failed is asked again


class Notifier:
    """Keeps what the owner has not been notified of, the last 1000 messages at most, and sends it when it may.

    `send` returns whether a notification arrived, and raises nothing; without it nothing is sent. `on_sent` gets that
    answer. What is on its way when the process ends, or failed, is not sent again.
    """

    def __init__(
        self,
        send: Callable[[Notification], Awaitable[bool]] | None,
        claim: NotificationClaim,
        public_url: str = "",
        on_sent: Callable[[bool], object] = lambda ok: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._send = send
        self._claim = claim
        self._public_url = public_url
        self._on_sent = on_sent
        self._sleep = sleep
        self._waiting: deque[Message] = deque(maxlen=MAX_COUNT)  # by seq
        self._added = asyncio.Event()

    def add(self, messages: Sequence[Message]) -> None:
        """Takes delivered messages, oldest first, while the owner is not online. Never waits, never raises."""
        if not self._send:
            return
        self._waiting.extend(message for message in messages if message.role != "owner")
        if self._waiting:
            self._added.set()

    def clear(self) -> None:
        """Drops what waits: the owner sees the room now."""
        self._waiting.clear()

    def remove(self, seqs: Container[int]) -> None:
        """Drops messages that were deleted, by their author or by the owner."""
        self._waiting = deque((message for message in self._waiting if message.seq not in seqs), MAX_COUNT)

    async def run(self) -> None:
        """Notifies the owner until cancelled."""
        while True:
            while not self._waiting:
                self._added.clear()
                await self._added.wait()
            await self._notify()

    async def _notify(self) -> None:
        newest = self._waiting[-1].seq
        try:
            wait, notified = await self._claim(newest)
        except StoreError:
            await self._sleep(RETRY)
            return
        self._pop(notified)  # by another worker
        if wait > 0:
            await self._sleep(wait)
            return
        # The owner may have come during the claim, and what came later than `newest` is not covered by it.
        if (messages := self._pop(newest)) and self._send:
            last = messages[-1]
            notification = Notification(last.username, last.text, last.timestamp, len(messages), self._public_url)
            self._on_sent(await self._send(notification))

    def _pop(self, seq: int) -> list[Message]:
        """Removes and returns what waits, up to a seq."""
        taken = []
        while self._waiting and self._waiting[0].seq <= seq:
            taken.append(self._waiting.popleft())
        return taken


def open_notifier(settings: Settings, claim: NotificationClaim) -> Notifier:
    """Makes the notifier of a room, which sends nothing if NOTIFY_URL is not set."""
    send = Webhook(settings.notify_url, notification_format(settings)).send if settings.notify_url else None
    return Notifier(send, claim, settings.public_url, _count)


def notification_format(settings: Settings) -> Format:
    """Returns the format in which NOTIFY_URL is sent to."""
    return settings.notify_format or format_of(settings.notify_url)


def _count(arrived: bool) -> None:
    metrics.notifications.inc("sent" if arrived else "failed")
