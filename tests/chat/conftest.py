"""Fixtures for the tests of the room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.chat import RunningChat, StartChat

TASKS = {"announcer", "farewell", "engine writer", "engine reader"}


@pytest.fixture
async def start_chat() -> AsyncIterator[StartChat]:
    """`await start_chat(**settings)`: a chat that is stopped at the end, after which no task of it may be left."""
    chats: list[RunningChat] = []

    async def start(**changes: Any) -> RunningChat:
        chats.append(RunningChat(**changes))
        await chats[-1].start()
        return chats[-1]

    yield start
    for chat in chats:
        await chat.room.stop()
        await chat.engine.stop()
    assert not TASKS & {task.get_name() for task in asyncio.all_tasks()}
