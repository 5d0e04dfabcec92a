"""The owner's tools are for everyone: by keyboard alone, on a phone, dark, from right to left."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Visit
from tests.browser.owner import TOKEN, dialog, offer, press
from tests.browser.visitor import DESKTOP, PHONE, SCREENSHOTS, violations


def test_line_to_write_in_has_the_focus_after_sign_in_however_late_the_dialog_closes(
    visit: Visit, address: str
) -> None:
    bob, anna = visit(address, "bob"), visit(address)
    bob.say("one")
    anna.page.evaluate(
        """() => {
            const { close } = HTMLDialogElement.prototype;
            HTMLDialogElement.prototype.close = function () {
                const ready = this.getRootNode().querySelector(".tools button");
                ready ? close.call(this) : requestAnimationFrame(() => this.close());
            };
        }"""
    )
    anna.page.get_by_role("button", name="Sign in as owner").press("Enter")
    anna.page.get_by_label("Owner's token").fill(TOKEN)
    anna.page.keyboard.press("Enter")
    expect(anna.page.get_by_role("dialog")).to_be_hidden()
    expect(anna.line).to_be_focused()


def test_owner_works_by_keyboard_alone(visit: Visit, address: str) -> None:
    bob, anna = visit(address, "bob"), visit(address)
    bob.say("one", "two", "three")
    keys = anna.page.keyboard
    anna.find("join .input").focus()
    for _ in range(3):
        keys.press("Tab")
    expect(anna.page.get_by_role("button", name="Sign in as owner")).to_be_focused()
    keys.press("Enter")
    expect(anna.page.get_by_label("Owner's token")).to_be_focused()
    keys.type(TOKEN)
    keys.press("Enter")
    expect(anna.line).to_be_focused()
    anna.sees("one", "two", "three")
    ban, hide = (anna.page.get_by_role("button", name=name) for name in ("Ban bob", "Hide the message of bob"))
    keys.press("Shift+Tab")
    expect(ban.nth(2)).to_be_focused()
    keys.press("Shift+Tab")
    expect(hide.nth(2)).to_be_focused()
    keys.press("ArrowUp")
    expect(hide.nth(1)).to_be_focused()
    expect(anna.find("tools:focus-within")).to_have_css("opacity", "1")
    keys.press("Tab")
    expect(ban.nth(1)).to_be_focused()
    keys.press("Tab")
    expect(anna.line).to_be_focused()
    for _ in range(2):
        keys.press("Shift+Tab")
    expect(hide.nth(1)).to_be_focused()
    keys.press("ArrowDown")
    keys.press("ArrowDown")
    expect(hide.nth(2)).to_be_focused()
    keys.press("Enter")
    expect(dialog(anna)).to_be_visible()
    for _ in range(2):
        keys.press("Tab")
    expect(anna.page.get_by_role("button", name="Hide", exact=True)).to_be_focused()
    keys.press("Enter")
    anna.sees("one", "two")
    expect(hide.nth(1)).to_be_focused()
    for _ in range(2):
        keys.press("Shift+Tab")
    expect(anna.page.get_by_role("button", name="The room")).to_be_focused()
    keys.down("Enter")
    expect(dialog(anna)).to_be_visible()
    keys.down("Enter")  # held down, it must not pause the room
    keys.up("Enter")
    expect(anna.page.get_by_role("heading", name="The room")).to_be_focused()
    keys.press("Tab")
    expect(anna.page.get_by_role("button", name="Pause the room")).to_be_focused()
    keys.press("Escape")
    expect(anna.page.get_by_role("button", name="The room")).to_be_focused()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("light", {**DESKTOP}),
        ("phone-dark", {**PHONE, "color_scheme": "dark"}),
        ("right-to-left", {**DESKTOP}),
    ],
)
def test_dialogs_are_for_everyone(visit: Visit, address: str, axe: str, name: str, options: Any) -> None:
    def look(what: str) -> None:
        assert violations(anna.page, axe) == []
        assert anna.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        shown = anna.page.locator("portfolio-chat .ask")
        if shown.count():
            assert shown.evaluate("element => element.scrollWidth <= element.clientWidth")
        anna.page.screenshot(path=SCREENSHOTS / f"owner-{name}-{what}.png")

    script = "addEventListener('DOMContentLoaded', () => { document.documentElement.dir = 'rtl' })"
    anna = visit(address, script=script if name == "right-to-left" else "", **options)
    anna.find("join .input").scroll_into_view_if_needed()
    look("form")
    press(anna, "Sign in as owner")
    offer(anna, "short")
    look("sign-in")
    offer(anna, TOKEN)
    bob, spam = visit(address, "bob"), visit(address, "spam-" + "x" * 45)
    said = ["Buy this: https://spam.example/" + "a" * 80, "Hello, is this the owner?", "I have a question."]
    spam.say(said[0])
    spam.sees(said[0])
    bob.say(*said[1:])
    anna.sees(*said)
    anna.say("It is. Ask away.")
    expect(anna.page.locator(".message")).to_have_count(4)
    anna.page.locator(".message").nth(2).hover()
    look("messages")
    anna.page.get_by_role("button", name="Hide the message of spam").click()
    look("hide")
    press(anna, "Cancel")
    anna.page.get_by_role("button", name="Ban spam").click()
    look("ban")
    press(anna, "Ban")
    anna.reads("is banned.")
    press(anna, "The room")
    anna.page.get_by_label("Slow mode").select_option("30 s between messages")
    press(anna, "Pause the room")
    expect(anna.find("banned")).to_be_visible()
    expect(bob.find("rule")).to_have_text("Only the owner can write now.")
    look("room")
    anna.page.keyboard.press("Escape")
    look("paused")
    if name == "light":
        bob.page.screenshot(path=SCREENSHOTS / "visitor-paused.png")
        spam.page.screenshot(path=SCREENSHOTS / "visitor-banned.png")
