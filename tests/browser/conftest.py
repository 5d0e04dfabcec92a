"""Fixtures of the browser tests: Chromium, visitors in it, sites that carry the widget, packages from npm."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.engines import NAMES, PROGRAMS, Driver, open_driver
from tests.browser.owner import TOKEN
from tests.browser.sites import ScriptedRoom, Site
from tests.browser.visitor import Visitor
from tests.conftest import Start, need_service
from tests.support.running import RunningServer

# The shell has no windows, and takes a quarter of the time.
CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")
QUIET = ("gpu", "quic", "background-networking", "component-update", "sync")
# Playwright switches the back/forward cache off, in which real browsers keep left pages; the shell has none.
BACK_FORWARD_CACHE = {
    "executable_path": shutil.which("chromium"),
    "ignore_default_args": ["--disable-back-forward-cache"],
}

Visit = Callable[..., Visitor]
NewSite = Callable[..., Site]
NewRoom = Callable[..., ScriptedRoom]


@pytest.fixture(scope="module")
def chromium(request: pytest.FixtureRequest) -> Iterator[Browser]:
    """One browser a module: Playwright's loop would stand in the way of other modules' own.

    Indirect parameters are options for the launch.
    """
    need_service(CHROMIUM is not None, "chromium is not installed")
    arguments = ["--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in QUIET)]
    with sync_playwright() as playwright:
        options: dict[str, Any] = getattr(request, "param", {})
        browser = playwright.chromium.launch(args=arguments, **{"executable_path": CHROMIUM, **options})
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Visit]:
    """`visit(address, name="", **options)`: somebody on that page, in a browser profile of their own.

    Fails in the end if a page had an uncaught error, opened a dialog, or broke its Content-Security-Policy.
    """
    with ExitStack() as stack:
        visitors: list[Visitor] = []

        def open_page(address: str, name: str = "", script: str = "", **options: Any) -> Visitor:
            context = chromium.new_context(**options)
            stack.callback(context.close)
            if script:
                context.add_init_script(script)
            visitors.append(Visitor(context.new_page(), address))
            if name:
                visitors[-1].join(name)
            return visitors[-1]

        yield open_page
        for visitor in visitors:
            assert visitor.troubles == []


@pytest.fixture(scope="module", params=NAMES)
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    """One browser for each engine."""
    engine = request.param
    need_service(shutil.which(PROGRAMS[engine]) is not None, f"{PROGRAMS[engine]} is not installed")
    need_service(engine != "webkit" or shutil.which("Xvfb") is not None, "Xvfb is not installed")
    with open_driver(engine) as opened:
        yield opened


@pytest.fixture
def server(start: Start) -> RunningServer:
    """A chat server with an owner."""
    return start(OWNER_TOKEN=TOKEN)


@pytest.fixture
def address(server: RunningServer) -> str:
    """Its page."""
    return f"http://127.0.0.1:{server.port}/"


@pytest.fixture
def site() -> Iterator[NewSite]:
    """`site(body, ...)`: a web server of another origin, with one page."""
    with ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(Site(*arguments, **options))


@pytest.fixture
def room() -> Iterator[NewRoom]:
    """`room(...)`: a chat server that does what the test says."""
    with ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(ScriptedRoom(*arguments, **options))


@pytest.fixture(scope="session")
def axe(packages: Path) -> str:
    return (packages / "axe-core" / "axe.min.js").read_text()
