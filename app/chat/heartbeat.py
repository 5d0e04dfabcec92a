"""The heartbeat: one task that pings everybody and closes who has been silent for too long.

Knows connections and their senders, nothing of the room.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from app.chat.registry import ConnectionRegistry
from app.exceptions import CloseCode
from app.wire import frames
from app.wire.frames import PreparedFrames

logger = logging.getLogger(__name__)

PING = PreparedFrames([frames.encode(frames.PingFrame())])


class Heartbeat:
    """Pings every `interval` seconds; closes after `timeout` seconds of silence, on the registry's clock.

    A client that sent anything is alive. A stall of the event loop also delays what clients sent, so after
    one everybody gets an interval more before anyone is closed. `on_beat` is called at each beat, several times an
    interval.
    """

    def __init__(
        self,
        registry: ConnectionRegistry,
        interval: float,
        timeout: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        on_beat: Callable[[], object] = lambda: None,
    ) -> None:
        self._registry = registry
        self._interval = interval
        self._timeout = timeout
        self._sleep = sleep
        self._on_beat = on_beat
        # Looking more often than pinging lets the timeout be kept to a tenth.
        self._step = min(interval, timeout / 10)

    async def run(self) -> None:
        """Beats until cancelled."""
        next_ping = self._registry.clock() + self._interval
        while True:
            step = max(0.0, min(self._step, next_ping - self._registry.clock()))
            expected = self._registry.clock() + step
            await self._sleep(step)
            now = self._registry.clock()
            if now - expected > self._step:
                self._forgive(now)
            self._close_silent(now)
            self._on_beat()
            if now >= next_ping:
                next_ping = now + self._interval
                for _ in self._registry.broadcast(PING):
                    await asyncio.sleep(0)

    def _forgive(self, now: float) -> None:
        logger.warning("The event loop stood still, so nobody is closed for silence yet")
        for connection, _ in self._registry.senders():
            connection.last_seen = max(connection.last_seen, now - self._timeout + self._interval)

    def _close_silent(self, now: float) -> None:
        for connection, sender in self._registry.senders():
            if now - connection.last_seen > self._timeout:
                sender.close(CloseCode.SILENT)
