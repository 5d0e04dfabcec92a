"""Background tasks that have a name, are ended by the code that started them, and log an error when they fail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

logger = logging.getLogger(__name__)


def spawn(body: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Starts a task. The caller must keep a reference to it, and `end` it."""
    task = asyncio.create_task(body, name=name)
    task.add_done_callback(_report)
    return task


async def end(task: asyncio.Task[None]) -> None:
    """Cancels a task and waits until it has ended. Safe to call again.

    Cancels repeatedly, because until Python 3.12 `asyncio.wait_for`, which libraries use, could lose a cancellation.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=0.5)


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        logger.error("Task %s died: %s", task.get_name(), type(error).__name__, exc_info=error)
