"""The widget in a browser, against the real server: what a visitor sees and does."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import NewSite, Visit
from tests.conftest import Start

EVENTS = """
window.events = [];
for (const type of ["message", "open", "status"])
  document.addEventListener(`chat:${type}`, ({ detail }) => window.events.push([type, detail]));
"""


def test_two_visitors_talk(start: Start, visit: Visit) -> None:
    address = start().get("/").url
    ada = visit(str(address), "ada")
    expect(ada.find("log")).to_have_attribute("data-empty", "Nobody has written yet. Say hello!")
    ada.say("Hello")
    ada.sees("Hello")
    bob = visit(str(address), "bob")
    bob.say("Hello ada", "How are you?")
    for visitor in (ada, bob):
        visitor.sees("Hello", "Hello ada", "How are you?")
        expect(visitor.find("count")).to_have_text("2 here")
        expect(visitor.find("message .time")).to_contain_text(":")
    expect(ada.find("note")).to_have_text("bob joined")
    assert ada.page.locator(".message .name").all_text_contents() == ["You", "bob", "bob"]
    assert ada.page.locator(".message.own").count() == 1
    bob.page.close()
    expect(ada.find("count")).to_have_text("1 here")
    expect(ada.page.locator(".note").last).to_have_text("bob left", timeout=10_000)


def test_name_and_session_outlive_the_page(start: Start, visit: Visit) -> None:
    ada = visit(str(start().get("/").url), "ada")
    ada.say("Hello")
    ada.sees("Hello")
    ada.page.reload()
    ada.say("again")
    ada.sees("Hello", "again")
    assert ada.page.locator(".message.own").count() == 2
    assert ada.page.locator(".join:visible").count() == 0


def test_history_is_no_news(start: Start, visit: Visit, site: NewSite) -> None:
    chat = f"http://127.0.0.1:{start(CORS_ORIGINS='*').port}"
    bob = visit(f"{chat}/", "bob")
    bob.say("old")
    bob.sees("old")
    page = site("<script>document.title = '(7) days'</script>", chat=chat)
    ada = visit(page.origin, "ada", script="addEventListener('chat:message', () => { window.told = true })")
    ada.sees("old")
    ada.find("close").click()
    ada.page.reload()
    expect(ada.find("button")).to_be_visible()
    assert ada.find("badge").count() == 0
    ada.find("button").click()
    ada.sees("old")
    assert ada.page.title() == "(7) days"
    assert not ada.page.evaluate("window.told")


def test_page_without_storage_has_a_chat_too(start: Start, visit: Visit) -> None:
    forbid = (
        "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no', 'SecurityError') } })"
    )
    ada = visit(str(start().get("/").url), "ada", script=forbid)
    ada.say("Hello")
    ada.sees("Hello")


def test_a_name_can_be_changed_and_kept(start: Start, visit: Visit) -> None:
    ada = visit(str(start().get("/").url), "ada")
    ada.find("me").click()
    expect(ada.find("join .input")).to_have_value("ada")
    ada.find("join .go").click()
    expect(ada.find("me")).to_have_text("as ada (change)")
    ada.find("me").click()
    ada.join("eve")
    expect(ada.find("me")).to_have_text("as eve (change)")
    ada.say("Hello")
    ada.sees("Hello")


def test_line_breaks_and_links(start: Start, visit: Visit) -> None:
    ada = visit(str(start().get("/").url), "ada")
    ada.line.press_sequentially("see https://example.com/a?b=c&d, or")
    ada.line.press("Shift+Enter")
    ada.line.press_sequentially("(HTTP://example.org/x) javascript://a")
    ada.line.press("Enter")
    ada.sees("see https://example.com/a?b=c&d, or\n(HTTP://example.org/x) javascript://a")
    links = ada.page.locator("portfolio-chat .text a")
    assert links.all_text_contents() == ["https://example.com/a?b=c&d", "HTTP://example.org/x"]
    for link in links.all():
        assert link.get_attribute("target") == "_blank"
        assert link.get_attribute("rel") == "noopener noreferrer nofollow"
    assert ada.find("bubble").evaluate("bubble => bubble.clientHeight") > 40


def test_unread_messages_are_on_the_button_and_in_the_title(start: Start, visit: Visit, site: NewSite) -> None:
    server = start(CORS_ORIGINS="*")
    chat = f"http://127.0.0.1:{server.port}"
    ada = visit(site(chat=chat).origin, "ada")
    ada.find("close").click()
    expect(ada.find("button")).to_be_focused()
    bob = visit(f"{chat}/", "bob")
    bob.say("one", "two")
    expect(ada.find("badge")).to_have_text("2")
    expect(ada.page).to_have_title("(2) A portfolio")
    expect(ada.find("button")).to_have_attribute("aria-label", "Open chat, 2 unread")
    ada.find("button").click()
    expect(ada.page).to_have_title("A portfolio")
    ada.sees("one", "two")
    expect(ada.line).to_be_focused()


def test_new_messages_are_offered_to_who_scrolled_up(start: Start, visit: Visit) -> None:
    address = str(start().get("/").url)
    ada, bob = visit(address, "ada"), visit(address, "bob")
    ada.say(*map(str, range(30)))
    ada.sees(*map(str, range(30)))
    ada.find("log").evaluate("log => log.scrollTop = 0")
    expect(ada.page.locator("portfolio-chat .new")).to_be_hidden()
    bob.say("look")
    expect(ada.find("new")).to_have_text("New messages: 1")
    assert ada.find("log").evaluate("log => log.scrollTop") == 0
    ada.find("new").click()
    expect(ada.page.locator("portfolio-chat .text").last).to_be_in_viewport()
    expect(ada.page.locator("portfolio-chat .new")).to_be_hidden()


def test_counter_near_the_limit(start: Start, visit: Visit) -> None:
    ada = visit(str(start(MAX_MESSAGE_LENGTH="100").get("/").url), "ada")
    counter = ada.page.locator("portfolio-chat .counter")
    ada.line.fill("🦆" * 79)
    expect(counter).to_have_text("")
    ada.line.fill("🦆" * 90)
    expect(counter).to_have_text("10 left")
    ada.line.fill("🦆" * 103)
    expect(counter).to_have_text("3 too many")
    ada.line.press("Enter")
    expect(ada.find("send .go")).to_be_disabled()
    ada.say("🦆" * 100)
    ada.sees("🦆" * 100)


def test_refused_message_says_why_and_can_be_edited(start: Start, visit: Visit) -> None:
    ada = visit(str(start().get("/").url), "ada")
    ada.say("<script>alert(1)</script>")
    expect(ada.find("failed .state")).to_contain_text("markup that would run")
    expect(ada.find("failed .time")).to_have_text("Not sent")
    assert ada.page.get_by_role("button", name="Retry").count() == 0
    ada.page.get_by_role("button", name="Edit").click()
    expect(ada.line).to_have_value("<script>alert(1)</script>")
    ada.say("script")
    ada.sees("script")


def test_page_learns_by_events(start: Start, visit: Visit, site: NewSite) -> None:
    server = start(CORS_ORIGINS="*")
    ada = visit(site(chat=f"http://127.0.0.1:{server.port}").origin, "ada", script=EVENTS)
    ada.say("Hello")
    ada.sees("Hello")
    ada.page.keyboard.press("Escape")
    events = ada.page.evaluate("window.events")
    assert [detail["open"] for kind, detail in events if kind == "open"] == [True, False]
    assert [detail["status"] for kind, detail in events if kind == "status"] == ["connecting", "online"]
    ((_, said),) = [event for event in events if event[0] == "message"]
    assert (said["username"], said["text"], said["own"], said["seq"]) == ("ada", "Hello", True, 1)


@pytest.mark.parametrize("way", ["attributes", "settings"])
def test_texts_can_be_replaced(start: Start, visit: Visit, site: NewSite, way: str) -> None:
    server = start(CORS_ORIGINS="*")
    by_attributes = way == "attributes"
    texts = {"title": "Plauderei", "greeting": "Wie heißt du?", "join": "Los", "username_taken": "Vergeben, {x}!"}
    attributes = " ".join(f'{name}="{text}"' for name, text in texts.items()) if by_attributes else ""
    script = "" if by_attributes else f"window.PortfolioChat = {{ strings: {texts} }}"
    body = f'<portfolio-chat accent="#fd0" lang="de" {attributes}></portfolio-chat>'
    page = site(body, chat=f"http://127.0.0.1:{server.port}").origin
    visit(page, "ada", script=script)
    bob = visit(page, script=script)
    expect(bob.find("title")).to_have_text("Plauderei")
    expect(bob.find("greeting")).to_have_text("Wie heißt du?")
    expect(bob.find("join .go")).to_have_text("Los")
    assert bob.find("join .go").evaluate("go => getComputedStyle(go).backgroundColor") == "rgb(255, 221, 0)"
    bob.offer("ada")
    expect(bob.find("error")).to_contain_text("Vergeben")


def test_several_widgets_share_a_name(start: Start, visit: Visit, site: NewSite) -> None:
    server = start(CORS_ORIGINS="*")
    body = "<portfolio-chat></portfolio-chat>" * 2 + "<portfolio-chat corner open></portfolio-chat>"
    ada = visit(site(body, chat=f"http://127.0.0.1:{server.port}").origin)
    ada.page.locator(".join .input").first.fill("ada")
    ada.page.locator(".join .go").first.click()
    lines = ada.page.locator("textarea:visible")
    expect(lines).to_have_count(3)
    lines.nth(1).fill("Hello")
    lines.nth(1).press("Enter")
    expect(ada.page.locator(".own .text")).to_have_text(["Hello"] * 3)
    assert server.stats()["active_users"] == 1
    ada.page.evaluate("document.querySelector('portfolio-chat').remove()")
    expect(ada.page.locator("textarea:visible")).to_have_count(2)
