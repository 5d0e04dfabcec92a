"""A real HTTP server that takes notifications, and answers well, badly, slowly or never."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any, Literal, Self

Answer = int | Literal["never", "drip", "nonsense"]
DRIP = 0.01  # seconds


class Receiver:
    """Listens on 127.0.0.1. Gives one answer a request, the last one again and again; a number is a status."""

    def __init__(self, *answers: Answer) -> None:
        self.requests: list[bytes] = []
        self.open = 0  # connections
        self._answers = list(answers or (200,))
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self.until_left()

    def url(self, path: str = "/hook", userinfo: str = "", scheme: str = "http") -> str:
        """Where it is."""
        return f"{scheme}://{userinfo}127.0.0.1:{self.port}{path}"

    def bodies(self) -> list[dict[str, Any]]:
        """The JSON that it was sent."""
        return [json.loads(request.partition(b"\r\n\r\n")[2]) for request in self.requests]

    async def until_asked(self, count: int = 1) -> None:
        """Waits for so many requests."""
        await self._until(lambda: len(self.requests) >= count)

    async def until_left(self) -> None:
        """Waits until every client has gone."""
        await self._until(lambda: self.open == 0)

    async def _until(self, condition: Any) -> None:
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(condition)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._note(1)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._answer(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        await self._note(-1)

    async def _note(self, change: int, request: bytes = b"") -> None:
        async with self._changed:
            self.open += change
            self.requests += [request] if request else []
            self._changed.notify_all()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(1)
        if first == b"\x16":  # the beginning of a TLS handshake, which is never answered
            await self._note(0, first)
        else:
            head = first + await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
            await self._note(0, head + await reader.readexactly(length))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if answer == "never" or first == b"\x16":
            await reader.read()  # to the end of the connection
        elif answer == "drip":
            writer.write(b"HTTP/1.1 200 OK\r\nDrip: ")
            while not reader.at_eof():
                writer.write(b".")
                await writer.drain()
                await asyncio.sleep(DRIP)
        elif answer == "nonsense":
            writer.write(b"leaked answer\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 %d leaked answer\r\nLocation: /elsewhere\r\n\r\nleaked answer" % answer)
