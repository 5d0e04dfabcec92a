"""The owner signs in and out in the widget, against the real server, and the token goes nowhere else."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.browser.conftest import NewSite, Visit
from tests.browser.owner import HASTE, TOKEN, dialog, kept_token, offer, press, sign_in
from tests.browser.visitor import Visitor
from tests.conftest import Start
from tests.support.running import RunningServer

# What is kept of a name; what was read is kept, too.
NAME = "JSON.stringify(Object.entries(localStorage).filter(([key]) => !key.endsWith(' read')))"
# Every attribute, and every text, of the page and in the widgets.
ALL_HTML = """() => {
  const roots = [document, ...[...document.querySelectorAll("portfolio-chat")].map((chat) => chat.shadowRoot)];
  const all = roots.flatMap((root) => [...root.querySelectorAll("*")]);
  return all.flatMap((element) => [element.textContent, ...[...element.attributes].map(({ value }) => value)]).join();
}"""


def test_wrong_token_is_said_and_forgotten(visit: Visit, address: str) -> None:
    anna = visit(address)
    press(anna, "Sign in as owner")
    for wrong in ("short", "w" * 40, "ключ" * 10):
        offer(anna, wrong)
        expect(anna.find("ask .error")).to_have_text("This is not the owner's token.")
        expect(anna.page.get_by_label("Owner's token")).to_have_value("")
        expect(anna.page.get_by_label("Owner's token")).to_be_focused()
    assert not kept_token(anna)
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
    assert kept_token(anna) == TOKEN
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
    ada.page.evaluate(f"sessionStorage['portfolio-chat {chat}'] = JSON.stringify({{ token: '{TOKEN}' }})")
    ada.page.reload()
    ada.join("ada")
    assert not [url for url in loaded if "owner" in url]


def test_visitors_do_not_load_the_tools(visit: Visit, address: str) -> None:
    ada = visit(address, "ada")
    loaded = ada.page.evaluate("performance.getEntriesByType('resource').map(({ name }) => name)")
    assert f"{address}widget.js" in loaded
    assert not [name for name in loaded if "owner" in name]


def test_signing_out_returns_to_the_visitor(visit: Visit, server: RunningServer, address: str) -> None:
    anna = visit(address, "anna")
    anna.say("as anna")
    anna.sees("as anna")
    kept = anna.page.evaluate(NAME)
    sign_in(anna).say("as owner")
    anna.sees("as anna", "as owner")
    assert anna.page.locator(".message.own .text").all_text_contents() == ["as owner"]
    assert anna.page.evaluate(NAME) == kept
    press(anna, "The room")
    press(anna, "Sign out")
    expect(anna.find("me")).to_have_text("as anna (change)")
    expect(anna.line).to_be_focused()
    anna.sees("as anna", "as owner")
    assert anna.page.locator(".message.own .text").all_text_contents() == ["as anna"]
    for part in ("hide", "manage", "ask"):
        expect(anna.page.locator(f"portfolio-chat .{part}")).to_have_count(0)
    assert not kept_token(anna)
    assert anna.page.evaluate(NAME) == kept
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
    names, lines = anna.page.locator("portfolio-chat .me:visible"), anna.page.locator("portfolio-chat textarea:visible")
    expect(names).to_have_text(["as owner"] * 3)
    lines.nth(1).fill("Hello")
    lines.nth(1).press("Enter")
    expect(anna.page.locator(".own .text")).to_have_text(["Hello"] * 3)
    expect(anna.page.locator(".tools")).to_have_count(3)
    anna.page.evaluate("window.last = document.querySelector('portfolio-chat:last-of-type'); window.last.remove()")
    anna.page.get_by_role("button", name="The room").first.click()
    press(anna, "Sign out")
    expect(names).to_have_count(0)
    anna.page.evaluate("document.body.append(window.last)")
    expect(anna.page.locator("portfolio-chat .join:visible")).to_have_count(3)


def test_connection_comes_back_as_the_owner_s(visit: Visit, server: RunningServer, address: str) -> None:
    bob, anna = visit(address, "bob", script=HASTE), visit(address, script=HASTE)
    sign_in(anna).say("before")
    bob.sees("before")
    server.kill()
    anna.reads("Trying again")
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
