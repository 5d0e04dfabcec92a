"""README, `.env.example`, Makefile and the code say the same."""

from __future__ import annotations

import importlib
import operator
import re
import subprocess
from pathlib import Path

import dotenv
import pytest

from app.config import Settings, load_settings
from app.exceptions import ChatError, CloseCode, reconnects
from app.wire.client_frames import ClientFrame
from app.wire.frames import ServerFrame
from tests.support.running import ROOT
from tests.support.ways import ARCHITECTURE, steps

README = (ROOT / "README.md").read_text()


def as_written(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, tuple) else str(value)


def test_env_example_has_every_setting_with_default_and_description() -> None:
    text = (ROOT / ".env.example").read_text()
    for name, field in Settings.model_fields.items():
        assert f"# {field.description}\n{name.upper()}={as_written(field.default)}\n" in text
    values = dotenv.dotenv_values(ROOT / ".env.example")
    assert list(values) == [name.upper() for name in Settings.model_fields]


def test_env_example_loads_as_the_defaults() -> None:
    assert load_settings({}, ROOT / ".env.example") == Settings()


def test_readme_has_every_setting_with_default_and_description() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| `?([^|`]*?)`? \| (.*) \|$", README, re.MULTILINE)
    assert rows == [
        (name.upper(), as_written(field.default), field.description) for name, field in Settings.model_fields.items()
    ]


@pytest.mark.parametrize("union", [ClientFrame, ServerFrame], ids=["client", "server"])
def test_readme_has_every_frame(union: object) -> None:
    for model in union.__args__:  # type: ignore[attr-defined] # a union has it
        assert f'{{"type": "{model.model_fields["type"].annotation.__args__[0]}"' in README


def test_readme_has_every_code() -> None:
    def leaves(kind: type[ChatError]) -> list[type[ChatError]]:
        return [leaf for sub in kind.__subclasses__() for leaf in leaves(sub)] or [kind]

    assert not [kind.code for kind in leaves(ChatError) if f"`{kind.code}`" not in README]
    rows = dict(re.findall(r"^\| (\d{4}) \| .* \| (yes|no)", README, re.MULTILINE))
    assert {str(int(code)): "yes" if reconnects(code) else "no" for code in CloseCode} == rows


def test_readme_links_lead_somewhere() -> None:
    headings = {
        re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.*)$", README, re.M)
    }
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if target.startswith("#"):
            assert target[1:] in headings
        elif "://" not in target:
            assert (ROOT / target).exists(), target


def test_make_help_names_every_target() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony
    assert all(f"make {target} " in shown for target in phony[1].split())


def test_an_old_python_gets_a_sentence(tmp_path: Path) -> None:
    old = tmp_path / "python-old"
    old.write_text('#!/bin/sh\nsed "s/import sys/import sys; sys.version_info = (3, 9)/" <<E | exec python3 -\n$2\nE\n')
    old.chmod(0o755)
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    (tmp_path / "requirements.txt").touch()
    command = ["make", "-C", str(tmp_path), ".venv/run", f"PYTHON={old}"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode
    assert "Python 3.11 or later is needed" in ended.stderr
    assert "3.9" in ended.stderr


WAYS = {"A post": (30, 14), "A join": (20, 12), "A deletion": (15, 9)}  # at most so many functions, in so many files


@pytest.mark.parametrize("way", WAYS)
def test_way_in_the_documentation_is_short_and_each_function_exists(way: str) -> None:
    found = steps(way)
    functions, files = WAYS[way]
    assert 1 < len(found) <= functions
    assert len({file for file, _ in found}) <= files
    for file, name in found:
        module = importlib.import_module(f"app.{file.removesuffix('.py').replace('/', '.')}")
        assert callable(operator.attrgetter(name)(module)), f"{file}:{name}"


def test_documentation_names_every_package() -> None:
    packages = {path.parent.name for path in (ROOT / "app").glob("*/__init__.py")}
    assert packages <= set(re.findall(r"^\| `(\w+)/` \|", ARCHITECTURE, re.MULTILINE))
