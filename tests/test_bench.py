"""The benchmark runs and draws, so that it is there when somebody needs it. What it measures is looked at by people."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.running import ROOT


def test_benchmark_measures_and_draws(tmp_path: Path) -> None:
    picture = tmp_path / "bench.svg"
    command = [sys.executable, "tests/bench/bench.py", "--clients", "20", "--idle", "20", "--plot", str(picture)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "deliveries/s" in ended.stdout
    assert picture.read_text().startswith("<svg")
