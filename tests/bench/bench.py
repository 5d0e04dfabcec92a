"""The project's own benchmark: a real server on one core, all clients on the other.

`make bench`, or `python tests/bench/bench.py --help`. Prints a table, and draws it into tests/bench/bench.svg.
Clients are bare sockets that count markers in what they read: parsing it would take longer than sending it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import uvloop

ROOT = Path(__file__).parent.parent.parent
# All clients come from one address, and write as fast as they can.
UNLIMITED = dict.fromkeys(
    ("WS_MAX_CONNECTIONS_PER_IP", "RATE_LIMIT_MESSAGES", "RATE_LIMIT_ADDRESS", "RATE_LIMIT_JOINS"), "0"
)
PORT = 18480
MARK = b"t=0"  # begins the time in every benchmark message; nothing else holds it
TICKS = os.sysconf("SC_CLK_TCK")


class Peer(asyncio.Protocol):
    """One client: counts deliveries, and notes the delay of the last message in each read."""

    def __init__(self, name: str, room: Room) -> None:
        self.name, self.room = name.encode(), room
        self.ready = asyncio.get_running_loop().create_future()
        self.own = b'"username":"%b"' % self.name
        self.tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(
            b"GET /ws/chat?username=%b HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n" % self.name
        )

    def data_received(self, data: bytes) -> None:
        if not self.ready.done():
            if b'"user_count"' in data:  # the last frame of the welcome
                self.ready.set_result(None)
            return
        data = self.tail + data
        found = data.count(MARK)
        self.tail = data[-2:]
        if not found:
            return
        at = data.rindex(MARK) + 2
        if at + 19 <= len(data):
            self.room.delays.append(time.monotonic_ns() - int(data[at : at + 19]))
        self.room.delivered += found
        if self.room.talks and self.own in data:
            for _ in range(data.count(self.own)):
                self.room.next_message(self)
        if self.room.delivered >= self.room.wanted:
            self.room.done.set()

    def say(self) -> None:
        """Posts one message that holds the time."""
        content = f"t={time.monotonic_ns():019d};" + "x" * 40
        frame = json.dumps({"type": "message", "content": content}).encode()
        assert len(frame) < 126
        self.transport.write(bytes((0x81, 0x80 | len(frame))) + b"\x00\x00\x00\x00" + frame)  # a mask of zeros


class Room:
    """All clients of one run."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self.delays: list[int] = []
        self.delivered = self.wanted = self.left = 0
        self.talks = False
        self.done = asyncio.Event()

    async def connect(self, count: int) -> None:
        """Connects clients, 50 at a time."""
        loop = asyncio.get_running_loop()
        for first in range(0, count, 50):
            many = [
                loop.create_connection(lambda name=f"u{number:05d}": Peer(name, self), "127.0.0.1", PORT)  # type: ignore[misc]
                for number in range(first, min(first + 50, count))
            ]
            peers = [peer for _, peer in await asyncio.gather(*many)]
            await asyncio.wait_for(asyncio.gather(*(peer.ready for peer in peers)), 20)
            self.peers += peers

    def next_message(self, peer: Peer) -> None:
        """Posts again, until all messages are posted."""
        if self.left:
            self.left -= 1
            peer.say()

    async def talk(self, talkers: int, messages: int) -> float:
        """Closed loop: each talker posts its next message when it sees its own. Returns seconds."""
        self._begin(messages, talks=True)
        began = time.monotonic()
        for peer in self.peers[:talkers]:
            self.next_message(peer)
        await asyncio.wait_for(self.done.wait(), 120)
        return time.monotonic() - began

    async def trickle(self, rate: float, messages: int) -> None:
        """Open loop: `rate` messages a second in all."""
        self._begin(messages, talks=False)
        began = time.monotonic()
        for number in range(messages):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            self.peers[number % 10].say()
        await asyncio.wait_for(self.done.wait(), 120)

    def _begin(self, messages: int, talks: bool) -> None:
        self.delays.clear()
        self.done.clear()
        self.delivered, self.wanted, self.left, self.talks = 0, messages * len(self.peers), messages, talks

    def percentile(self, percent: int) -> float:
        """Milliseconds."""
        delays = sorted(self.delays)
        return delays[len(delays) * percent // 100] / 1e6


@contextmanager
def server(folder: str) -> Iterator[int]:
    """A durable server on the first core; yields its process id."""
    variables = {"HOST": "127.0.0.1", "PORT": str(PORT), "ENGINE_URL": f"sqlite:///{folder}/bench.db"}
    variables |= {"LOG_LEVEL": "WARNING", "WS_MAX_CONNECTIONS": "15000", **UNLIMITED}
    process = subprocess.Popen([sys.executable, "-m", "app"], cwd=ROOT, env={**os.environ, **variables})
    os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


async def until_listening() -> None:
    """Waits until the port answers."""
    for _ in range(500):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", PORT)
        except OSError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return
    raise SystemExit("The server did not start.")


def cpu(pid: int) -> float:
    """Seconds of processor time so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory(pid: int) -> int:
    """Resident bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


async def measure(pid: int, clients: int, idle: int) -> list[tuple[str, str, float]]:
    """Every figure as (what, unit, value)."""
    await until_listening()
    room, figures = Room(), []
    await room.connect(clients)
    for talkers, messages in ((10, 1000), (50, 3000)):
        seconds = await room.talk(talkers, messages)
        name = f"{clients} clients, {talkers} talkers in closed loop"
        figures.append((name, "deliveries/s", room.delivered / seconds))
    used = cpu(pid)
    await room.trickle(20, 100)
    name = f"{clients} clients, 20 messages/s"
    figures += [(f"{name}: latency p{percent}", "ms", room.percentile(percent)) for percent in (50, 99)]
    figures.append((f"{name}: CPU", "µs/delivery", (cpu(pid) - used) * 1e6 / room.delivered))
    used, before, began = cpu(pid), memory(pid), time.monotonic()
    more = Room()
    await more.connect(idle)
    figures.append((f"{idle} more clients connect", "connections/s", idle / (time.monotonic() - began)))
    figures.append(("CPU to connect", "µs/connection", (cpu(pid) - used) * 1e6 / idle))
    figures.append(("memory of an idle connection", "KiB", (memory(pid) - before) / 1024 / idle))
    return figures


def draw(figures: list[tuple[str, str, float]], target: Path) -> None:
    """A bar a figure; bars of the same unit share a scale."""
    largest = {unit: max(value for _, other, value in figures if other == unit) for _, unit, _ in figures}
    rows = []
    for row, (what, unit, value) in enumerate(figures):
        y, width = (
            30 + row * 44,
            560 * value / (largest[unit] or 1.0),
        )  # few clients may cost nothing that can be measured
        rows.append(f'<text x="20" y="{y}">{what}</text><rect x="20" y="{y + 6}" width="{width:.0f}" height="14"/>')
        rows.append(f'<text x="{width + 28:.0f}" y="{y + 18}" class="value">{value:,.4g} {unit}</text>')
    style = "text { font: 13px sans-serif; fill: #222 } .value { font-size: 12px } rect { fill: #3572b0 }"
    height = 30 + len(figures) * 44
    target.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{height}" viewBox="0 0 760 {height}">'
        f'<style>{style}</style><rect width="760" height="{height}" style="fill: #fff"/>{"".join(rows)}</svg>\n'
    )


def main() -> None:
    """Measures, prints and draws."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=500, help="clients that are talked to")
    parser.add_argument("--idle", type=int, default=5000, help="clients that only connect")
    parser.add_argument("--plot", type=Path, default=Path(__file__).with_name("bench.svg"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, server(folder) as pid:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        figures = uvloop.run(measure(pid, arguments.clients, arguments.idle))
    for what, unit, value in figures:
        print(f"{what:52} {value:>14,.1f} {unit}")
    draw(figures, arguments.plot)
    print(f"Drawn into {os.path.relpath(arguments.plot)}")


if __name__ == "__main__":
    main()
