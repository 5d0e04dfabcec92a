"""A worker that cannot reach Redis while the others can."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial

import pytest

from tests.conftest import Start
from tests.support.proxy import CHUNK, CuttingProxy, Side
from tests.support.running import RunningRedis, RunningServer, until
from tests.support.visitor import post_until_stored as post
from tests.support.visitor import visit
from tests.support.workers import HERE, NOTICED, THERE, agree, is_healthy, start_workers

pytestmark = pytest.mark.anyio


class StallingProxy(CuttingProxy):
    """Passes everything on to `port`, but for stalls, in which it takes connections and bytes and keeps them."""

    def __init__(self, port: int) -> None:
        super().__init__(port, seed=0, longest=0)
        self.stall_at = b""  # a stall begins with the bytes that hold this
        self.kept = 0  # times that bytes wait
        self._gate = asyncio.Event()
        self._gate.set()

    def stall(self) -> None:
        self._gate, self.stall_at = asyncio.Event(), b""

    def overtake(self) -> asyncio.Event:
        """Passes on what comes from now on. What was kept follows when the result is set."""
        gate, self._gate = self._gate, asyncio.Event()
        self._gate.set()
        return gate

    async def _pass_on(self, client: Side, server: Side) -> None:
        try:
            await asyncio.gather(self._carry(client, server), self._carry(server, client))
        finally:
            for _, writer in (client, server):
                writer.close()

    async def _carry(self, source: Side, sink: Side) -> None:
        with contextlib.suppress(OSError):
            while chunk := await source[0].read(CHUNK):
                if self.stall_at and self.stall_at in chunk:
                    self.stall()
                self.kept += 1
                await self._gate.wait()
                self.kept -= 1
                sink[1].write(chunk)
                await sink[1].drain()
        await self._gate.wait()
        sink[1].close()


@contextlib.asynccontextmanager
async def behind_proxy(start: Start, redis: RunningRedis) -> AsyncIterator[tuple[RunningServer, StallingProxy]]:
    """A worker that reaches Redis through a proxy."""
    async with StallingProxy(redis.port) as proxy:
        url = redis.url.replace(str(redis.port), str(proxy.port))
        server = await asyncio.to_thread(partial(start, ENGINE_URL=url))
        yield server, proxy
        server.kill()


async def test_worker_that_is_cut_off_says_so_and_catches_up(start: Start, redis: RunningRedis) -> None:
    (b,) = start_workers(start, redis, 1)
    async with (
        behind_proxy(start, redis) as (a, proxy),
        visit(a, "ada") as ada,
        visit(a, "cyd", subprotocols=None, additional_headers=HERE) as cyd,
        visit(b, "bob") as bob,
    ):
        await post(ada, "before", "before")
        await until(lambda: bob.count == 3)
        proxy.stall()
        for number in range(20):
            await post(bob, f"number {number}", f"n{number}")
        await until(lambda: ada.errors == ["unavailable"] == cyd.errors, NOTICED)
        await until(lambda: not is_healthy(a), NOTICED)
        assert is_healthy(b)
        await until(lambda: bob.count == 1, NOTICED)  # the other worker is taken for dead
        async with visit(b, "cyd", subprotocols=None, additional_headers=THERE) as other:
            assert other.errors == []
            proxy.overtake().set()
            await until(lambda: ada.seqs == bob.seqs == list(range(1, 22)))
            await until(lambda: is_healthy(a))
            await until(lambda: bool(cyd.code))
            assert (cyd.errors[1:], cyd.code) == (["username_taken"], 1008)
            await post(ada, "after", "after")
            await until(lambda: ada.seqs == bob.seqs == list(range(1, 23)))
            await until(lambda: agree([a, b], 3, 22))
            assert (ada.code, bob.code, other.code, bob.errors) == (None, None, None, [])
    assert "Traceback" not in a.log() + b.log()


async def test_what_reaches_redis_late_brings_nobody_back(start: Start, redis: RunningRedis) -> None:
    (b,) = start_workers(start, redis, 1)
    async with behind_proxy(start, redis) as (a, proxy), visit(b, "bob") as bob:
        proxy.stall_at = b'"zoe"'
        async with visit(a, "zoe"):
            assert proxy.kept  # the claim of the name, which is given up and sent again
        late = proxy.overtake()
        async with visit(a, "ada"):
            await until(lambda: agree([a, b], 2, 0))
            late.set()
            await until(lambda: not proxy.kept)
        await post(bob, "Hello", "n")
        await until(lambda: agree([a, b], 1, 1))
