"""Log lines: their form, what no client can forge, and what is not said at all."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

import pytest

from app.log import AccessFilter, LineFormatter, configure, printable

ACCESS = '%s - "%s %s HTTP/%s" %d'


@pytest.fixture(autouse=True)
def app_logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("app")
    before = logger.level, logger.handlers[:]
    yield logger
    logger.setLevel(before[0])
    logger.handlers[:] = before[1]


def record(message: str, *args: object, level: int = logging.INFO, name: str = "app.chat.room") -> logging.LogRecord:
    return logging.LogRecord(name, level, __file__, 1, message, args, None)


def access(path: str, method: str = "GET") -> logging.LogRecord:
    return record(ACCESS, "127.0.0.1:1", method, path, "1.1", 200, name="uvicorn.access")


@pytest.mark.parametrize(
    ("level", "line"),
    [(logging.INFO, "[INFO] User connected: ada"), (logging.ERROR, "[ERROR] User connected: ada")],
)
def test_line_has_level_and_message(level: int, line: str) -> None:
    assert LineFormatter().format(record("User connected: %s", "ada", level=level)) == line


@pytest.mark.parametrize(
    ("char", "shown"),
    [
        ("\n", r"\n"),
        ("\r", r"\r"),
        ("\t", r"\t"),
        ("\x00", r"\x00"),
        ("\x1b", r"\x1b"),
        ("\x85", r"\x85"),
        ("\x9b", r"\x9b"),
        ("\u2028", r"\u2028"),
        ("\u202e", r"\u202e"),
        ("\ud800", r"\ud800"),
    ],
)
def test_client_cannot_forge_a_line(char: str, shown: str) -> None:
    line = LineFormatter().format(record("Message from %s: %s", "ada", f"hi{char}[INFO] User connected: root"))
    assert line == f"[INFO] Message from ada: hi{shown}[INFO] User connected: root"


@pytest.mark.parametrize("text", ["Grüße", "你好 мир", "🎉", "a b", r"C:\new"])
def test_printable_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_traceback_cannot_forge_a_line() -> None:
    try:
        raise ValueError("hi\n[INFO] User connected: root")
    except ValueError:
        faulty = record("WebSocket error: %s", "ValueError", level=logging.ERROR)
        faulty.exc_info = sys.exc_info()
    first, *others = LineFormatter().format(faulty).splitlines()
    assert first == "[ERROR] WebSocket error: ValueError"
    assert any("ValueError" in line for line in others)
    assert not any(line.startswith("[") for line in others)


def test_access_line_loses_its_query_string() -> None:
    line = access("/ws/chat?username=ada&token=secret")
    assert AccessFilter().filter(line)
    assert line.getMessage() == '127.0.0.1:1 - "GET /ws/chat HTTP/1.1" 200'


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/health", "/health?monitor=1"])
def test_health_is_quiet_at_info_and_shown_at_debug(method: str, path: str, app_logger: logging.Logger) -> None:
    app_logger.setLevel(logging.INFO)
    assert not AccessFilter().filter(access(path, method))
    app_logger.setLevel(logging.DEBUG)
    assert AccessFilter().filter(access(path, method))


@pytest.mark.parametrize(
    "line",
    [
        record('%s - "WebSocket %s" [accepted]', "127.0.0.1:1", "/ws/chat?username=ada", name="uvicorn.error"),
        record("connection open", name="uvicorn.error"),
        record("connection closed", name="uvicorn.error"),
    ],
)
def test_what_the_chat_says_itself_is_not_repeated_at_info(line: logging.LogRecord, app_logger: logging.Logger) -> None:
    app_logger.setLevel(logging.INFO)
    assert not AccessFilter().filter(line)


@pytest.mark.parametrize("path", ["/healthy", "/api/stats", "/"])
def test_other_requests_are_logged(path: str, app_logger: logging.Logger) -> None:
    app_logger.setLevel(logging.INFO)
    assert AccessFilter().filter(access(path))


def test_configuring_twice_filters_once(app_logger: logging.Logger) -> None:
    configure("WARNING")
    configure("ERROR")
    assert app_logger.level == logging.ERROR
    for name in ("uvicorn.access", "uvicorn.error"):
        assert sum(isinstance(known, AccessFilter) for known in logging.getLogger(name).filters) == 1


def test_app_logs_by_itself_only_where_nothing_else_does(
    app_logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    app_logger.handlers.clear()
    configure("INFO")
    assert app_logger.handlers == []  # the test runner's own handlers are at the root
    monkeypatch.setattr(app_logger, "propagate", False)
    configure("INFO")
    configure("INFO")
    assert [type(handler.formatter) for handler in app_logger.handlers] == [LineFormatter]
