"""Engines: where messages are stored, and in which order. `open_engine` picks one by its URL."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from app.config import Settings, SettingsError
from app.engines.archive import SQLiteArchive
from app.engines.base import LAST, By, Engine
from app.engines.drafts import Answer
from app.engines.memory import MemoryEngine
from app.engines.sqlite import SQLiteEngine

if TYPE_CHECKING:
    from app.engines.redis.archive import RedisArchive

    Archive = SQLiteArchive | RedisArchive

__all__ = ["LAST", "Answer", "By", "Engine", "open_archive", "open_engine"]

DRIVER = "ENGINE_URL=redis://… needs Redis' driver, which is not installed: pip install -r requirements-prod.txt"


def open_engine(settings: Settings) -> Engine:
    """The engine that `ENGINE_URL` names, not yet started. Raises SettingsError when its driver is missing."""
    keep = 1 + max(settings.history_limit, settings.recovery_limit)  # one more tells from where on they are whole
    batch_bytes = settings.ws_send_buffer // 2
    if settings.engine_url.startswith("sqlite"):
        return SQLiteEngine(
            settings.engine_url.removeprefix("sqlite:///"), keep, batch_bytes, settings.shutdown_timeout
        )
    if settings.engine_url == "memory://":
        return MemoryEngine(keep, batch_bytes, settings.shutdown_timeout)
    with _driver():
        from app.engines.redis.client import RedisRoom  # noqa: PLC0415 - as above
        from app.engines.redis.store import RedisEngine  # noqa: PLC0415 - the driver is optional
    return RedisEngine(RedisRoom(settings.engine_url), keep, batch_bytes)


def open_archive(settings: Settings) -> Archive:
    """What `ENGINE_URL` names, without an engine. Raises SettingsError when there is none, or no driver."""
    if settings.engine_url == "memory://":
        raise SettingsError("ENGINE_URL=memory:// keeps nothing: there is nothing to export, and nothing to wipe.")
    if settings.engine_url.startswith("sqlite"):
        return SQLiteArchive(settings.engine_url.removeprefix("sqlite:///"))
    with _driver():
        from app.engines.redis.archive import RedisArchive  # noqa: PLC0415 - as above
    return RedisArchive(settings.engine_url)


@contextlib.contextmanager
def _driver() -> Iterator[None]:
    try:
        yield
    except ImportError:
        raise SettingsError(DRIVER) from None
