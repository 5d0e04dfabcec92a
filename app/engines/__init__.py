"""Engines: where messages are stored, and in which order. `open_engine` picks one by its URL."""

from app.config import Settings
from app.engines.base import Engine
from app.engines.memory import MemoryEngine
from app.engines.sqlite import SQLiteEngine

__all__ = ["Engine", "open_engine"]


def open_engine(settings: Settings) -> Engine:
    """The engine that `ENGINE_URL` names, not yet started."""
    keep = max(settings.history_limit, settings.recovery_limit)
    batch_bytes = settings.ws_send_buffer // 2
    scheme, _, path = settings.engine_url.partition(":///")
    if scheme == "sqlite":
        return SQLiteEngine(path, keep, batch_bytes, settings.shutdown_timeout)
    return MemoryEngine(keep, batch_bytes)
