"""Whether the owner is here, over several workers, when others come and go at the same moment."""

from __future__ import annotations

import pytest

from app.engines.redis.client import RedisRoom

pytestmark = pytest.mark.anyio

SETTINGS = (9000, 5000, 60_000, 50, "owner")


async def test_owner_who_leaves_as_a_visitor_returns_is_told_to_the_other_workers(redis_url: str) -> None:
    """The number of users stays, and nobody is announced: a visitor returns within a moment."""
    room = RedisRoom(redis_url)
    try:
        ada, owner = (["claim", name, name, "a", True, ""] for name in ("ada", "owner"))
        await room.run_presence("one", [["begin"], ada, owner, ["release", "ada"]], 1, 0, SETTINGS)
        version = (await room.run_presence("two", [["begin"]], 1, 0, SETTINGS))[0]
        await room.run_presence("one", [["release", "owner"], ada], 2, version, SETTINGS)
        told = (await room.run_presence("two", [], 2, version, SETTINGS))[:3]
        assert (told[0] > version, told[1:]) == (True, (1, False))
    finally:
        await room.close()
