"""The same small set of actions in Chromium, Firefox and WebKit, for what differs between engines.

Playwright drives Chromium, and Firefox over WebDriver BiDi. It has no way to the WebKit that Debian has, so that one is
driven by Selenium, in an X server without a screen.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from glob import glob
from typing import Any, Protocol

from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import Page, sync_playwright
from selenium.webdriver import ActionChains, WebKitGTK
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.webkitgtk.options import Options
from selenium.webdriver.webkitgtk.service import Service

NAMES = ("chromium", "firefox", "webkit")
PROGRAMS = {"chromium": "chromium", "firefox": "firefox-esr", "webkit": "WebKitWebDriver"}
QUIET = ("gpu", "quic", "background-networking", "component-update", "sync")
MINI_BROWSER = "/usr/lib/*/webkit2gtk-4.*/MiniBrowser"
WIDGET = "document.querySelector('portfolio-chat').shadowRoot"


class Driver(Protocol):
    """What an engine can do on its one page."""

    def open(self, address: str) -> None:
        """Loads an address, and waits until that is done."""

    def back(self) -> None:
        """Goes back in the history."""

    def run(self, expression: str) -> Any:
        """The value of an expression in JavaScript; of a promise, what it resolves to."""

    def type(self, text: str) -> None:
        """Presses keys, where the focus is. A line break is the Enter key."""

    def resize(self, width: int, height: int) -> None:
        """Gives the window's content this size, in CSS pixels."""


class PlaywrightDriver:
    def __init__(self, page: Page) -> None:
        self._page = page

    def open(self, address: str) -> None:
        self._page.goto(address)

    def back(self) -> None:
        self._page.go_back()

    def run(self, expression: str) -> Any:
        return self._page.evaluate(f"() => {expression}")

    def type(self, text: str) -> None:
        self._page.keyboard.type(text)

    def resize(self, width: int, height: int) -> None:
        self._page.set_viewport_size({"width": width, "height": height})


class SeleniumDriver:
    def __init__(self, driver: WebKitGTK) -> None:
        self._driver = driver

    def open(self, address: str) -> None:
        self._driver.get(address)

    def back(self) -> None:
        self._driver.back()

    def run(self, expression: str) -> Any:
        return self._driver.execute_script(f"return {expression}")

    def type(self, text: str) -> None:
        ActionChains(self._driver).send_keys(text.replace("\n", Keys.ENTER)).perform()

    def resize(self, width: int, height: int) -> None:
        self._driver.set_window_rect(0, 0, width, height)
        missing = [self.run(f"{size} - inner{side}") for size, side in ((width, "Width"), (height, "Height"))]
        self._driver.set_window_rect(0, 0, width + missing[0], height + missing[1])


@contextlib.contextmanager
def open_driver(engine: str) -> Iterator[Driver]:
    """A new browser with an empty profile and one page."""
    if engine == "webkit":
        with screen() as display:
            options = Options()
            options.binary_location = glob(MINI_BROWSER)[0]
            options.add_argument("--automation")
            service = Service(shutil.which("WebKitWebDriver"), env={"DISPLAY": display, "GTK_A11Y": "none"})
            driver = WebKitGTK(options=options, service=service)
            try:
                yield SeleniumDriver(driver)
            finally:
                driver.quit()
        return
    with sync_playwright() as playwright:
        program = shutil.which(PROGRAMS[engine])
        if engine == "firefox":
            browser = playwright.firefox.launch(executable_path=program, channel="moz-firefox")
        else:
            arguments = ["--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in QUIET)]
            browser = playwright.chromium.launch(executable_path=program, args=arguments)
        with contextlib.closing(browser):
            yield PlaywrightDriver(browser.new_context().new_page())


@contextlib.contextmanager
def screen() -> Iterator[str]:
    """An X server without a screen; its DISPLAY."""
    command = ["Xvfb", "-displayfd", "1", "-screen", "0", "1280x1024x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdout
        try:
            yield f":{server.stdout.readline().decode().strip()}"
        finally:
            server.terminate()


class Chat:
    """A visitor, by what can be seen and done in any engine. `part`: a CSS selector in the widget."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver

    def until(self, expression: str, timeout: float = 20.0) -> None:
        """Waits until an expression is true."""
        deadline = time.monotonic() + timeout
        while not self._holds(expression):
            assert time.monotonic() < deadline, f"this did not become true: {expression}"
            time.sleep(0.02)

    def _holds(self, expression: str) -> bool:
        try:
            return bool(self.driver.run(expression))
        except PlaywrightError as error:
            if "context was destroyed" not in str(error):
                raise
            return False  # another page is being loaded

    def until_shown(self, part: str) -> None:
        """Waits until a part is there and can be seen."""
        self.until(f"!!{WIDGET}.querySelector('{part}')?.checkVisibility()")

    def focus(self, part: str) -> None:
        """Moves the focus to a part, as a click does."""
        self.until_shown(part)
        self.driver.run(f"{WIDGET}.querySelector('{part}').focus()")

    def press(self, part: str) -> None:
        """Clicks on a part."""
        self.until_shown(part)
        self.driver.run(f"{WIDGET}.querySelector('{part}').click()")

    def join(self, name: str) -> None:
        """Takes a name, and waits until the room is open."""
        self.focus(".join .input")
        self.driver.type(f"{name}\n")
        self.until_shown("textarea")

    def say(self, text: str) -> None:
        """Writes and sends."""
        self.focus("textarea")
        self.driver.type(f"{text}\n")

    def sees(self, *texts: str) -> None:
        """Waits until these are all the messages, in this order, and none is under way."""
        shown = f"[...{WIDGET}.querySelectorAll('.message .text')].map((text) => text.textContent)"
        self.until(f"JSON.stringify({shown}) === JSON.stringify({list(texts)!r})")
        self.until(f"!{WIDGET}.querySelector('.waiting')")

    def style(self, part: str, name: str) -> str:
        """A part's computed style."""
        return str(self.driver.run(f"getComputedStyle({WIDGET}.querySelector('{part}')).{name}"))

    def box(self, part: str) -> dict[str, float]:
        """Where a part is, in CSS pixels of the window."""
        box: dict[str, float] = self.driver.run(f"{WIDGET}.querySelector('{part}').getBoundingClientRect().toJSON()")
        return box
