"""The ways of a post, a join and a deletion, as docs/architecture.md lists them."""

from __future__ import annotations

import re

from tests.support.running import ROOT

ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()


def steps(way: str) -> list[tuple[str, str]]:
    """File and function of each step of a way."""
    section = ARCHITECTURE.partition(f"### {way}\n")[2].partition("\n#")[0]
    return re.findall(r"^\d+\. `([a-z_/]+\.py):([\w.]+)`$", section, re.MULTILINE)
