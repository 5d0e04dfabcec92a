"""A TCP proxy that cuts connections at random points, in both directions and in every manner a network knows."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import socket
import struct
from collections.abc import Coroutine
from typing import Self

CHUNK = 65_536  # bytes
SHORTEST = 200  # bytes; a handshake takes about twice as many
HANDSHAKE = 1_000  # bytes, more than it takes in either direction
RESET = struct.pack("ii", 1, 0)  # closing then sends RST and drops what is still unsent
MANNERS = ("close", "reset", "silence")

Side = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class CuttingProxy:
    """Listens on a free port of 127.0.0.1 and passes on to `port`, a server that may come and go.

    While `cutting`, each new connection gets a random number of bytes (`longest` at most) in each direction; whichever
    is used up first, most often in the middle of a frame, ends it: by a close, by RST, or by passing on nothing more
    and saying nothing, which only a watchdog finds out. Both sides of a connection end in manners of their own.
    """

    def __init__(self, port: int, seed: int, longest: int) -> None:
        self.cutting = False
        self.cuts: dict[str, int] = dict.fromkeys(MANNERS, 0)
        self._target = port
        self._dice = random.Random(seed)
        self._longest = longest
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._connections.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                upstream = await asyncio.open_connection("127.0.0.1", self._target)
                await self._pass_on((reader, writer), upstream)
        finally:
            writer.transport.abort()
            self._connections.discard(task)

    async def _pass_on(self, client: Side, server: Side) -> None:
        """Both directions, until one of them ends or is used up."""
        up, down = (self._budget() if self.cutting else None for _ in range(2))
        try:
            if await _first(_pump(client, server, up), _pump(server, client, down)):
                # Nobody's watchdog is awake during a handshake, so that silence would only take time.
                may_be_silent = up is not None and down is not None and min(up, down) > HANDSHAKE
                await self._cut(client, server, silence=may_be_silent)
        finally:
            for _, writer in (client, server):
                writer.close()

    def _budget(self) -> int:
        """Mostly few bytes, at times many: or a recovery that takes many could never be had."""
        return int(math.exp(self._dice.uniform(math.log(SHORTEST), math.log(self._longest))))

    async def _cut(self, *sides: Side, silence: bool) -> None:
        for reader, writer in sides:
            manner = self._dice.choices(MANNERS, weights=(5, 5, 2 * silence))[0]
            self.cuts[manner] += 1
            if manner == "silence":
                await _first(*(_swallow(reader) for reader, _ in sides))
            elif manner == "reset":
                _abort(writer)
            else:
                writer.close()


class ResettingProxy(CuttingProxy):
    """Passes everything on to `port`, until `reset` ends all connections of its clients by RST."""

    def __init__(self, port: int) -> None:
        super().__init__(port, seed=0, longest=0)
        self.accepted = 0  # connections
        self._clients: list[asyncio.StreamWriter] = []

    def reset(self) -> None:
        """The connections are idle, so that the client finds out at once, or when it uses them next."""
        for writer in self._clients:
            _abort(writer)
        self._clients.clear()

    async def _pass_on(self, client: Side, server: Side) -> None:
        self.accepted += 1
        self._clients.append(client[1])
        await super()._pass_on(client, server)


def _abort(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


async def _first(*coroutines: Coroutine[None, None, bool]) -> bool:
    """What the first one to end says; the others are cancelled."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return any(task.result() for task in done)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(source: Side, sink: Side, budget: int | None) -> bool:
    """Passes bytes on until the source ends (False) or the budget is used up (True)."""
    while chunk := await source[0].read(CHUNK):
        sink[1].write(chunk[:budget])
        await sink[1].drain()
        if budget is not None:
            budget -= len(chunk)
            if budget <= 0:
                return True
    return False


async def _swallow(reader: asyncio.StreamReader) -> bool:
    while await reader.read(CHUNK):
        pass
    return True
