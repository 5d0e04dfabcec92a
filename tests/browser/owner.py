"""What the owner does in the widget."""

from __future__ import annotations

from playwright.sync_api import Locator, Page, Route, expect

from tests.browser.visitor import Visitor

TOKEN = "an-owner.s_token~" + "x" * 32
HASTE = "Math.random = () => 0.02;"


def press(visitor: Visitor, name: str) -> None:
    """Presses the last button of this name: of several messages, the newest one's."""
    visitor.page.get_by_role("button", name=name, exact=True).last.click()


def offer(visitor: Visitor, token: str) -> None:
    """Types a token into the dialog."""
    visitor.page.get_by_label("Owner's token").fill(token)
    visitor.page.keyboard.press("Enter")


def sign_in(visitor: Visitor) -> Visitor:
    """From the form for the name."""
    if visitor.page.locator("portfolio-chat .me:visible").count():
        visitor.find("me").click()
    press(visitor, "Sign in as owner")
    offer(visitor, TOKEN)
    expect(visitor.find("me")).to_have_text("as owner")
    return visitor


def kept_token(visitor: Visitor) -> str | None:
    """The owner's token, where this tab keeps one."""
    token: str | None = visitor.page.evaluate(
        """() => Object.values(sessionStorage).map((kept) => JSON.parse(kept).token).find(Boolean) ?? null"""
    )
    return token


def dialog(visitor: Visitor) -> Locator:
    """The dialog that is open."""
    return visitor.page.locator("portfolio-chat .ask")


def next_of(held: list[Route], page: Page) -> Route:
    """A request that a test holds back, as soon as it is there: Playwright tells of it before it is held."""
    for _ in range(5000):
        if held:
            break
        page.wait_for_timeout(1)
    return held.pop(0)
