"""What is counted and timed while the chat runs, for Prometheus. Knows nothing of the chat.

Where `prometheus-client` is not installed, the same names do nothing. Where several processes serve one port (see
`shared`), each writes to files of its own, and whichever is asked answers for all of them.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import struct
import tempfile
import time
from collections.abc import Iterable, Iterator
from typing import Self

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"  # the library's own variable, which it reads when it is imported
MEMORY = "/dev/shm"  # noqa: S108 # a directory is made in it, with a random name and for this user alone
FAN_OUT_BUCKETS = (5e-05, 1e-04, 2.5e-04, 5e-04, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
STORE_BUCKETS = (2e-04, 5e-04, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
OWN = "portfolio-chat-metrics-"  # begins the name of a directory that `shared` made
OTHER = "other"


class NoOpMetric:
    """Stands in for everything of the library where that is missing."""

    def __init__(self, *_: object, **__: object) -> None:
        """Takes whatever the real one takes."""

    def labels(self, *_: object) -> Self:
        """Itself, for any label."""
        return self

    def inc(self, amount: float = 1) -> None:
        """Counts nothing."""

    def set(self, value: float) -> None:
        """Keeps nothing."""

    def observe(self, amount: float) -> None:
        """Notes nothing."""


if not os.environ.get(DIRECTORY):
    os.environ.pop(DIRECTORY, None)  # set but empty, which the library would take for the current directory
try:
    from prometheus_client import (
        CONTENT_TYPE_PLAIN_0_0_4,
        CollectorRegistry,
        Counter,
        Gauge,
        Histogram,
        disable_created_metrics,
        generate_latest,
    )
    from prometheus_client.mmap_dict import MmapedDict
    from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
except ImportError:
    installed = False
    Counter = Gauge = Histogram = CollectorRegistry = NoOpMetric  # type: ignore[assignment,misc] # for any use made here
else:
    installed = True
    # When each series began would double the answer, and several processes can't say it anyway.
    disable_created_metrics()  # type: ignore[no-untyped-call] # as are some more below: it has types for a part
    if DIRECTORY in os.environ:
        os.makedirs(os.environ[DIRECTORY], exist_ok=True)


class LabelledCounter:
    """Counts by the value of one label. Values that `know` did not name count as `other`, so there is an end to them.

    All begin at zero: a series that appears with its first event hides that event from `rate`, and a file that grows
    while the disk is full would end the process.
    """

    def __init__(self, name: str, text: str, label: str, known: Iterable[object] = ()) -> None:
        self._counter = Counter(name, text, [label], registry=_registry)
        self._children = {OTHER: self._counter.labels(OTHER)}
        self.know(known)

    def know(self, values: Iterable[object]) -> None:
        """Tells values that will be counted, as `str` writes them. Safe to call again."""
        for value in map(str, values):
            self._children.setdefault(value, self._counter.labels(value))

    def inc(self, value: object) -> None:
        """Counts one."""
        self._children.get(str(value), self._children[OTHER]).inc()


_registry = CollectorRegistry()  # of our own: a program around this one may have other metrics

# A process that died counts no more in a `live` gauge. The users are counted over all processes: the last word holds.
connections = Gauge(
    "chat_connections", "WebSockets that hold a place in the room.", registry=_registry, multiprocess_mode="livesum"
)
users = Gauge(
    "chat_users",
    "Usernames connected now, over all workers and machines.",
    registry=_registry,
    multiprocess_mode="livemostrecent",
)
messages = Counter("chat_messages_total", "Messages stored.", registry=_registry)
deliveries = Counter("chat_deliveries_total", "Messages written, once for each open connection.", registry=_registry)
refusals = LabelledCounter("chat_refusals_total", "Frames and connections refused, by error code.", "code")
closes = LabelledCounter(
    "chat_closes_total", "Connections that ended, by WebSocket close code, whoever closed them.", "code"
)
notifications = LabelledCounter(
    "chat_notifications_total", "Notifications of the owner, by outcome.", "outcome", ("sent", "failed")
)
batch_messages = Histogram(
    "chat_batch_messages", "Messages stored together.", registry=_registry, buckets=BATCH_BUCKETS
)
store_seconds = Histogram(
    "chat_store_seconds", "Seconds that storing a batch took.", registry=_registry, buckets=STORE_BUCKETS
)
fan_out_seconds = Histogram(
    "chat_fan_out_seconds",
    "Seconds of work to write one batch of frames, of any kind, to all open connections.",
    registry=_registry,
    buckets=FAN_OUT_BUCKETS,
)


@contextlib.contextmanager
def storing(count: int) -> Iterator[None]:
    """Around the storing of so many messages: notes their number and the time, unless it fails or there are none."""
    began = time.perf_counter()
    yield
    if count:
        batch_messages.observe(count)
        store_seconds.observe(time.perf_counter() - began)


def render() -> tuple[bytes, str]:
    """Everything in Prometheus' text format, and its content type. Only where the library is `installed`.

    With several processes it reads some files of each, which takes about 0.3 ms a process.
    """
    try:
        return _text(), CONTENT_TYPE_PLAIN_0_0_4
    except (FileNotFoundError, struct.error):  # a process came or went between the list of files and their content
        return _text(), CONTENT_TYPE_PLAIN_0_0_4


def _text() -> bytes:
    if DIRECTORY in os.environ:
        return generate_latest(MultiProcessCollector(None))  # type: ignore[no-untyped-call]
    return generate_latest(_registry)


@contextlib.contextmanager
def shared(memory: str = MEMORY) -> Iterator[None]:
    """For the parent of several processes: those that are started inside, and import this module, count together.

    A directory that the user chose stays as it is; one of our own is removed at the end.
    """
    if not installed or DIRECTORY in os.environ:
        yield
        return
    # In memory, because on a disk that is busy a write to a mapped file can hold up the event loop.
    place = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix=OWN, dir=place, ignore_cleanup_errors=True) as directory:
        os.environ[DIRECTORY] = directory
        try:
            yield
        finally:
            del os.environ[DIRECTORY]


def forget(process: int) -> None:
    """For the parent: the process with this id has ended, and its gauges with it. What it counted stays counted.

    Files in which nothing was counted go, for one that can't start is started again and again.
    """
    if not installed or DIRECTORY not in os.environ:
        return
    mark_process_dead(process)  # type: ignore[no-untyped-call]
    for file in glob.glob(os.path.join(glob.escape(os.environ[DIRECTORY]), f"*_{process}.db")):
        if not _counted(file):
            os.remove(file)


def _counted(file: str) -> bool:
    """Whether anything but zeros is in a file."""
    try:
        found = MmapedDict.read_all_values_from_file(file)  # type: ignore[no-untyped-call]
    except struct.error:  # its process was killed while it made the file, which would spoil every answer
        return False
    return any(value for _, value, _, _ in found)


def orphaned() -> None:
    """For a child whose parent was killed: removes the directory that `shared` made. Safe to call in every child.

    Who still counts may go on, for what is open stays.
    """
    directory = os.environ.get(DIRECTORY, "")
    if os.path.basename(directory).startswith(OWN):
        shutil.rmtree(directory, ignore_errors=True)
