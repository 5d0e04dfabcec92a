"""The application as a whole: its beginning, its end, and what is said when it can't start."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from app import main
from app.config import Settings
from app.exceptions import StoreError
from app.main import create_app
from tests.support.running import ROOT

NewClient = Callable[..., TestClient]


async def lifespan(app: Starlette) -> list[dict[str, Any]]:
    """Starts and stops the app as a server does; what the app sent."""
    sent: list[dict[str, Any]] = []
    event_queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    for event in ("startup", "shutdown"):
        event_queue.put_nowait({"type": f"lifespan.{event}"})

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(dict(message))

    try:
        await app({"type": "lifespan", "state": {}}, event_queue.get, send)
    except StoreError:
        assert sent[-1]["type"] == "lifespan.startup.failed"
    return sent


@pytest.mark.anyio
async def test_app_starts_and_stops_and_leaves_no_task(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    app = create_app(Settings(engine_url=f"sqlite:///{tmp_path}/chat.db"))
    assert not (tmp_path / "chat.db").exists()
    sent = await lifespan(app)
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert asyncio.all_tasks() == before


@pytest.mark.anyio
async def test_store_is_free_again_after_the_stop(tmp_path: Path) -> None:
    settings = Settings(engine_url=f"sqlite:///{tmp_path}/chat.db", shutdown_timeout=1, shutdown_spread=0)
    for _ in range(2):
        sent = await lifespan(create_app(settings))
        assert sent[0]["type"] == "lifespan.startup.complete"


@pytest.mark.anyio
async def test_start_that_fails_says_why_in_a_sentence(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    (tmp_path / "chat.db").write_bytes(b"My diary. " * 100)
    (failed,) = await lifespan(create_app(Settings(engine_url=f"sqlite:///{tmp_path}/chat.db")))
    assert failed["type"] == "lifespan.startup.failed"
    assert "chat.db: file is not a database" in failed["message"]
    assert "Traceback" not in failed["message"]
    assert asyncio.all_tasks() == before


def test_history_outlives_the_app(client: NewClient, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/chat.db"
    with (
        TestClient(create_app(Settings(engine_url=url))) as served,
        served.websocket_connect("/ws/chat?username=ada") as socket,
    ):
        socket.send_json({"type": "message", "content": "Hello"})
        while socket.receive_json()["type"] != "message":
            pass
    with client(engine_url=url).websocket_connect("/ws/chat?username=bob") as socket:
        (data,) = socket.receive_json()["data"]
    assert (data["seq"], data["username"], data["content"]) == (1, "ada", "Hello")


def test_two_apps_in_one_process_share_nothing(client: NewClient) -> None:
    first, second = client(), client()
    with first.websocket_connect("/ws/chat?username=ada"):
        assert first.get("/api/stats").json()["active_users"] == 1
        assert second.get("/api/stats").json()["active_users"] == 0


def test_everybody_is_pinged_and_the_silent_closed(client: NewClient) -> None:
    served = client(ws_heartbeat_interval=0.05, ws_heartbeat_timeout=0.1)
    with served.websocket_connect("/ws/chat?username=ada") as socket:
        kinds = []
        while (message := socket.receive())["type"] == "websocket.send":
            kinds.append(message["text"])
        assert '{"type":"ping"}' in kinds
        assert message["code"] == 4000


@pytest.fixture
def no_app() -> Iterator[None]:
    """Nobody has asked for `app.main.app` before the test, and nothing is left of it afterwards."""
    before = vars(main).pop("app", None)
    yield
    vars(main).pop("app", None)
    if before:
        vars(main)["app"] = before


def test_bad_settings_stop_the_start_in_a_sentence(
    no_app: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PORT", "many")
    with pytest.raises(SystemExit) as ended:
        _ = main.app
    assert ended.value.code == 3
    assert "PORT: 'many' is not allowed. Allowed: a whole number from 0 to 65535.\n" in capsys.readouterr().err


def test_app_is_made_from_the_environment_when_it_is_first_asked_for(
    no_app: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APP_NAME", "Named")
    assert main.app.state.settings.app_name == "Named"
    monkeypatch.setenv("APP_NAME", "Named later")
    assert main.app.state.settings.app_name == "Named"


def test_import_reads_no_settings() -> None:
    """A program that imports the module for `create_app` needs no valid environment."""
    program = "import sys; import app.main; sys.exit('app' in vars(app.main))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env={**os.environ, "PORT": "many"}, check=False)
    assert done.returncode == 0


def test_module_has_no_other_attributes() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'other'"):
        _ = main.other


def test_unknown_websocket_address_is_refused(client: NewClient) -> None:
    with pytest.raises(WebSocketDisconnect), client().websocket_connect("/ws/other"):
        pass
