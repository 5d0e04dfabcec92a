"""What goes wrong under the owner's hands in the widget, and what the owner is told."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Route, expect

from tests.browser.conftest import Visit
from tests.browser.owner import HASTE, TOKEN, dialog, kept_token, next_of, offer, press, sign_in
from tests.support.running import RunningServer


def test_token_that_was_changed_is_asked_for_again(visit: Visit, server: RunningServer, address: str) -> None:
    anna = visit(address, "anna", script=HASTE)
    sign_in(anna)
    server.kill()
    server.variables["OWNER_TOKEN"] = "another" * 6
    server.start()
    expect(anna.find("ask .error")).to_have_text("The owner's token is another one now. Sign in again.", timeout=10_000)
    assert not kept_token(anna)
    press(anna, "Cancel")
    expect(anna.find("me")).to_have_text("as anna (change)")
    anna.say("Hello")
    anna.sees("Hello")


def test_token_of_yesterday_in_a_page_that_is_opened(visit: Visit, address: str) -> None:
    origin = address.rstrip("/")
    kept = f"sessionStorage['portfolio-chat {origin}'] = JSON.stringify({{ token: '{'y' * 40}' }})"
    anna = visit(address, script=kept)
    expect(anna.find("ask .error")).to_have_text("The owner's token is another one now. Sign in again.")
    offer(anna, TOKEN)
    expect(anna.find("me")).to_have_text("as owner")


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (404, {"error": {"code": "not_found", "message": "There is none."}}, "There is none."),
        (422, {"error": {"code": "invalid_request", "message": "Not so.", "field": "id"}}, "Not so."),
        (429, {"error": {"code": "rate_limited", "message": "Slowly.", "retry_after": 7.2}}, "Try again in 8 s."),
        (503, {"error": {"code": "unavailable", "message": "Not now."}}, "Not now."),
        (502, "<h1>Bad gateway</h1>", "The server could not do it (status 502). Try again."),
        (0, "", "The server can't be reached. Try again."),
    ],
)
def test_failed_call_says_so(visit: Visit, address: str, status: int, body: Any, words: str) -> None:
    def answer(route: Route) -> None:
        if not status:
            return route.abort()
        if isinstance(body, str):
            return route.fulfill(status=status, body=body, content_type="text/html")
        return route.fulfill(status=status, json=body)

    anna = visit(address)
    sign_in(anna).say("Hello")
    anna.sees("Hello")
    anna.page.route("**/api/messages/*", answer)
    press(anna, "Hide the message of owner")
    press(anna, "Hide")
    expect(anna.find("ask .error")).to_contain_text(words)
    anna.page.unroute("**/api/messages/*")
    press(anna, "Hide")
    anna.sees()


def test_ban_without_hiding_says_so(visit: Visit, address: str) -> None:
    bob, anna = visit(address, "bob"), visit(address)
    bob.say("Hello")
    sign_in(anna).sees("Hello")
    anna.page.route("**/api/messages?*", lambda route: route.abort())
    press(anna, "Ban bob")
    anna.page.get_by_label("Hide all messages of bob").check()
    press(anna, "Ban")
    expect(anna.find("ask .error")).to_contain_text("bob is banned, but the messages are still there.")
    bob.reads("You are banned from this chat.")
    anna.page.unroute("**/api/messages?*")
    press(anna, "Ban")
    anna.sees()


def test_page_without_its_tools_is_a_visitor_s(visit: Visit, address: str) -> None:
    anna = visit(address, "anna")
    sign_in(anna)
    anna.page.route("**/owner.js", lambda route: route.abort())
    anna.page.reload()
    anna.say("Hello")
    anna.sees("Hello")
    expect(anna.find("me")).to_have_text("as anna (change)")


def test_answer_of_another_server_is_none(visit: Visit, address: str) -> None:
    def answer(route: Route) -> None:
        route.fulfill(status=200, body="<h1>Wi-Fi</h1>", content_type="text/html")

    anna = visit(address)
    anna.page.route("**/api/**", answer)
    press(anna, "Sign in as owner")
    offer(anna, TOKEN)
    expect(anna.find("ask .error")).to_have_text("The server could not do it (status 200). Try again.")
    assert not kept_token(anna)


def test_what_is_cancelled_while_the_server_is_slow(visit: Visit, address: str) -> None:
    held: list[Route] = []
    anna = visit(address, "anna")
    anna.say("Hello")
    anna.sees("Hello")
    anna.find("me").click()
    press(anna, "Sign in as owner")
    with anna.page.expect_request("**/api/bans"):
        anna.page.route("**/api/**", lambda route: held.append(route))  # noqa: PLW0108 - it gets attributes
        offer(anna, TOKEN)
    anna.page.keyboard.press("Escape")
    expect(dialog(anna)).to_have_count(0)
    with anna.page.expect_response("**/api/bans"):
        next_of(held, anna.page).continue_()
    anna.page.unroute("**/api/**")
    sign_in(anna)
    with anna.page.expect_request("**/api/messages/*"):
        anna.page.route("**/api/messages/*", lambda route: held.append(route))  # noqa: PLW0108 - it gets attributes
        press(anna, "Hide the message of anna")
        press(anna, "Hide")
    anna.page.keyboard.press("Escape")
    expect(dialog(anna)).to_have_count(0)
    next_of(held, anna.page).fulfill(status=503, json={"error": {"code": "unavailable", "message": "Not now."}})
    anna.reads("Not now.")


def test_form_is_asked_for_once(visit: Visit, address: str) -> None:
    held: list[Route] = []
    anna = visit(address)
    anna.page.route("**/owner.js", lambda route: held.append(route))  # noqa: PLW0108 - it gets attributes
    with anna.page.expect_request("**/owner.js"):
        anna.page.get_by_role("button", name="Sign in as owner").dblclick()
    next_of(held, anna.page).continue_()
    expect(dialog(anna)).to_have_count(1)
    offer(anna, TOKEN)
    expect(anna.find("me")).to_have_text("as owner")
    expect(dialog(anna)).to_have_count(0)
    expect(anna.page.get_by_role("button", name="The room")).to_have_count(1)


def test_room_is_paused_without_a_connection(visit: Visit, server: RunningServer, address: str) -> None:
    anna = visit(address)
    sign_in(anna)
    anna.page.evaluate("() => { window.WebSocket = class { close() {} } }")
    anna.page.evaluate("document.querySelector('portfolio-chat').launcher.panel.room.connection.start()")
    press(anna, "The room")
    press(anna, "Pause the room")
    press(anna, "Open the room again")
    expect(anna.page.get_by_role("button", name="Pause the room")).to_be_visible()
    anna.page.route("**/api/room", lambda route: route.abort())
    anna.page.get_by_label("Slow mode").select_option("300 s between messages")
    expect(anna.find("ask .error")).to_have_text("The server can't be reached. Try again.")
    expect(anna.page.get_by_label("Slow mode")).to_have_value("0")
