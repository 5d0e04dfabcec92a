"""Servers with several workers, and the Redis that they share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from redis import Redis

from tests.conftest import Start
from tests.support.running import RunningRedis, RunningServer

HERE, THERE = ({"X-Forwarded-For": address} for address in ("1.2.3.4", "5.6.7.8"))
NOTICED = 15.0  # seconds within which an outage shows in /health


def start_workers(start: Start, redis: RunningRedis, count: int = 2, **variables: str) -> list[RunningServer]:
    return [start(ENGINE_URL=redis.url, SHUTDOWN_SPREAD="0", **variables) for _ in range(count)]


def agree(servers: list[RunningServer], users: int, messages: int) -> bool:
    """Whether all of them count so many."""
    return all(server.stats() == {"active_users": users, "total_messages": messages} for server in servers)


def is_healthy(server: RunningServer) -> bool:
    return server.get("/health").status_code == 200


def started(server: RunningServer) -> list[int]:
    """The process ids of all workers that have been started, in that order."""
    return [int(pid) for pid in re.findall(r"Started server process \[(\d+)\]", server.log())]


def everything(url: str) -> Iterator[str]:
    """All that Redis holds, key by key."""
    with Redis.from_url(url, decode_responses=True) as redis:
        for key in redis.scan_iter():
            read: dict[str, Callable[[str], object]] = {
                "stream": redis.xrange,
                "hash": redis.hgetall,
                "string": redis.get,
                "set": redis.smembers,
                "zset": lambda key: redis.zrange(key, 0, -1),
            }
            yield f"{key} {read[redis.type(key)](key)}"
