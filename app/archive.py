"""What is stored, without the server: all of it as JSON lines, or none of it any more.

`export` works beside a running server; `wipe` has the store to itself.
"""

from __future__ import annotations

import asyncio
import sys

from app.config import Settings
from app.engines import open_archive
from app.web.responses import StoredMessage

QUESTION = "This deletes the room for good: messages, bans, and the key of the tokens. Type wipe to go on: "


def export(settings: Settings) -> None:
    """Writes every message to standard output, oldest first, one JSON object a line. Raises StoreError."""
    asyncio.run(_export(settings))


def wipe(settings: Settings, sure: bool) -> None:
    """Deletes the room; asks first, unless `sure`. Raises StoreError, also while a server uses it."""
    asyncio.run(_wipe(settings, sure))


async def _export(settings: Settings) -> None:
    archive = open_archive(settings)
    try:
        async for message in archive.messages():
            sys.stdout.write(StoredMessage.of(message).model_dump_json(exclude_none=True) + "\n")
        sys.stdout.flush()
    finally:
        await archive.close()


async def _wipe(settings: Settings, sure: bool) -> None:
    archive = open_archive(settings)
    try:
        await archive.claim()
        if not sure and _asked() != "wipe":
            sys.exit("Nothing was deleted.")
        await archive.wipe()
    finally:
        await archive.close()
    sys.stderr.write("The room is empty. The next start makes a new one.\n")


def _asked() -> str:
    sys.stderr.write(QUESTION)
    sys.stderr.flush()
    return sys.stdin.readline().strip()
