"""Fixtures of the tests with real processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.running import COMMANDS, RunningServer
from tests.support.visitor import OWNER


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server with an owner for all tests of what is refused."""
    variables = {"OWNER_TOKEN": OWNER, "LOG_LEVEL": "DEBUG", "CORS_ORIGINS": "https://site.example"}
    with RunningServer(COMMANDS["app"], tmp_path_factory.mktemp("owner"), variables) as running:
        yield running
