"""What the value of a setting may be. Each function returns the value to use, or raises ValueError.

Knows nothing of which setting it is.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit


def split(value: object) -> object:
    """A list from what is written between commas."""
    return [item for item in (part.strip() for part in value.split(",")) if item] if isinstance(value, str) else value


def origin(value: str) -> str:
    """RFC 6454: an origin is scheme, host and port; a path or a trailing slash would never match one."""
    origin = value.lower().rstrip("/")
    if value != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:]+\]|[^\s/?#@\[\]\"',:]+)(:\d+)?", origin):
        raise ValueError("no origin")
    return origin


def public_url(value: str) -> str:
    """A web address; a path may follow."""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError("no web address")
    return value


def secret_key(value: str) -> str:
    """Long enough not to be guessed."""
    if len(value) < 16:
        raise ValueError("too short")
    return value


def owner_token(value: str) -> str:
    """What fits into a subprotocol, and is no session token (the wire contract)."""
    if not re.fullmatch(r"[A-Za-z0-9._~-]{32,256}", value) or value.startswith("s1."):
        raise ValueError("no owner token")
    return value


def username(value: str) -> str:
    """One that a user may have, too."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,200}", value):
        raise ValueError("no username")
    return value


def network(value: str) -> str:
    """No `*`: it would believe the address that the visitor itself wrote."""
    ipaddress.ip_network(value, strict=False)
    return value


def engine_url(value: str) -> str:
    """One of the engines, with what it needs."""
    scheme, _, path = value.partition("://")
    if value == "memory://" or (scheme == "sqlite" and path[:1] == "/" and path not in ("/", "/:memory:")):
        return value
    parts = urlsplit(value)
    if (
        "#" not in value
        and scheme in ("redis", "rediss")
        and parts.hostname
        and parts.port != 0
        and re.fullmatch(r"(/\d*)?", parts.path)
    ):
        return value
    raise ValueError("unknown engine")
