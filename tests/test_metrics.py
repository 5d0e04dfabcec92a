"""Metrics: what each figure counts, with the library, without it, and over several processes."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.testclient import TestClient

from app import metrics
from app.chat.registry import ConnectionRegistry
from app.exceptions import ChatError, CloseCode, EmptyMessage, codes
from app.wire.frames import PreparedFrames
from tests.support.fakes import Clock, FakeSender, add
from tests.support.running import ROOT, until

FRAME = PreparedFrames([b"{}"])
# One process of several: counts, and says what all of them have counted.
PROCESS = """
import os
from app import metrics
metrics.connections.set(3)
metrics.users.set({users})
metrics.messages.inc(2)
metrics.closes.know([1012])
metrics.closes.inc(1012)
metrics.fan_out_seconds.observe(0.0002)
print(os.getpid(), metrics.render()[0].decode(), sep="\\n")
"""


@pytest.fixture
def without_library(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module as it is where `prometheus-client` is not installed."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    spec = importlib.util.spec_from_file_location("metrics_without_library", metrics.__file__)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def samples(text: str) -> dict[str, float]:
    """Value by name and labels, such as `chat_closes_total{code="1012"}`."""
    lines = [line.rpartition(" ") for line in text.splitlines() if line and line[0] != "#"]
    return {name: float(value) for name, _, value in lines}


def now() -> dict[str, float]:
    rendered = metrics.render()
    assert rendered
    return samples(rendered[0].decode())


def since(before: dict[str, float]) -> dict[str, float]:
    """By how much each figure has changed, where it has."""
    return {name: value - before.get(name, 0) for name, value in now().items() if value != before.get(name, 0)}


def run_process(directory: Path | str, users: int = 1) -> tuple[int, dict[str, float]]:
    """Runs one of several processes; its id, and what it said."""
    environment = {**os.environ, metrics.DIRECTORY: str(directory)}
    command = [sys.executable, "-c", PROCESS.format(users=users)]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    process, _, text = ended.stdout.partition("\n")
    return int(process), samples(text)


def test_render_is_prometheus_text_format() -> None:
    rendered = metrics.render()
    assert rendered
    text, content_type = rendered[0].decode(), rendered[1]
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert "# HELP chat_messages_total Messages stored.\n# TYPE chat_messages_total counter\n" in text
    assert "# TYPE chat_connections gauge\n" in text
    assert "# TYPE chat_store_seconds histogram\n" in text
    assert "_created" not in text
    assert 'chat_fan_out_seconds_bucket{le="5e-05"}' in text
    assert 'chat_batch_messages_bucket{le="256.0"}' in text


def test_every_series_has_a_help_text_and_begins_with_chat() -> None:
    rendered = metrics.render()
    assert rendered
    lines = rendered[0].decode().splitlines()
    assert all(line.startswith(("chat_", "# HELP chat_", "# TYPE chat_")) for line in lines)
    helped = [line.split()[2] for line in lines if line.startswith("# HELP")]
    typed = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert helped == typed
    assert len(set(helped)) == 10


def test_labels_are_bounded() -> None:
    counter = metrics.LabelledCounter("chat_test_total", "For this test.", "code", ["known"])
    before = now()
    for value in ("known", "made up", "made up too", 4242):
        counter.inc(value)
    assert since(before) == {'chat_test_total{code="known"}': 1, 'chat_test_total{code="other"}': 3}


def test_every_code_is_there_from_the_beginning(client: Callable[..., TestClient]) -> None:
    client()
    assert {"invalid_frame", "server_full", "rate_limited"} <= codes()
    unseen = {"origin_not_allowed", "restarting"}
    counted = {name.split('"')[1] for name in now() if name.startswith("chat_refusals_total")}
    assert (codes() - unseen <= counted, unseen & counted) == (True, set())
    assert {f'chat_closes_total{{code="{int(code)}"}}' for code in CloseCode} <= set(now())
    assert {f'chat_notifications_total{{outcome="{outcome}"}}' for outcome in ("sent", "failed")} <= set(now())


def test_storing_notes_size_and_time_of_what_was_stored() -> None:
    before = now()
    with metrics.storing(3):
        pass
    with metrics.storing(0):  # a probe
        pass
    with pytest.raises(ChatError), metrics.storing(1):
        raise EmptyMessage
    changed = since(before)
    assert changed["chat_batch_messages_sum"] == 3
    assert changed["chat_batch_messages_count"] == changed["chat_store_seconds_count"] == 1
    assert changed["chat_store_seconds_sum"] > 0


def test_fan_out_counts_its_own_work_alone() -> None:
    clock = Clock()

    class Slow(FakeSender):
        def write(self, batch: PreparedFrames) -> None:
            clock.now += 0.001

    registry = ConnectionRegistry(1000, clock=clock)
    for number in range(200):
        registry.open(add(registry, f"user{number}"), Slow())
    before = now()
    for _ in registry.broadcast(FRAME):
        clock.now += 5  # what others do meanwhile
    changed = since(before)
    assert changed["chat_fan_out_seconds_count"] == 1
    assert changed["chat_fan_out_seconds_sum"] == pytest.approx(0.2)


def test_connections_are_those_that_hold_a_slot() -> None:
    registry = ConnectionRegistry(10)
    ada, bob = add(registry, "ada"), add(registry, "bob")
    assert now()["chat_connections"] == 2
    registry.remove(ada)
    registry.remove(ada)
    assert now()["chat_connections"] == 1
    registry.remove(bob)
    assert now()["chat_connections"] == 0


def test_a_message_that_is_sent_again_is_stored_and_counted_once(client: Callable[..., TestClient]) -> None:
    room = client()
    before = now()
    with room.websocket_connect("/ws/chat?username=ada") as ada:
        for _ in range(2):
            ada.send_json({"type": "message", "content": "Hello", "nonce": "n-1"})
            while ada.receive_json()["type"] != "message":
                pass
    changed = since(before)
    assert changed["chat_messages_total"] == changed["chat_deliveries_total"] == 1
    assert changed["chat_batch_messages_sum"] == 2


@pytest.mark.anyio
async def test_a_room_counts_what_happens_in_it(client: Callable[..., TestClient]) -> None:
    room = client(max_message_length=5)
    before = now()
    with room.websocket_connect("/ws/chat?username=ada") as ada, room.websocket_connect("/ws/chat?username=bob") as bob:
        await until(lambda: (now()["chat_connections"], now()["chat_users"]) == (2, 2))
        for text in ("Hello", "too long"):
            ada.send_json({"type": "message", "content": text})
        for peer, kind in ((bob, "message"), (ada, "error")):
            while peer.receive_json()["type"] != kind:
                pass
        with room.websocket_connect("/ws/chat?username=") as refused:
            assert refused.receive_json()["type"] == "error"
    await until(lambda: (now()["chat_connections"], now()["chat_users"]) == (0, 0))
    expected = {
        "chat_messages_total": 1,
        "chat_deliveries_total": 2,
        "chat_batch_messages_count": 1,
        'chat_refusals_total{code="message_too_long"}': 1,
        'chat_refusals_total{code="invalid_username"}': 1,
        'chat_closes_total{code="1008"}': 1,
        'chat_closes_total{code="1000"}': 2,
    }
    changed = since(before)
    assert {name: changed.get(name) for name in expected} == expected
    assert changed["chat_fan_out_seconds_count"] >= 2  # the message, and the number of users


def test_without_the_library_everything_does_nothing(without_library: Any) -> None:
    assert not without_library.installed
    without_library.connections.set(1)
    without_library.users.set(1)
    without_library.messages.inc()
    without_library.deliveries.inc(2)
    without_library.closes.know([1000])
    for counter in (without_library.refusals, without_library.closes, without_library.notifications):
        counter.inc("anything")
    without_library.fan_out_seconds.observe(0.1)
    with without_library.storing(1), without_library.shared():
        assert metrics.DIRECTORY not in os.environ
    without_library.forget(1)
    assert set(vars(metrics)) >= {name for name in vars(without_library) if not name.startswith("_")}


def test_processes_add_up_and_the_dead_have_no_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "made" / "when missing"
    first, _ = run_process(directory, users=5)
    _, both = run_process(directory, users=4)
    assert both["chat_connections"] == 6
    assert both["chat_users"] == 4  # the last word
    assert both["chat_messages_total"] == 4
    assert both['chat_closes_total{code="1012"}'] == 2
    assert both['chat_fan_out_seconds_bucket{le="0.00025"}'] == both["chat_fan_out_seconds_count"] == 2
    monkeypatch.setenv(metrics.DIRECTORY, str(directory))
    metrics.forget(first)
    assert now()["chat_connections"] == 3
    assert now()["chat_messages_total"] == 4


def test_a_process_that_counted_nothing_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {**os.environ, metrics.DIRECTORY: str(tmp_path)}
    command = [sys.executable, "-c", "import os, app.metrics; print(os.getpid())"]
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert len(list(tmp_path.iterdir())) == 4
    (tmp_path / f"counter_{process.strip()}.db").write_bytes(b"")  # as if it was killed while it made the file
    monkeypatch.setenv(metrics.DIRECTORY, str(tmp_path))
    metrics.forget(int(process))
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_not_ready_yet_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_process(tmp_path)
    fresh = tmp_path / "counter_0.db"
    fresh.touch()
    collect: Any = MultiProcessCollector.collect

    def and_then_ready(collector: Any) -> Any:
        try:
            return collect(collector)
        finally:
            fresh.unlink(missing_ok=True)

    monkeypatch.setattr(MultiProcessCollector, "collect", and_then_ready)
    monkeypatch.setenv(metrics.DIRECTORY, str(tmp_path))
    assert now()["chat_messages_total"] == 2


def test_a_shared_directory_is_removed_at_the_end() -> None:
    with contextlib.suppress(KeyboardInterrupt), metrics.shared():
        directory = Path(os.environ[metrics.DIRECTORY])
        assert directory.stat().st_mode & 0o777 == 0o700
        run_process(directory)
        raise KeyboardInterrupt
    assert not directory.exists()
    assert metrics.DIRECTORY not in os.environ


def test_a_directory_of_the_users_own_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(metrics.DIRECTORY, str(tmp_path))
    with metrics.shared():
        assert os.environ[metrics.DIRECTORY] == str(tmp_path)
        metrics.orphaned()
    assert tmp_path.exists()
    assert os.environ[metrics.DIRECTORY] == str(tmp_path)


def test_a_child_whose_parent_was_killed_removes_the_directory() -> None:
    with metrics.shared():
        directory = Path(os.environ[metrics.DIRECTORY])
        run_process(directory)
        metrics.orphaned()
        assert not directory.exists()
        metrics.orphaned()


def test_without_memory_to_share_it_is_a_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with metrics.shared(str(tmp_path / "missing")):
        assert Path(os.environ[metrics.DIRECTORY]).parent == tmp_path


def test_an_empty_variable_is_as_good_as_none(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from app import metrics; metrics.messages.inc(); print(metrics.render())"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), metrics.DIRECTORY: ""}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "chat_messages_total 1.0" in ended.stdout
    assert not list(tmp_path.glob("*.db"))
