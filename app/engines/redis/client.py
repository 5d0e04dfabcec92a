"""The connection to Redis, and the scripts that change the room in it.

Each change is one Lua script, so that it happens whole or not at all.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import DataError, NoPermissionError, RedisError, ResponseError

from app.exceptions import StoreError

PREFIX = "{portfolio-chat}:"  # of every key; in braces, so that a Redis Cluster keeps all of them on one node
SCRIPTS = ("open", "store", "change", "presence", "notification")
TIMEOUT = 2.5  # seconds for any other answer, so that a second try fits into the store's timeout
OLDEST = (6, 2)  # version of Redis

logger = logging.getLogger(__name__)


class RedisClient:
    """One process's connections to the database that `url` names. Every method raises StoreError.

    `commands` runs Redis' commands; `reader` those that block for up to `read_timeout` seconds, which also find out
    whether the connection still lives. Await both through `ask`.
    """

    def __init__(self, url: str, read_timeout: float = 5.0) -> None:
        self.read_timeout = read_timeout
        parts = urlsplit(url)
        self.name = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))  # no password
        options: Any = {"retry": Retry(NoBackoff(), 0), "protocol": 2, "socket_connect_timeout": TIMEOUT}
        self.commands = Redis.from_url(url, socket_timeout=TIMEOUT, **options)
        self.reader = Redis.from_url(url, socket_timeout=read_timeout + TIMEOUT, **options)
        directory = Path(__file__).parent
        self._scripts: dict[str, Any] = {
            name: self.commands.register_script((directory / f"{name}.lua").read_text()) for name in SCRIPTS
        }

    async def check(self) -> None:
        """Warns the owner when Redis may forget. Raises StoreError when it is too old."""
        try:
            info = await self.ask(self.commands.info())
        except StoreError as error:
            if isinstance(error.__cause__, NoPermissionError):
                return
            raise
        version = str(info.get("redis_version", "7.0"))
        if tuple(map(int, version.split(".")[:2])) < OLDEST:
            raise StoreError(f"{self.name} is Redis {version}. Use Redis 6.2 or later, or Valkey.")
        if not info.get("aof_enabled"):
            logger.warning("%s loses messages when it stops. Set: appendonly yes, appendfsync always", self.name)
        elif info.get("maxmemory_policy", "noeviction") != "noeviction":
            logger.warning("%s may drop messages when it is full. Set: maxmemory-policy noeviction", self.name)

    async def run(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Runs one of SCRIPTS with these keys, which get the prefix."""
        return await self.ask(self._scripts[script](keys=[PREFIX + key for key in keys], args=arguments))

    async def ask(self, answer: Awaitable[Any]) -> Any:
        """Awaits the driver's answer, and turns whatever it raises into StoreError.

        A connection that breaks comes out as any exception, of the driver, asyncio or uvloop (which raises RuntimeError
        on a transport that the peer has reset); the driver closes such a connection. DataError alone is our own fault:
        an argument that cannot be encoded.
        """
        try:
            return await answer
        except DataError:
            raise
        except Exception as error:
            reason = str(error).rstrip(".") if isinstance(error, (RedisError, OSError)) else repr(error)
            advice = "" if isinstance(error, ResponseError) else " Check that Redis runs, and ENGINE_URL."
            raise StoreError(f"{self.name}: {reason or type(error).__name__}.{advice}") from error

    async def close(self) -> None:
        """Closes all connections. Safe to call again."""
        for client in (self.commands, self.reader):
            with contextlib.suppress(StoreError):  # a broken connection is closed already
                await self.ask(client.aclose())
