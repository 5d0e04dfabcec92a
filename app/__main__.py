"""`python -m app`: the service on uvicorn, with settings from the environment and `.env`; `export` and `wipe`."""

from __future__ import annotations

import argparse
import copy
import errno
import os
import socket
import sys
from typing import Any

import uvicorn.config

from app import archive
from app.config import Settings, SettingsError, load_settings
from app.exceptions import StoreError
from app.server import server


def main() -> None:
    """Serves until SIGTERM or SIGINT, or exports or wipes what is stored. Exits with one sentence when it can't."""
    parser = argparse.ArgumentParser(prog="python -m app", description="Serves the chat. Settings: see .env.example.")
    parser.add_argument("--reload", action="store_true", help="start again whenever the code changes")
    parser.add_argument("--workers", metavar="N", help="how many processes, whatever WORKERS says; needs Redis")
    commands = parser.add_subparsers(dest="command", metavar="[export | wipe]")
    commands.add_parser("export", help="write all messages to standard output, as JSON lines; the server may run")
    wiping = commands.add_parser("wipe", help="delete everything that is stored; asks first, with the server stopped")
    wiping.add_argument("--yes", action="store_true", help="don't ask")
    arguments = parser.parse_args()
    try:
        given = {} if arguments.workers is None else {"WORKERS": arguments.workers}
        settings = load_settings({**os.environ, **given})
        if arguments.command == "export":
            archive.export(settings)
        elif arguments.command == "wipe":
            archive.wipe(settings, arguments.yes)
        else:
            _serve(settings, arguments.reload)
    except (SettingsError, StoreError) as error:
        sys.exit(str(error))
    except BrokenPipeError:  # who reads the export has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # which is flushed once more at the end


def _serve(settings: Settings, reload: bool) -> None:
    if settings.workers > 1 and not reload and not settings.engine_url.startswith("redis"):
        advice = "set ENGINE_URL=redis://…, or start a single one"
        sys.exit(f"{settings.workers} workers share a room only through Redis: {advice}.")
    server.run(settings, _listen(settings), reload, _log_config(settings))


def _listen(settings: Settings) -> socket.socket:
    """The bound socket, or an exit with one sentence."""
    listener = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        advice = f"Stop the other program, or choose another port, such as PORT={settings.port + 1}"
        advice = advice if taken else "HOST must be an address of this machine, such as 127.0.0.1 or 0.0.0.0"
        sys.exit(f"Can't listen on {settings.host}, port {settings.port}: {error.strerror}. {advice}.")
    listener.set_inheritable(True)
    return listener


def _log_config(settings: Settings) -> dict[str, Any]:
    """uvicorn's logging, with the format of our own lines and one stream for both."""
    config = copy.deepcopy(uvicorn.config.LOGGING_CONFIG)
    config["formatters"] = {"default": {"()": "app.log.LineFormatter"}, "access": {"()": "app.log.LineFormatter"}}
    for handler in config["handlers"].values():
        handler["stream"] = "ext://sys.stderr"
    for logger in config["loggers"].values():
        if "level" in logger:
            logger["level"] = settings.level
    return config


if __name__ == "__main__":
    main()
