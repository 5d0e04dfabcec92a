"""How a log line looks: one line an event, whatever a client typed, and no query strings.

Uses the standard `logging`; the rest of the app logs through module loggers with `%s` arguments.
"""

from __future__ import annotations

import logging
from typing import Any


class LineFormatter(logging.Formatter):
    """`[INFO] User connected: ada`. What can't be printed is escaped, so that no client can forge a line."""

    def __init__(self) -> None:
        super().__init__("[%(levelname)s] %(message)s")

    def formatException(self, ei: Any) -> str:
        # Indented, for an exception's text may hold lines that look like ours.
        return "\n".join("  " + printable(line) for line in super().formatException(ei).splitlines())

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))


def printable(text: str) -> str:
    """The text with control, format and separator characters escaped."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


# uvicorn logs these as warnings and errors, though clients cause them, so that anybody could raise an alarm. The last
# follows every answer to a handshake other than 101.
_CLIENT_FAULTS = (
    "Invalid HTTP request received.",
    "Unsupported upgrade request.",
    "ASGI callable returned without completing handshake.",
)


class AccessFilter(logging.Filter):
    """Takes query strings out of uvicorn's lines, for they hold names. Lines that only repeat need level DEBUG.

    Lines about what a client did wrong become INFO.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.msg in _CLIENT_FAULTS:
            record.levelno, record.levelname = logging.INFO, "INFO"
        if isinstance(record.args, tuple):
            record.args = tuple(_without_query(arg) for arg in record.args)
        return not _only_repeats(record) or logging.getLogger("app").isEnabledFor(logging.DEBUG)


def _only_repeats(record: logging.LogRecord) -> bool:
    """The uptime monitor's polling, and what `User connected` and `User disconnected` say as well."""
    path = record.args[2:3] if record.name == "uvicorn.access" and isinstance(record.args, tuple) else ()
    polled = path in (("/health",), ("/ready",))
    return polled or "WebSocket %s" in str(record.msg) or record.msg in ("connection open", "connection closed")


def _without_query(arg: object) -> object:
    return arg.partition("?")[0] if isinstance(arg, str) and arg.startswith("/") else arg


def configure(level: str) -> None:
    """Sets the app's log level, and its output where no other logging was set up. Safe to call again."""
    logger = logging.getLogger("app")
    logger.setLevel(level)
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(LineFormatter())
        logger.addHandler(handler)
    for name in ("uvicorn.access", "uvicorn.error"):
        source = logging.getLogger(name)
        if not any(isinstance(known, AccessFilter) for known in source.filters):
            source.addFilter(AccessFilter())
