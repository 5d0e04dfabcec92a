"""Tells the owner that visitors write: at once, and then no more than once in a quiet time, over all workers together.

Decides when there is what to tell. How it is told, and who else tells the owner, is for others to know.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Container, Sequence

from app import metrics
from app.config import Settings
from app.engines.presence import Claim
from app.exceptions import StoreError
from app.message import Message
from app.owner.formats import MOST, Format, Notification, format_of
from app.owner.webhook import Webhook

RETRY = 5.0  # seconds after which a store that was gone is asked again


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
        self._untold: deque[Message] = deque(maxlen=MOST)  # by seq
        self._heard = asyncio.Event()

    def add(self, messages: Sequence[Message]) -> None:
        """Takes delivered messages, oldest first, while no owner is here. Never waits, never raises."""
        if not self._send:
            return
        self._untold.extend(message for message in messages if message.role != "owner")
        if self._untold:
            self._heard.set()

    def clear(self) -> None:
        """The owner is here, and sees the room: what is not told need not be."""
        self._untold.clear()

    def remove(self, seqs: Container[int]) -> None:
        """These messages were hidden: who took one back, or should not have written it, is not told of either."""
        self._untold = deque((message for message in self._untold if message.seq not in seqs), MOST)

    async def run(self) -> None:
        """Notifies the owner until cancelled."""
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


def open_notifier(settings: Settings, claim: Claim) -> Notifier:
    """The notifier of a room, which tells nobody if its owner named no URL."""
    send = Webhook(settings.notify_url, notice_format(settings)).send if settings.notify_url else None
    return Notifier(send, claim, settings.public_url, _count)


def notice_format(settings: Settings) -> Format:
    """What is sent to NOTIFY_URL."""
    return settings.notify_format or format_of(settings.notify_url)


def _count(arrived: bool) -> None:
    metrics.notifications.inc("sent" if arrived else "failed")
