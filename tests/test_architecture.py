"""The shape of the code: who may import whom, and how long things may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

APP = Path(__file__).parent.parent / "app"
RANKS = {
    "checks": 0, "exceptions": 0, "message": 0, "log": 0, "tasks": 0, "batch": 0, "inbox": 0, "posts": 0, "rules": 0,
    "words": 0, "metrics": 0, "turns": 0,
    "config": 1, "frames": 1, "incoming": 1, "security": 1, "limits": 1, "credentials": 1, "client": 1, "outbox": 1,
    "engines": 1, "notices": 1,
    "roster": 2, "history": 2, "composer": 3, "pruner": 2, "webhook": 2, "responses": 2, "requests": 2, "notifier": 3,
    "registry": 3, "shared_roster": 3,
    "admission": 4, "announcer": 4, "heartbeat": 4, "chat": 5, "moderation": 6, "archive": 6,
    "documents": 6, "websocket": 7, "api": 7, "owner_api": 7, "docs": 7, "demo_client": 7, "socket_protocol": 7,
    "main": 8, "request_protocol": 8, "server": 9, "__main__": 10,
}  # fmt: skip
ENGINES = {
    "sql": 0, "drafts": 0, "redis_room": 0, "lock": 0, "sqlite_file": 1, "writer": 1, "base": 2, "sqlite": 3,
    "redis": 3, "redis_archive": 3, "memory": 4, "archive": 4, "__init__": 5,
}  # fmt: skip
EDGE = ("websocket", "requests", "responses", "api", "owner_api", "docs", "main")
MODULES = sorted(APP.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(APP).with_suffix("").as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: Path) -> Iterator[str]:
    """Full names of all modules that a file imports, wherever in it; `from app import tasks` is `app.tasks`."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            module = node.module or ""
            if module in ("app", "app.engines") and path.parent.name != "engines":
                yield from (f"app.{alias.name}" if module == "app" else module for alias in node.names)
            elif module in ("app", "app.engines"):
                yield from (f"{module}.{alias.name}" for alias in node.names)
            else:
                yield module


def rank(name: str) -> tuple[int, int]:
    """Rank of a module as `app.chat` or `app.engines.base`: among all, and among the engines."""
    _, top, *below = name.split(".")
    return RANKS[top], ENGINES[below[0] if below else "__init__"] if top == "engines" else 0


@pytest.mark.parametrize("path", [path for path in MODULES if name_of(path) != "__init__"], ids=name_of)
def test_module_imports_only_from_lower_ranks(path: Path) -> None:
    own = rank("app." + name_of(path).replace("/", "."))
    used = [name for name in imported(path) if name.split(".")[0] == "app"]
    assert [name for name in used if rank(name) >= own] == []


def test_every_module_is_found_and_the_package_itself_imports_nothing() -> None:
    assert {"chat", "engines/base", "engines/__init__"} <= set(map(name_of, MODULES))
    assert list(imported(APP / "__init__.py")) == []
    assert "app.exceptions" in list(imported(APP / "frames.py"))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_functions_are_short(path: Path) -> None:
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 >= 30
    ]
    assert long == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_module_opens_with_what_it_owns(path: Path) -> None:
    assert ast.get_docstring(tree_of(path))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_security_knows_bleach_and_only_the_edge_knows_starlette(path: Path) -> None:
    packages = {name.split(".")[0] for name in imported(path)}
    assert "bleach" not in packages or name_of(path) == "security"
    assert "starlette" not in packages or name_of(path) in EDGE
