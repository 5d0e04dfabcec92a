"""The Dockerfile, read as Docker reads it: who runs, what is copied, and whether the health check tells the truth."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import PurePosixPath

from app.config import Settings, load_settings
from tests.conftest import Start
from tests.support.running import ROOT, free_port


def instructions() -> list[tuple[str, str]]:
    """Every instruction with its arguments, in order; comments left out, continued lines joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile.backend").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", "").splitlines()
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines if line)]


def all_of(instruction: str) -> list[str]:
    return [arguments for name, arguments in instructions() if name == instruction]


def copied() -> list[str]:
    """What is copied out of the project, as it is written."""
    return [source for arguments in all_of("COPY") for source in arguments.split()[:-1]]


def exec_form(arguments: str) -> list[str]:
    """The words of a command. Fails for the shell form, where a shell would get SIGTERM and keep it."""
    words = json.loads(arguments)
    assert isinstance(words, list)
    return [str(word) for word in words]


def is_ignored(path: str) -> bool:
    """Whether `.dockerignore` keeps a path out: the last pattern that matches it, or a folder above it, decides."""
    ignored = False
    candidates = [path, *(str(parent) for parent in PurePosixPath(path).parents)]
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.lstrip("!").removeprefix("**/")
        names = [part for name in candidates for part in ((name, name.split("/")[-1]) if "**/" in line else (name,))]
        if line and not line.startswith("#") and any(fnmatch.fnmatchcase(name, pattern) for name in names):
            ignored = not line.startswith("!")
    return ignored


def check_health(port: int, timeout: str = "4") -> int:
    """The exit code of the health check's command, as Docker would run it. `timeout`: seconds, in place of its own."""
    (arguments,) = all_of("HEALTHCHECK")
    program, *words = exec_form(arguments[arguments.index("[") :])
    assert program == "python"
    assert "timeout=4)" in words[-1]
    words[-1] = words[-1].replace("timeout=4)", f"timeout={timeout})")
    environment = {**os.environ, "PORT": str(port)}
    return subprocess.run(
        [sys.executable, *words], env=environment, stderr=subprocess.DEVNULL, timeout=20, check=False
    ).returncode


@contextmanager
def answering(status: int) -> Iterator[int]:
    """A server that answers everything with this status; its port."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_the_process_is_not_root_and_gets_the_signals() -> None:
    order = [name for name, _ in instructions()]
    (user,) = all_of("USER")
    (command,) = all_of("CMD")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert f"--uid {user.split(':')[0]} " in all_of("RUN")[0]
    assert order.index("USER") > max(index for index, name in enumerate(order) if name in ("RUN", "COPY"))
    assert exec_form(command) == ["python", "-m", "app"]
    assert not all_of("ENTRYPOINT")


def test_what_is_copied_exists_and_is_let_in() -> None:
    assert sorted(copied()) == ["app", "requirements-prod.txt", "requirements.txt"]
    for source in copied():
        assert (ROOT / source).exists()
        assert not is_ignored(source)
    assert not is_ignored("app/static/any")


def test_what_is_nobody_s_business_stays_out() -> None:
    for path in (
        ".env",
        ".git/config",
        ".venv/bin/python",
        "data/chat.db",
        "tests/running.py",
        "app/__pycache__/x.pyc",
    ):
        assert is_ignored(path), path


def test_requirements_come_before_the_code_which_changes_more_often() -> None:
    steps = [f"{name} {arguments}" for name, arguments in instructions()]
    install = next(index for index, step in enumerate(steps) if "pip install" in step)
    assert "-r requirements-prod.txt" in steps[install]
    assert "requirements-prod.txt" in steps[install - 1]
    assert install < next(index for index, step in enumerate(steps) if step.startswith("COPY app "))
    for name in ("requirements.txt", "requirements-prod.txt"):
        included = re.findall(r"^-r (.+)$", (ROOT / name).read_text(), re.MULTILINE)
        assert set(included) <= set(copied())


def test_messages_are_in_the_volume_which_is_the_user_s() -> None:
    (volume,) = all_of("VOLUME")
    variables = dict(words.split("=", 1) for words in all_of("ENV"))
    assert load_settings(variables).engine_url.startswith(f"sqlite:///{volume}/")
    assert f"--owner=chat --group=chat {volume}" in all_of("RUN")[0]


def test_the_exposed_port_is_the_one_that_is_listened_on_by_default() -> None:
    defaults = Settings()
    assert all_of("EXPOSE") == [str(defaults.port)]
    assert defaults.host == "0.0.0.0"
    (health,) = all_of("HEALTHCHECK")
    assert f"os.environ.get('PORT') or {defaults.port}" in health


def test_health_check_passes_a_real_server_and_not_one_that_was_killed(start: Start) -> None:
    server = start(ENGINE_URL="memory://")
    assert check_health(server.port) == 0
    server.kill()
    assert check_health(server.port) == 1


def test_health_check_takes_503_for_an_answer() -> None:
    with answering(503) as port:
        assert check_health(port) == 0


def test_health_check_fails_where_nobody_listens() -> None:
    assert check_health(free_port()) == 1


def test_health_check_fails_where_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert check_health(silent.getsockname()[1], timeout="0.2") == 1
