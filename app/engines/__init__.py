"""Engines: where messages are stored, and in which order. `open_engine` picks one by its URL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.config import Settings, SettingsError
from app.engines.archive import SQLiteArchive
from app.engines.base import By, Engine
from app.engines.drafts import Answer
from app.engines.memory import MemoryEngine
from app.engines.sqlite import SQLiteEngine

if TYPE_CHECKING:
    from app.engines.redis_room import RedisRoom

    Archive = SQLiteArchive | RedisRoom

__all__ = ["Answer", "By", "Engine", "open_archive", "open_engine"]

DRIVER = "ENGINE_URL=redis://… needs Redis' driver, which is not installed: pip install -r requirements-prod.txt"


def open_engine(settings: Settings) -> Engine:
    """The engine that `ENGINE_URL` names, not yet started. Raises SettingsError when its driver is missing."""
    keep = 1 + max(settings.history_limit, settings.recovery_limit)  # one more tells from where on they are whole
    batch_bytes = settings.ws_send_buffer // 2
    scheme, _, path = settings.engine_url.partition("://")
    if scheme == "sqlite":
        return SQLiteEngine(path[1:], keep, batch_bytes, settings.shutdown_timeout)
    if scheme == "memory":
        return MemoryEngine(keep, batch_bytes, settings.shutdown_timeout)
    room = _redis_room(settings)
    from app.engines.redis import RedisEngine  # noqa: PLC0415 - the driver is optional

    return RedisEngine(room, keep, batch_bytes)


def open_archive(settings: Settings) -> Archive:
    """What `ENGINE_URL` names, without an engine. Raises SettingsError when there is none, or no driver."""
    if settings.engine_url == "memory://":
        raise SettingsError("ENGINE_URL=memory:// keeps nothing: there is nothing to export, and nothing to wipe.")
    if settings.engine_url.startswith("sqlite"):
        return SQLiteArchive(settings.engine_url.removeprefix("sqlite:///"))
    return _redis_room(settings)


def _redis_room(settings: Settings) -> RedisRoom:
    try:
        from app.engines.redis_room import RedisRoom  # noqa: PLC0415 - the driver is optional
    except ImportError:
        raise SettingsError(DRIVER) from None
    return RedisRoom(settings.engine_url)
