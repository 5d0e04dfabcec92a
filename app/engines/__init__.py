"""Engines: where messages are stored, and in which order. `open_engine` picks one by its URL."""

from app.config import Settings, SettingsError
from app.engines.base import By, Engine
from app.engines.drafts import Answer
from app.engines.memory import MemoryEngine
from app.engines.sqlite import SQLiteEngine

__all__ = ["Answer", "By", "Engine", "open_engine"]

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
    try:
        from app.engines.redis import RedisEngine  # noqa: PLC0415 - the driver is optional
        from app.engines.redis_room import RedisRoom  # noqa: PLC0415 - as above
    except ImportError:
        raise SettingsError(DRIVER) from None
    return RedisEngine(RedisRoom(settings.engine_url), keep, batch_bytes)
