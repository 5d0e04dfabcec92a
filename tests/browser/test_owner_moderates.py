"""The owner in charge, in the widget against the real server: hiding, banning, pausing, slowing down."""

from __future__ import annotations

import pytest
from playwright.sync_api import Route, expect

from tests.browser.conftest import Visit
from tests.browser.owner import HASTE, TOKEN, dialog, next_of, press, sign_in
from tests.support.running import RunningServer


def test_owner_hides_a_message(visit: Visit, address: str) -> None:
    bob, anna = visit(address, "bob"), visit(address)
    bob.say("Buy this", "And that")
    sign_in(anna).sees("Buy this", "And that")
    expect(bob.page.locator(".follows")).to_have_count(1)
    anna.find("message").hover()
    anna.page.get_by_role("button", name="Hide the message of bob").first.click()
    expect(dialog(anna)).to_contain_text("Buy this")
    press(anna, "Cancel")
    expect(anna.page.get_by_role("button", name="Hide the message of bob").first).to_be_focused()
    anna.page.keyboard.press("Enter")
    press(anna, "Hide")
    anna.sees("And that")
    bob.sees("And that")
    for visitor in (anna, bob):
        expect(visitor.page.locator(".follows")).to_have_count(0)
    anna.reads("The message is hidden.")
    expect(anna.find("message .name")).to_have_text("bob")
    expect(anna.page.get_by_role("button", name="Hide the message of bob")).to_be_focused()


@pytest.mark.parametrize("hide_all", [False, True])
def test_owner_bans(visit: Visit, server: RunningServer, address: str, hide_all: bool) -> None:
    bob, anna = visit(address, "bob", script=HASTE), visit(address)
    bob.say("Buy this", "And that")
    bob.sees("Buy this", "And that")
    sign_in(anna).say("No")
    press(anna, "Ban bob")
    anna.page.get_by_label("For how long").select_option("A day")
    if hide_all:
        anna.page.get_by_label("Hide all messages of bob").check()
    press(anna, "Ban")
    bob.reads("You are banned from this chat.")
    anna.reads("bob is banned.")
    anna.sees(*([] if hide_all else ["Buy this", "And that"]), "No")
    expect(anna.find("count")).to_have_text("1 here", timeout=10_000)
    bob.page.reload()
    bob.reads("You are banned from this chat.")
    expect(anna.page.get_by_role("button", name="Ban owner")).to_have_count(0)
    press(anna, "The room")
    expect(anna.find("banned")).to_contain_text("bobuntil ")
    press(anna, "Lift the ban of bob")
    expect(dialog(anna)).to_contain_text("Nobody is banned.")
    bob.page.reload()
    expect(bob.line).to_be_visible()


def test_owner_pauses_and_resumes(visit: Visit, address: str) -> None:
    bob, anna = visit(address, "bob"), visit(address)
    press(sign_in(anna), "The room")
    press(anna, "Pause the room")
    expect(bob.find("rule")).to_have_text("Only the owner can write now.")
    expect(bob.line).to_have_js_property("readOnly", True)
    expect(anna.page.get_by_role("button", name="Open the room again")).to_be_focused()
    anna.page.keyboard.press("Escape")
    anna.say("A word from me")
    bob.sees("A word from me")
    press(anna, "The room")
    press(anna, "Open the room again")
    expect(bob.line).to_have_js_property("readOnly", False)
    bob.say("Thanks")
    bob.sees("A word from me", "Thanks")


def test_what_is_done_while_the_server_is_slow_is_done_next(visit: Visit, address: str) -> None:
    held: list[Route] = []
    bob, anna = visit(address, "bob"), visit(address)
    sign_in(anna)
    anna.page.route("**/api/bans", lambda route: held.append(route))  # noqa: PLW0108 - it gets attributes
    press(anna, "The room")
    expect(dialog(anna)).to_have_attribute("aria-busy", "true")
    press(anna, "Pause the room")
    next_of(held, anna.page).continue_()
    assert not held
    expect(bob.find("rule")).to_have_text("Only the owner can write now.")
    expect(dialog(anna)).to_contain_text("Nobody is banned.")


def test_slow_mode_sends_again_by_itself(visit: Visit, server: RunningServer, address: str) -> None:
    bob, anna = visit(address, "bob"), visit(address)
    press(sign_in(anna), "The room")
    slow = anna.page.get_by_label("Slow mode")
    slow.select_option("10 s between messages")
    expect(bob.find("rule")).to_have_text("Slow mode: a message every 10 s.")
    # For the test, a shorter one; the dialog shows whatever it is.
    anna.page.evaluate(
        """async (token) => fetch("api/room", { method: "PATCH", body: '{"slow_mode": 2}',
        headers: { Authorization: `Bearer ${token}` } })""",
        TOKEN,
    )
    expect(slow).to_have_value("2")
    bob.say("one", "two")
    expect(bob.find("waiting .state")).to_contain_text("Slow mode. Trying again in")
    bob.sees("one", "two")
    assert server.stats()["total_messages"] == 2
    slow.select_option("Off")
    expect(bob.page.locator("portfolio-chat .rule")).to_be_empty()


def test_presence_of_the_owner_is_shown(visit: Visit, address: str) -> None:
    bob, anna = visit(address, "bob"), visit(address)
    expect(bob.find("presence")).to_have_text("The owner usually answers later")
    sign_in(anna)
    expect(bob.find("presence")).to_have_text("The owner is here")
    anna.say("Hello")
    expect(bob.find("message .owner")).to_have_text("owner")
    press(anna, "The room")
    press(anna, "Sign out")
    expect(bob.find("presence")).to_have_text("The owner usually answers later", timeout=15_000)


def test_end_of_slow_mode_lets_waiting_posts_go(visit: Visit, address: str) -> None:
    bob, anna = visit(address, "bob"), visit(address)
    press(sign_in(anna), "The room")
    slow = anna.page.get_by_label("Slow mode")
    slow.select_option("300 s between messages")
    expect(bob.find("rule")).to_have_text("Slow mode: a message every 300 s.")
    bob.say("one", "two", "three")
    expect(bob.find("waiting .state")).to_have_text("Slow mode. Trying again in 300 s.")
    slow.select_option("Off")
    bob.sees("one", "two", "three")


def test_ban_says_when_the_address_could_not_be_banned(visit: Visit, address: str) -> None:
    bob, anna = visit(address, "bob"), visit(address)
    bob.say("Buy this")
    sign_in(anna).sees("Buy this")
    press(anna, "Ban bob")
    anna.page.get_by_label("Their address, too").check()
    press(anna, "Ban")
    anna.reads("bob is banned, but not the address")


def test_focus_goes_on_where_a_message_was_hidden(visit: Visit, address: str) -> None:
    bob, anna = visit(address, "bob"), visit(address)
    bob.say("one", "two", "three", "four")
    sign_in(anna).sees("one", "two", "three", "four")
    hide = anna.page.get_by_role("button", name="Hide the message of bob")
    for left in (["one", "three", "four"], ["one", "four"]):
        hide.nth(1).focus()
        anna.page.keyboard.press("Enter")
        press(anna, "Hide")
        anna.sees(*left)
        expect(hide.nth(1)).to_be_focused()


def test_unread_messages_that_were_hidden_are_not_counted(visit: Visit, address: str) -> None:
    eve, bob, anna = visit(address, "eve"), visit(address, "bob"), visit(address)
    title = eve.page.title()
    eve.page.evaluate("Object.defineProperty(document, 'hidden', { value: true })")
    bob.say("spam", "spam again")
    expect(eve.page).to_have_title(f"(2) {title}")
    sign_in(anna).sees("spam", "spam again")
    press(anna, "Hide the message of bob")
    press(anna, "Hide")
    expect(eve.page).to_have_title(f"(1) {title}")


def test_unread_messages_that_went_while_away_are_not_counted(
    visit: Visit, server: RunningServer, address: str
) -> None:
    eve, bob, anna = visit(address, "eve", script=HASTE), visit(address, "bob"), visit(address)
    title = eve.page.title()
    eve.page.evaluate("Object.defineProperty(document, 'hidden', { value: true })")
    bob.say("spam", "spam again")
    expect(eve.page).to_have_title(f"(2) {title}")
    sign_in(anna).sees("spam", "spam again")
    eve.page.evaluate("document.querySelector('portfolio-chat').launcher.panel.room.connection.leave()")
    press(anna, "Hide the message of bob")
    press(anna, "Hide")
    anna.sees("spam")
    eve.page.evaluate("document.querySelector('portfolio-chat').launcher.panel.room.connection.epoch = null")
    eve.page.evaluate("document.querySelector('portfolio-chat').launcher.panel.room.connection.start()")
    expect(eve.page).to_have_title(f"(1) {title}")
