"""Where messages are kept, in which order, and what several workers must agree on.

Knows records and how large their frames are; knows nothing of rooms, connections or HTTP. Outside this package nothing
asks which store it is. Read `store` first (the seam), then `engine` (one queue, one writer, one reader of the feed),
then one of the stores: `memory`, `sqlite` with `sql` and `lock`, or `redis`. `presence` is the other seam (sessions,
and the names that they hold), `claim` decides which worker notifies, `pruner` is the task that removes old messages.
"""

from __future__ import annotations

import importlib
from typing import NamedTuple

from app.config import Settings, SettingsError
from app.engines.claim import LocalClaim, NotificationClaim
from app.engines.engine import Engine
from app.engines.memory import MemoryStore
from app.engines.presence import LocalPresence, Presence
from app.engines.sqlite import SQLiteStore
from app.engines.store import Archive


class Backend(NamedTuple):
    """What belongs together: the messages, who is here, and the right to notify the owner."""

    engine: Engine
    presence: Presence
    claim: NotificationClaim


def open_backend(settings: Settings) -> Backend:
    """What `ENGINE_URL` names, not yet opened. Raises SettingsError when its driver is missing."""
    keep = 1 + max(settings.history_limit, settings.recovery_limit)  # one more tells from where on they are whole
    batch_bytes = settings.ws_send_buffer // 2
    owner, quiet = settings.owner_username, settings.notify_quiet
    if settings.engine_url.startswith("redis"):
        _require_driver()
        from app.engines.redis.claim import RedisClaim  # noqa: PLC0415 - the driver is optional
        from app.engines.redis.client import RedisClient  # noqa: PLC0415
        from app.engines.redis.presence import RedisPresence  # noqa: PLC0415
        from app.engines.redis.store import RedisStore  # noqa: PLC0415

        client = RedisClient(settings.engine_url)
        presence = RedisPresence(client, owner, settings.announce_limit)
        return Backend(Engine(RedisStore(client, keep), batch_bytes), presence, RedisClaim(client, quiet))
    timeout = settings.shutdown_timeout  # until another process that stops has released the store
    if settings.engine_url == "memory://":
        store: MemoryStore | SQLiteStore = MemoryStore(timeout)
    else:
        store = SQLiteStore(settings.engine_url.removeprefix("sqlite:///"), keep, timeout)
    return Backend(Engine(store, batch_bytes), LocalPresence(owner), LocalClaim(quiet))


def check_shared(settings: Settings) -> None:
    """Raises SettingsError unless `ENGINE_URL` names an engine that several workers can share."""
    if not settings.engine_url.startswith("redis"):
        advice = "set ENGINE_URL=redis://…, or start a single one"
        raise SettingsError(f"{settings.workers} workers share a room only through Redis: {advice}.")


def open_archive(settings: Settings) -> Archive:
    """The store that `ENGINE_URL` names, for the command line. Raises SettingsError for one that keeps nothing."""
    if settings.engine_url == "memory://":
        raise SettingsError(
            "ENGINE_URL=memory:// keeps nothing, so there is nothing to back up, restore, export or wipe."
        )
    if settings.engine_url.startswith("sqlite"):
        return SQLiteStore(settings.engine_url.removeprefix("sqlite:///"))
    _require_driver()
    from app.engines.redis.client import RedisClient  # noqa: PLC0415 - the driver is optional
    from app.engines.redis.store import RedisStore  # noqa: PLC0415

    return RedisStore(RedisClient(settings.engine_url))


def _require_driver() -> None:
    try:
        importlib.import_module("redis")
    except ImportError:
        raise SettingsError(
            "ENGINE_URL=redis://… needs Redis' driver, which is not installed: pip install -r requirements-prod.txt"
        ) from None
