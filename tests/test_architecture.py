"""The shape of the code: packages, the one direction in which they import, and who may use which library."""

from __future__ import annotations

import ast
import re
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
    ("config", "exceptions", "log", "message", "metrics", "security", "tasks", "validators"),
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
    shared = ("app.wire.limits", *(f"app.{name}" for name in ("client", *OWN_EXCEPTIONS)))
    assert [name for name in used if name.startswith("app.") and not name.startswith(shared)] == []


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


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_stand_at_the_top_but_for_an_optional_driver(path: Path) -> None:
    functions = (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    inner = [
        node for function in functions for node in ast.walk(function) if isinstance(node, ast.ImportFrom | ast.Import)
    ]
    allowed = "app.engines.redis." if name_of(path) == "engines/__init__" else "-"
    assert [ast.unparse(node) for node in inner if not str(getattr(node, "module", "")).startswith(allowed)] == []


def test_types_are_imported_like_everything_else() -> None:
    assert [name_of(path) for path in MODULES if "TYPE_CHECKING" in path.read_text()] == []


def test_nothing_is_cast() -> None:
    assert [name_of(path) for path in MODULES if re.search(r"\bcast\(", path.read_text())] == []


def test_engine_is_chosen_in_one_place() -> None:
    users = [name_of(path) for path in MODULES if "engine_url" in path.read_text()]
    assert users == ["config", "engines/__init__", "validators"]


PROTOCOLS = {"engines/store": ("Store", "Archive"), "engines/presence": ("Presence",)}


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in PROTOCOLS.items() for name in names])
def test_seam_is_small(module: str, name: str) -> None:
    (protocol,) = [
        node
        for node in tree_of(APP / f"{module}.py").body
        if isinstance(node, ast.ClassDef)
        and node.name == name
        and [ast.unparse(base) for base in node.bases] == ["Protocol"]
    ]
    methods = [node for node in protocol.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert 1 <= len(methods) <= 7


TESTS = sorted(path for path in Path(__file__).parent.rglob("*.py") if "node_modules" not in path.parts)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(TESTS[0].parent)))
def test_no_test_file_is_imported(path: Path) -> None:
    assert [name for name in imported(path) if name.startswith("tests.") and ".test_" in name] == []


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(TESTS[0].parent)))
def test_no_constant_is_patched(path: Path) -> None:
    assert re.findall(r"setattr\([^)]*\"[A-Z][A-Z_]+\"", path.read_text()) == []
