"""Our server, which writes how much it holds into the file named by WATCHED, whenever it gets SIGUSR1.

Counted are open descriptors, tasks, the objects of each of our classes, and the length of each table: every container
that is an attribute of such an object or a variable of one of our modules.
"""

from __future__ import annotations

import asyncio
import collections
import gc
import json
import os
import signal
import sys
from collections.abc import Iterator, Sized
from pathlib import Path
from typing import Any

from app.__main__ import main

CONTAINERS = (dict, list, set, collections.deque, asyncio.Queue)


def holdings() -> dict[str, int]:
    """How much there is of everything, by its name."""
    gc.collect()
    found: collections.Counter[str] = collections.Counter()
    for thing in gc.get_objects():
        if type(thing).__module__.startswith("app."):
            found[type(thing).__qualname__] += 1
            for name, value in attributes(thing):
                found[f"{type(thing).__qualname__}.{name}"] += length(value)
    for module in [module for name, module in sys.modules.items() if name.startswith("app.")]:
        for name, value in vars(module).items():
            found[f"{module.__name__}:{name}"] += length(value)
    found["tasks"] = len(asyncio.all_tasks())
    found["descriptors"] = len(os.listdir("/proc/self/fd"))
    return {name: count for name, count in found.items() if count}


def attributes(thing: object) -> Iterator[tuple[str, Any]]:
    yield from getattr(thing, "__dict__", {}).items()
    for kind in type(thing).__mro__:
        for name in getattr(kind, "__slots__", ()):
            if hasattr(thing, name):
                yield name, getattr(thing, name)


def length(value: object) -> int:
    if isinstance(value, asyncio.Queue):
        return value.qsize()
    return len(value) if isinstance(value, CONTAINERS) and isinstance(value, Sized) else 0


def report(*_: object) -> None:
    path = Path(os.environ["WATCHED"])
    path.with_suffix(".new").write_text(json.dumps(holdings()))
    path.with_suffix(".new").rename(path)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, report)
    main()
