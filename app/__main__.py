"""`python -m app`: the service on uvicorn, with settings from the environment and `.env`; and what is done with
the store from the command line."""

from __future__ import annotations

import argparse
import asyncio
import copy
import errno
import os
import socket
import sys
from pathlib import Path
from typing import Any

import uvicorn.config

from app.config import Settings, SettingsError, load_settings
from app.engines import check_shared, open_archive
from app.exceptions import StoreError
from app.server import server
from app.web.responses import StoredMessage

WIPE = "This deletes the room for good: messages, bans, and the key of the tokens. Type wipe to go on: "


def main() -> None:
    """Serves until SIGTERM or SIGINT, or runs a command on the store. Exits with one sentence when it can't."""
    parser = argparse.ArgumentParser(prog="python -m app", description="Serves the chat. Settings: see .env.example.")
    parser.add_argument("--reload", action="store_true", help="start again whenever the code changes")
    parser.add_argument("--workers", metavar="N", help="how many processes, whatever WORKERS says; needs Redis")
    commands = parser.add_subparsers(dest="command", metavar="[backup | restore | export | wipe]")
    backup = commands.add_parser("backup", help="write a whole copy into a new file; the server may run")
    backup.add_argument("file", type=Path)
    restoring = commands.add_parser("restore", help="put a copy in the place of the room, with the server stopped")
    restoring.add_argument("file", type=Path)
    commands.add_parser("export", help="write all messages to standard output, as JSON lines; the server may run")
    wiping = commands.add_parser("wipe", help="delete everything that is stored; asks first, with the server stopped")
    wiping.add_argument("--yes", action="store_true", help="don't ask")
    arguments = parser.parse_args()
    try:
        given = {} if arguments.workers is None else {"WORKERS": arguments.workers}
        settings = load_settings({**os.environ, **given})
        if arguments.command == "backup":
            asyncio.run(_back_up(settings, arguments.file))
        elif arguments.command == "restore":
            asyncio.run(_restore(settings, arguments.file))
        elif arguments.command == "export":
            asyncio.run(_export(settings))
        elif arguments.command == "wipe":
            asyncio.run(_wipe(settings, arguments.yes))
        else:
            _serve(settings, arguments.reload)
    except (SettingsError, StoreError) as error:
        sys.exit(str(error))
    except BrokenPipeError:  # who reads the export has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # which is flushed once more at the end


def _serve(settings: Settings, reload: bool) -> None:
    if settings.workers > 1 and not reload:
        check_shared(settings)
    server.run(settings, _listen(settings), reload, _log_config(settings))


async def _back_up(settings: Settings, file: Path) -> None:
    """Writes everything that is stored into a new file. Raises StoreError."""
    await open_archive(settings).back_up(file)
    sys.stderr.write(f"{file} is a whole copy of the room.\n")


async def _restore(settings: Settings, file: Path) -> None:
    """Puts a copy in the place of what is stored. Raises StoreError, also while a server uses it."""
    archive = open_archive(settings)
    try:
        kept = await archive.restore(file)
    finally:
        await archive.close()
    sys.stderr.write("The room is restored." + (f" What was there is kept as {kept}.\n" if kept else "\n"))


async def _export(settings: Settings) -> None:
    """Writes every message to standard output, oldest first, one JSON object a line. Raises StoreError."""
    archive = open_archive(settings)
    try:
        async for message in archive.export():
            sys.stdout.write(StoredMessage.of(message).model_dump_json(exclude_none=True) + "\n")
        sys.stdout.flush()
    finally:
        await archive.close()


async def _wipe(settings: Settings, sure: bool) -> None:
    """Deletes the room; asks first, unless `sure`. Raises StoreError, also while a server uses it."""
    archive = open_archive(settings)
    try:
        await archive.reserve()
        if not sure:
            sys.stderr.write(WIPE)
            sys.stderr.flush()
            if sys.stdin.readline().strip() != "wipe":
                sys.exit("Nothing was deleted.")
        await archive.wipe()
    finally:
        await archive.close()
    sys.stderr.write("The room is empty. The next start makes a new one.\n")


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
