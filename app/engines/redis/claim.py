"""The right to notify the owner, over all workers of a room in Redis."""

from __future__ import annotations

from app.engines.redis.client import RedisClient


class RedisClaim:
    """The claim of one worker among many (notification.lua). `quiet` is the quiet time in seconds."""

    def __init__(self, client: RedisClient, quiet: float) -> None:
        self._client = client
        self._quiet = quiet

    async def __call__(self, seq: int) -> tuple[float, int]:
        """See `NotificationClaim`."""
        wait, notified = await self._client.run("notification", ["room"], [seq, int(1000 * self._quiet)])
        return wait / 1000, notified
