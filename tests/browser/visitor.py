"""Somebody who uses the widget in a browser, by what can be seen and done there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.sync_api import ConsoleMessage, Dialog, Locator, Page, expect

SCREENSHOTS = Path(__file__).parent / "screenshots"
DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}
PHONE: dict[str, Any] = {"viewport": {"width": 375, "height": 667}, "has_touch": True, "is_mobile": True}

# Reported to `troubles`, from before the page's own scripts run.
WATCH = """
document.addEventListener("securitypolicyviolation", (event) => console.error("CSP: " + event.violatedDirective));
for (const name of ["alert", "confirm", "prompt"]) window[name] = () => console.error("RAN: " + name);
"""
TIMEOUT = 30_000  # ms; a connection that broke a few times comes back only after some seconds
# What the browser says whenever a server can't be reached.
NETWORK = ("WebSocket connection to", "net::ERR_", "Failed to load resource")


class Visitor:
    """One page with a widget on it."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.troubles: list[str] = []
        page.add_init_script(WATCH)
        page.on("pageerror", lambda error: self.troubles.append(str(error)))
        page.on("dialog", self._dialog)
        page.on("console", self._on_console)
        page.goto(address)

    def _on_console(self, said: ConsoleMessage) -> None:
        if said.type == "error" and not any(part in said.text for part in NETWORK):
            self.troubles.append(said.text)

    def _dialog(self, dialog: Dialog) -> None:
        self.troubles.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def find(self, part: str) -> Locator:
        """The first visible element of a part of the widget."""
        return self.page.locator(f"portfolio-chat .{part}").filter(visible=True).first

    @property
    def line(self) -> Locator:
        """The line to write in."""
        return self.page.locator("portfolio-chat textarea").filter(visible=True).first

    def join(self, name: str) -> None:
        """Takes a name and waits until the room is open; opens the chat first where it is a button."""
        if self.page.locator("portfolio-chat .button:visible").count():
            self.find("button").click()
        self.offer(name)
        expect(self.find("me")).to_be_visible(timeout=TIMEOUT)

    def offer(self, name: str) -> None:
        """Types a name, and presses Join."""
        self.find("join .input").fill(name)
        self.find("join .go").click()

    def say(self, *texts: str) -> None:
        """Writes and sends."""
        for text in texts:
            self.line.fill(text)
            self.line.press("Enter")

    def texts(self) -> list[str]:
        """All messages, as one reads them."""
        return self.page.locator("portfolio-chat .message .text").all_text_contents()

    def sees(self, *texts: str) -> None:
        """Waits until these are all the messages, in this order, and none is under way."""
        expect(self.page.locator("portfolio-chat .message .text")).to_have_text(list(texts), timeout=TIMEOUT)
        expect(self.page.locator("portfolio-chat .waiting")).to_have_count(0, timeout=TIMEOUT)

    def reads(self, text: str) -> None:
        """Waits until the status line says so."""
        expect(self.find("status")).to_contain_text(text, timeout=TIMEOUT)


def violations(page: Page, axe: str) -> list[str]:
    page.evaluate(axe)
    found = page.evaluate("axe.run({ resultTypes: ['violations'] })")["violations"]
    return [f"{rule['id']}: {node['html']} {node['failureSummary']}" for rule in found for node in rule["nodes"]]
