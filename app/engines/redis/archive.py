"""The room in Redis without its engine: all that is in it, or nothing any more."""

from __future__ import annotations

from collections.abc import AsyncIterator

from app.engines.base import FIRST, LAST
from app.engines.redis.client import PAGE, PREFIX, RedisRoom
from app.exceptions import StoreError
from app.message import Message


class RedisArchive(RedisRoom):
    """One room in the database that `url` names, without workers. Everything raises StoreError."""

    async def messages(self) -> AsyncIterator[Message]:
        """All that is stored, oldest first, also beside running servers."""
        epoch = await self._answer(self._client.hget(PREFIX + "room", "epoch"))
        async for record in self.walk(epoch.decode() if epoch else "", FIRST, LAST):
            if isinstance(record.content, Message):
                yield record.content

    async def claim(self) -> None:
        """Raises StoreError when a server is there."""
        now = await self._answer(self._client.time())
        if await self._answer(self._client.zcount(PREFIX + "workers", 1000 * now[0], "+inf")):
            raise StoreError(f"{self._name} is in use. Stop the servers first; who was killed counts for 9 s.")

    async def wipe(self) -> None:
        """Deletes everything."""
        await self.claim()
        cursor = None
        while cursor != 0:
            cursor, keys = await self._answer(self._client.scan(cursor or 0, PREFIX + "*", PAGE))
            if keys:
                await self._answer(self._client.delete(*keys))
        info = await self._answer(self._client.info("persistence"))
        if info.get("aof_enabled"):  # else what was deleted stays in that file until it is large
            await self._answer(self._client.bgrewriteaof())
