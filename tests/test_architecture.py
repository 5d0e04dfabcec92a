"""The shape of the code: packages, the one direction in which they import, and who may use which library."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

APP = Path(__file__).parent.parent / "app"
# Each may import itself and what stands below it. `app/client` stands apart: it imports nothing of the server.
LAYERS = (
    ("__main__",),
    ("server",),
    ("main",),
    ("web",),
    ("owner",),
    ("chat",),
    ("engines",),
    ("wire",),
    ("archive", "config", "exceptions", "log", "message", "metrics", "security", "tasks", "validators"),
)
LIBRARIES = {
    "bleach": ("security",),
    "starlette": ("web", "main", "server"),
    "uvicorn": ("server", "__main__"),
    "redis": ("engines",),
    "sqlite3": ("engines",),
    "prometheus_client": ("metrics",),
    "dotenv": ("config",),
}
OWN_EXCEPTIONS = ("exceptions", "log", "tasks")  # what `client` may share with the server
MODULES = sorted(APP.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(APP).with_suffix("").as_posix()


def room_of(path: Path) -> str:
    """The package directly below `app`, or the module where there is none."""
    return path.relative_to(APP).with_suffix("").parts[0]


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
            yield from (f"app.{alias.name}" for alias in node.names) if module == "app" else (module,)


def layer(room: str) -> int:
    return next(index for index, rooms in enumerate(LAYERS) if room in rooms)


@pytest.mark.parametrize("path", [path for path in MODULES if room_of(path) not in ("__init__", "client")], ids=name_of)
def test_module_imports_its_own_package_and_those_below(path: Path) -> None:
    own = layer(room_of(path))
    used = {name.split(".")[1] for name in imported(path) if name.split(".")[0] == "app"}
    assert {room for room in used if layer(room) < own} == set()


def test_client_stands_apart() -> None:
    used = {name for path in MODULES if room_of(path) == "client" for name in imported(path)}
    assert {
        name for name in used if name.startswith("app.") and name.split(".")[1] not in ("client", *OWN_EXCEPTIONS)
    } == set()


def test_every_module_has_its_place() -> None:
    rooms = {room_of(path) for path in MODULES} - {"__init__", "client"}
    assert rooms == {room for rooms in LAYERS for room in rooms}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_module_opens_with_what_it_owns(path: Path) -> None:
    assert ast.get_docstring(tree_of(path))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_library_is_used_only_where_it_belongs(path: Path) -> None:
    packages = {name.split(".")[0] for name in imported(path)}
    assert {name for name in packages & LIBRARIES.keys() if room_of(path) not in (*LIBRARIES[name], "client")} == set()
