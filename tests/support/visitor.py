"""Visitors of a real server: how they connect, what they got, and why they were refused."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.support.running import Client, RunningServer, until

OWNER = "a-token-of-the-owner.0123456789-abcdef"


def offer(*more: str) -> dict[str, Any]:
    return {"subprotocols": [Subprotocol(name) for name in ("chat.v1", *more)]}


async def session(server: RunningServer, name: str, token: str | None = None, **options: Any) -> dict[str, Any]:
    """Connects, and leaves once it has its session."""
    bearer = [f"bearer.{token}"] if token else []
    async with server.connect(name, **offer(*bearer), **options) as client:
        data: dict[str, Any] = (await client.read("session"))["data"]
        return data


async def refusal(server: RunningServer, name: str, **options: Any) -> tuple[str, int, dict[str, Any]]:
    """The code, close code and data of a refused connection."""
    async with server.connect(name, **options) as client:
        data = (await client.read())["data"]
        with pytest.raises(ConnectionClosed) as closed:
            await client.read()
        assert closed.value.rcvd
        return data["code"], closed.value.rcvd.code, data


class Visitor:
    """A client that remembers all that it gets. `code`: the close code, once the connection has ended."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.frames: list[dict[str, Any]] = []
        self.code: int | None = None

    async def listen(self) -> None:
        self.code = await self.client.read_all(self.frames.append)

    def datas(self, *types: str) -> list[dict[str, Any]]:
        """The data of all frames of these types."""
        return [frame["data"] for frame in self.frames if frame["type"] in types]

    @property
    def seqs(self) -> list[int]:
        """Of the messages that came live."""
        return [data["seq"] for data in self.datas("message")]

    @property
    def session(self) -> dict[str, Any]:
        return self.datas("session")[0]

    @property
    def errors(self) -> list[str]:
        return [data["code"] for data in self.datas("error")]

    @property
    def news(self) -> list[str]:
        """Who came and left."""
        return [f"{data['user']} {data['event'].removeprefix('user_')}" for data in self.datas("system")]

    @property
    def count(self) -> int:
        """The users, as it was told last."""
        return int(self.datas("user_count")[-1]["count"])


@contextlib.asynccontextmanager
async def visit(
    server: RunningServer, name: str, token: str = "", query: str = "", **options: Any
) -> AsyncIterator[Visitor]:
    """Somebody in the room, who can prove to be the same again."""
    bearer = [f"bearer.{token}"] if token else []
    async with server.connect(name, query, **{**offer(*bearer), **options}) as client:
        visitor = Visitor(client)
        listening = asyncio.create_task(visitor.listen())
        try:
            await until(lambda: bool(visitor.datas("user_count")) or listening.done())
            yield visitor
        finally:
            await client.socket.close()
            await listening


async def past(server: RunningServer, query: str = "") -> tuple[list[dict[str, Any]], bool]:
    """What somebody who comes sees, and whether that is called a recovery."""
    async with visit(server, "reader", query=query, subprotocols=None) as reader:
        return reader.frames[0]["data"], reader.frames[0]["recovered"]


async def post_until_stored(visitor: Visitor, content: str, nonce: str) -> None:
    """Posts, again after each refusal, until the message comes back."""

    def answers() -> list[dict[str, Any]]:
        frames = visitor.frames[asked:]
        return [
            frame for frame in frames if frame["type"] in ("message", "error") and frame["data"].get("nonce") == nonce
        ]

    answer = {"type": "error"}
    while answer["type"] == "error":
        asked = len(visitor.frames)
        await visitor.client.say(content, nonce=nonce)
        await until(lambda: bool(answers()))
        (answer,) = answers()
        await asyncio.sleep(0.05)
