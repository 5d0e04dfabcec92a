"""The owner's tools in the widget, against the real server: signing in and out, hiding, banning, the room's rules."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import NewSite, Visit
from tests.browser.test_widget_access import DESKTOP, PHONE, axe, violations
from tests.browser.test_widget_looks import SCREENSHOTS
from tests.browser.visitor import Visitor
from tests.conftest import Start
from tests.running import RunningServer

__all__ = ["axe"]  # a fixture

TOKEN = "an-owner.s_token~" + "x" * 32
HASTE = "Math.random = () => 0.02;"
# Every attribute, and every text, of the page and in the widgets.
ALL_HTML = """() => {
  const roots = [document, ...[...document.querySelectorAll("portfolio-chat")].map((chat) => chat.shadowRoot)];
  const all = roots.flatMap((root) => [...root.querySelectorAll("*")]);
  return all.flatMap((element) => [element.textContent, ...[...element.attributes].map(({ value }) => value)]).join();
}"""


@pytest.fixture
def server(start: Start) -> RunningServer:
    return start(OWNER_TOKEN=TOKEN)


@pytest.fixture
def address(server: RunningServer) -> str:
    return f"http://127.0.0.1:{server.port}/"


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


def dialog(visitor: Visitor) -> Any:
    return visitor.page.locator("portfolio-chat .ask")


def test_wrong_token_is_said_and_forgotten(visit: Visit, address: str) -> None:
    anna = visit(address)
    press(anna, "Sign in as owner")
    for wrong in ("short", "w" * 40, "ключ" * 10):
        offer(anna, wrong)
        expect(anna.find("ask .error")).to_have_text("This is not the owner's token.")
        expect(anna.page.get_by_label("Owner's token")).to_have_value("")
        expect(anna.page.get_by_label("Owner's token")).to_be_focused()
    assert anna.page.evaluate("sessionStorage.length") == 0
    anna.page.keyboard.press("Escape")
    expect(dialog(anna)).to_have_count(0)
    expect(anna.page.get_by_role("button", name="Sign in as owner")).to_be_focused()
    anna.join("anna")


def test_guessing_is_slowed_down(visit: Visit, address: str) -> None:
    anna = visit(address)
    press(anna, "Sign in as owner")
    for guess in range(5):
        offer(anna, f"{guess}" * 40)
        expect(anna.find("ask .error")).to_have_text("This is not the owner's token.")
        expect(anna.page.get_by_label("Owner's token")).to_have_value("")
    offer(anna, "x" * 40)
    expect(anna.find("ask .error")).to_contain_text("That was too often. Try again in")


def test_token_is_kept_to_this_tab_and_the_server(visit: Visit, server: RunningServer, address: str) -> None:
    said: list[str] = []

    def listen(page: Page) -> None:
        page.on("request", lambda request: said.append(request.url))
        page.on("websocket", lambda socket: said.append(socket.url))
        page.on("console", lambda message: said.append(message.text))

    anna = visit(address)
    listen(anna.page)
    sign_in(anna).say("Hello")
    anna.sees("Hello")
    anna.page.reload()
    expect(anna.find("me")).to_have_text("as owner")
    assert any("/ws/chat" in url for url in said)
    assert TOKEN not in "".join(said)
    assert TOKEN not in anna.page.evaluate("JSON.stringify({ ...localStorage }) + document.cookie + location.href")
    assert TOKEN not in anna.page.evaluate(ALL_HTML)
    assert TOKEN not in server.log()
    assert list(anna.page.evaluate("({ ...sessionStorage })").values()) == [TOKEN]
    with anna.page.context.new_page() as other:  # another tab is a visitor's
        other.goto(address)
        expect(other.get_by_label("Your name")).to_be_visible()


def test_no_sign_in_on_pages_of_other_origins(start: Start, visit: Visit, site: NewSite) -> None:
    chat = f"http://127.0.0.1:{start(OWNER_TOKEN=TOKEN, CORS_ORIGINS='*').port}"
    loaded: list[str] = []
    ada = visit(site("<portfolio-chat></portfolio-chat>", chat=chat).origin)
    ada.page.on("request", lambda request: loaded.append(request.url))
    expect(ada.find("join .go")).to_be_visible()
    expect(ada.page.get_by_role("button", name="Sign in as owner")).to_have_count(0)
    ada.page.evaluate(f"sessionStorage['portfolio-chat {chat}'] = '{TOKEN}'")
    ada.page.reload()
    ada.join("ada")
    assert not [url for url in loaded if "owner.js" in url]


def test_visitors_do_not_load_the_tools(visit: Visit, address: str) -> None:
    ada = visit(address, "ada")
    assert ada.page.evaluate("performance.getEntriesByType('resource').map(({ name }) => name)") == [
        f"{address}widget.js"
    ]


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
    anna.is_told("The message is hidden.")
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
    bob.is_told("You are banned from this chat.")
    anna.is_told("bob is banned.")
    anna.sees(*([] if hide_all else ["Buy this", "And that"]), "No")
    expect(anna.find("count")).to_have_text("1 here", timeout=10_000)
    bob.page.reload()
    bob.is_told("You are banned from this chat.")
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
    assert len(held) == 1
    held[0].continue_()
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


def test_signing_out_returns_to_the_visitor(visit: Visit, server: RunningServer, address: str) -> None:
    anna = visit(address, "anna")
    anna.say("as anna")
    anna.sees("as anna")
    kept = anna.page.evaluate("({ ...localStorage })")
    sign_in(anna).say("as owner")
    anna.sees("as anna", "as owner")
    assert anna.page.locator(".message.own .text").all_text_contents() == ["as owner"]
    assert anna.page.evaluate("({ ...localStorage })") == kept
    press(anna, "The room")
    press(anna, "Sign out")
    expect(anna.find("me")).to_have_text("as anna (change)")
    expect(anna.line).to_be_focused()
    anna.sees("as anna", "as owner")
    assert anna.page.locator(".message.own .text").all_text_contents() == ["as anna"]
    for part in ("tools", "manage", "ask"):
        expect(anna.page.locator(f"portfolio-chat .{part}")).to_have_count(0)
    assert anna.page.evaluate("sessionStorage.length") == 0
    assert anna.page.evaluate("({ ...localStorage })") == kept
    anna.say("anna again")
    anna.sees("as anna", "as owner", "anna again")
    anna.page.reload()
    expect(anna.find("me")).to_have_text("as anna (change)")


def test_signing_out_without_a_name_asks_for_one(visit: Visit, server: RunningServer, address: str) -> None:
    anna = visit(address)
    press(sign_in(anna), "The room")
    press(anna, "Sign out")
    expect(anna.find("join .input")).to_be_focused()
    expect(anna.find("join .input")).to_have_value("")
    expect(anna.page.locator("portfolio-chat .status")).to_be_empty()
    anna.join("anna")
    sign_in(anna)


def test_other_tabs_stay_visitors(visit: Visit, address: str) -> None:
    anna = visit(address, "anna")
    tab = Visitor(anna.page.context.new_page(), address)
    expect(tab.find("me")).to_have_text("as anna (change)")
    sign_in(anna)
    tab.say("from the tab")
    anna.sees("from the tab")
    expect(tab.find("me")).to_have_text("as anna (change)")
    tab.find("me").click()
    tab.join("eve")
    press(anna, "The room")
    press(anna, "Sign out")
    expect(anna.find("me")).to_have_text("as eve (change)")
    assert tab.troubles == []


def test_all_widgets_of_the_page_are_the_owner_s(visit: Visit, address: str) -> None:
    anna = visit(address)
    add = "document.querySelector('main').append(document.createElement('portfolio-chat'))"
    anna.page.evaluate(add)
    sign_in(anna)
    anna.page.evaluate(add)
    names, lines = anna.page.locator("portfolio-chat span.me"), anna.page.locator("portfolio-chat textarea:visible")
    expect(names).to_have_text(["as owner"] * 3)
    lines.nth(1).fill("Hello")
    lines.nth(1).press("Enter")
    expect(anna.page.locator(".own .text")).to_have_text(["Hello"] * 3)
    expect(anna.page.locator(".tools")).to_have_count(3)
    anna.page.evaluate("window.last = document.querySelector('portfolio-chat:last-of-type'); window.last.remove()")
    anna.page.get_by_role("button", name="The room").first.click()
    press(anna, "Sign out")
    expect(names).to_have_count(0)
    expect(lines).to_have_count(0)
    anna.page.evaluate("document.body.append(window.last)")
    expect(anna.page.locator("portfolio-chat .join:visible")).to_have_count(3)


def test_connection_comes_back_as_the_owner_s(visit: Visit, server: RunningServer, address: str) -> None:
    bob, anna = visit(address, "bob", script=HASTE), visit(address, script=HASTE)
    sign_in(anna).say("before")
    bob.sees("before")
    server.kill()
    anna.is_told("Trying again")
    anna.say("meanwhile")
    server.start()
    for visitor in (anna, bob):
        visitor.sees("before", "meanwhile")
    assert anna.page.locator(".message.own .tools").count() == 2
    press(anna, "The room")
    press(anna, "Pause the room")
    expect(bob.find("rule")).to_have_text("Only the owner can write now.", timeout=10_000)


def test_owner_of_another_name_knows_own_messages(start: Start, visit: Visit) -> None:
    address = f"http://127.0.0.1:{start(OWNER_TOKEN=TOKEN, OWNER_USERNAME='anna').port}/"
    anna = visit(address)
    press(anna, "Sign in as owner")
    offer(anna, TOKEN)
    expect(anna.find("me")).to_have_text("as anna")
    anna.say("Hello")
    anna.sees("Hello")
    anna.page.reload()
    anna.sees("Hello")
    expect(anna.page.locator(".message.own .tools button")).to_have_text(["Hide"])


def test_token_that_was_changed_is_asked_for_again(visit: Visit, server: RunningServer, address: str) -> None:
    anna = visit(address, "anna", script=HASTE)
    sign_in(anna)
    server.kill()
    server.variables["OWNER_TOKEN"] = "another" * 6
    server.start()
    expect(anna.find("ask .error")).to_have_text("The owner's token is another one now. Sign in again.", timeout=10_000)
    assert anna.page.evaluate("sessionStorage.length") == 0
    press(anna, "Cancel")
    expect(anna.find("me")).to_have_text("as anna (change)")
    anna.say("Hello")
    anna.sees("Hello")


def test_token_of_yesterday_in_a_page_that_is_opened(visit: Visit, address: str) -> None:
    origin = address.rstrip("/")
    anna = visit(address, script=f"sessionStorage['portfolio-chat {origin}'] = '{'y' * 40}'")
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
    bob.is_told("You are banned from this chat.")
    anna.page.unroute("**/api/messages?*")
    press(anna, "Ban")
    anna.sees()


def test_owner_works_by_keyboard_alone(visit: Visit, address: str) -> None:
    bob, anna = visit(address, "bob"), visit(address)
    bob.say("one", "two", "three")
    keys = anna.page.keyboard
    anna.find("join .input").focus()
    for _ in range(2):
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
    keys.press("Enter")
    expect(anna.page.get_by_role("button", name="Pause the room")).to_be_focused()
    keys.press("Escape")
    expect(anna.page.get_by_role("button", name="The room")).to_be_focused()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("light", {**DESKTOP}),
        ("dark", {**DESKTOP, "color_scheme": "dark"}),
        ("phone", {**PHONE}),
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
    anna.is_told("is banned.")
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
