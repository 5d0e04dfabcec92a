"""The room in a terminal: `python -m app.client --name ada`. Standard input may be a pipe or a file."""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import sys
import time
from collections.abc import AsyncIterator

from websockets.exceptions import InvalidURI

from app.client.client import ChatClient, Frame, State
from app.log import printable

URL = "ws://localhost:8000/ws/chat"
STDIN = 0
CHUNK = 65_536  # bytes read at once, and the longest line
MAX_UNANSWERED = 5  # lines that are posted before an answer is waited for


def say(line: str) -> None:
    """Prints one line, with control characters escaped: others must not drive this terminal."""
    sys.stdout.write(printable(line) + "\n")
    sys.stdout.flush()


def show_message(data: Frame) -> None:
    """Prints a message. `text` is there only where it differs from `content`."""
    at = time.strftime("%H:%M", time.localtime(data["timestamp"]))
    name = data["username"] + (" (owner)" if data.get("role") == "owner" else "")
    say(f"[{at}] {name}: {data.get('text', data['content'])}")


def show_frame(frame: Frame) -> None:
    """Prints any other frame that people should know of."""
    if frame["type"] == "history" and frame["recovered"]:
        say(f"* Back again; {len(frame['data'])} messages came meanwhile, none is lost.")
    elif frame["type"] == "user_count":
        say(f"* In the room: {frame['data']['count']}")
    elif frame["type"] == "system":
        say(f"* {frame['data']['content']}")
    elif frame["type"] == "hidden":
        say("* The owner, or who wrote it, took a message away.")
    elif frame["type"] == "room":
        say(f"* {room_in_words(**frame['data'])}")
    elif frame["type"] == "error" and "nonce" in frame["data"]:
        say(f"* {frame['message']}")


def room_in_words(paused: bool, slow_mode: float, owner_online: bool, **_: object) -> str:
    """Returns a sentence about the state of the room."""
    pace = f"One message every {slow_mode:g} s" if slow_mode else "Everybody can write"
    return f"{'Only the owner can write' if paused else pace}. The owner is {'here' if owner_online else 'away'}."


def show_state(state: State, why: str) -> None:
    """Prints a new state of the connection, and what to do."""
    hints = {
        State.ONLINE: " Type a line and press Enter; Ctrl-C leaves.",
        State.WAITING: " What you type is sent then.",
    }
    say(f"* {why}{hints.get(state, '')}")


async def readable(descriptor: int) -> None:
    """Waits until there is something to read. Uses no thread, because a thread that reads can't be ended."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    try:
        loop.add_reader(descriptor, ready.set)
    except PermissionError:  # epoll takes no regular files, which are always readable
        return
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)


async def read_lines(descriptor: int) -> AsyncIterator[str]:
    """Reads the lines of a terminal, pipe or file as they come. A line over CHUNK comes in parts."""
    rest = b""
    while True:
        await readable(descriptor)
        chunk = os.read(descriptor, CHUNK)
        *lines, rest = (rest + chunk).split(b"\n")
        if not chunk or len(rest) > CHUNK:
            lines, rest = [*lines, rest], b""
        for line in lines:
            yield line.decode(errors="replace")
        if not chunk:
            return


async def post_lines(client: ChatClient, lines: AsyncIterator[str]) -> None:
    """Posts each line, and waits until all of them are answered."""
    async for line in lines:
        if line.strip():
            try:
                client.post(line)
            except ValueError as error:
                say(f"* Not sent: {error}.")
            await client.settle(MAX_UNANSWERED)
    await client.settle()


async def chat(url: str, name: str | None) -> int:
    """Stays in the room until standard input ends or the server refuses. Returns the exit code."""
    lines = read_lines(STDIN)
    if name is None:
        sys.stdout.write("Your name: ")
        sys.stdout.flush()
        name = (await anext(lines)).strip()
    async with ChatClient(url, name, show_message, show_frame, show_state) as client:
        posting = asyncio.create_task(post_lines(client, lines), name="standard input")
        ending = asyncio.create_task(client.ended(), name="end of the client")
        await asyncio.wait({posting, ending}, return_when=asyncio.FIRST_COMPLETED)
        for task in (posting, ending):
            task.cancel()
        await asyncio.gather(posting, ending, return_exceptions=True)
        refused = client.state is State.ENDED
    if left := await client.settle():
        say(f"* Without an acknowledgement: {left}.")
    return 1 if refused else 0


def main() -> int:
    """Runs the command line, and returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m app.client", description="The chat room in a terminal.")
    parser.add_argument("--url", default=URL, help="where the room is (default: %(default)s)")
    parser.add_argument("--name", help="your name in the room (default: asks for it)")
    options = parser.parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # not every terminal can show everything
    try:
        return asyncio.run(chat(options.url, options.name))
    except InvalidURI:
        say(f"* {options.url} is not the URL of a room. It looks like {URL}.")
        return 2
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
