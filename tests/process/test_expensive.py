"""Text that is expensive to check, sent within the rates: it holds nobody else up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import time
from collections.abc import AsyncIterator

import pytest

from tests.conftest import Start
from tests.support.running import HANDSHAKE, Client, RunningServer

pytestmark = pytest.mark.anyio

LENGTH = 10_000
TEXTS = {
    "entities": "&" * LENGTH,
    "tags": "<a/" * (LENGTH // 3),
    "attributes": "<a " + "b " * (LENGTH // 2 - 2),
    "marks": "\u0301" * (LENGTH // 2) + "\u0323" * (LENGTH // 2),
    "ligatures": "\ufdfa!" * (LENGTH // 2),
    "letters": "".join(map(chr, range(0x4E00, 0x4E00 + LENGTH))),
}
RATES = {"RATE_LIMIT_MESSAGES": "10", "RATE_LIMIT_ADDRESS": "100", "WS_MAX_CONNECTIONS_PER_IP": "50"}


def masked(payload: bytes) -> bytes:
    """A text frame of 64 KiB at most, whose mask changes nothing."""
    return b"\x81\xfe" + struct.pack(">H", len(payload)) + bytes(4) + payload


@contextlib.asynccontextmanager
async def peer(server: RunningServer, username: str, address: str) -> AsyncIterator[asyncio.StreamWriter]:
    """Somebody at another address, who reads everything and looks at nothing."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, local_addr=(address, 0))
    writer.write(HANDSHAKE.format(username=username).encode())
    await reader.readuntil(b"\r\n\r\n")

    async def drain() -> None:
        while await reader.read(2**20):
            pass

    draining = asyncio.create_task(drain())
    yield writer
    draining.cancel()
    writer.close()


async def round_trip(client: Client) -> float:
    """Seconds until a ping is answered."""
    began = time.monotonic()
    await client.send(type="ping")
    await client.read("pong")
    return time.monotonic() - began


POSTS = 5  # of each peer


@pytest.mark.parametrize("kind", TEXTS)
async def test_expensive_texts_of_five_addresses_hold_nobody_up(start: Start, kind: str) -> None:
    words = ",".join(f"word{number} phrase" for number in range(300))
    server = start(MAX_MESSAGE_LENGTH=str(LENGTH), BLOCKED_WORDS=words, **RATES)
    post = json.dumps({"type": "message", "content": TEXTS[kind]}, ensure_ascii=False).encode()
    async with contextlib.AsyncExitStack() as stack:
        ada = await stack.enter_async_context(server.connect("ada"))
        peers = [
            await stack.enter_async_context(peer(server, f"peer{host}-{number}", f"127.0.0.{host}"))
            for host in range(2, 7)
            for number in range(2)
        ]
        for writer in peers:
            writer.write(masked(post) * POSTS)
        await ada.say("still there?", nonce="1")
        trips = [await round_trip(ada)]
        while server.stats()["total_messages"] <= POSTS * len(peers):
            trips.append(await round_trip(ada))
            await asyncio.sleep(0.02)
        began = time.monotonic()
        await ada.say("and now?", nonce="2")
        while (await ada.read("message"))["data"].get("nonce") != "2":
            pass
        trips.append(time.monotonic() - began)
        assert max(trips) < 1.0


async def test_long_and_short_messages_of_one_client_keep_their_order(start: Start) -> None:
    server = start(MAX_MESSAGE_LENGTH=str(LENGTH))
    async with server.connect("ada") as ada:
        sent = [f"{number} {'&' * (LENGTH - 10) if number % 3 else ''}" for number in range(30)]
        for text in sent:
            await ada.say(text)
        received = [(await ada.read("message"))["data"] for _ in sent]
        assert [data.get("text", data["content"]) for data in received] == sent


async def test_long_message_is_answered_while_many_others_wait_for_their_turn(start: Start) -> None:
    server = start(MAX_MESSAGE_LENGTH=str(LENGTH))
    frame = masked(json.dumps({"type": "message", "content": TEXTS["tags"]}).encode())
    async with server.connect("ada") as ada, contextlib.AsyncExitStack() as stack:
        for number in range(40):
            writer = await stack.enter_async_context(peer(server, f"peer{number}", "127.0.0.2"))
            writer.write(frame * 5)
        began = time.monotonic()
        await ada.say("x" * LENGTH, nonce="1")
        while (await ada.read("message"))["data"].get("nonce") != "1":
            pass
        assert time.monotonic() - began < 1.0
