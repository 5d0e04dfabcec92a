"""The command line, run to its end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.running import ROOT, RunningServer


def run(server: RunningServer, *arguments: str, typed: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    """One command with a server's settings."""
    return run_in(server.folder, *arguments, typed=typed, **{**server.variables, **more})


def run_in(folder: Path, *arguments: str, typed: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(
        command, cwd=folder, env=environment, input=typed, capture_output=True, text=True, timeout=30, check=False
    )
