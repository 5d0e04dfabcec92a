"""The widget on a phone: it fills the screen, keeps the page behind it still, and is closed by Back."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.browser.conftest import NewRoom, NewSite, Visit
from tests.browser.sites import ScriptedRoom
from tests.browser.sites import Visit as Connection
from tests.browser.visitor import PHONE

BUTTON = '<p style="height: 3000px"></p><portfolio-chat corner server="{}"></portfolio-chat>'


def stay(room: ScriptedRoom, connection: Connection) -> None:
    room.welcome(connection)
    connection.stay()


def test_back_closes_the_chat_and_stays_on_the_page(visit: Visit, site: NewSite, room: NewRoom) -> None:
    page = site(BUTTON.format(room(stay).origin)).origin
    ada = visit("about:blank", **PHONE)
    ada.page.goto(page)
    ada.join("ada")
    ada.page.evaluate("addEventListener('popstate', () => { window.routed = true; })")
    ada.page.go_back()
    expect(ada.find("button")).to_be_visible()
    expect(ada.page.locator("portfolio-chat .panel")).to_be_hidden()
    assert ada.page.url == f"{page}/"
    assert ada.page.evaluate("window.routed") is None  # the page has not changed, and a later listener does not hear
    ada.page.go_back()
    assert ada.page.url == "about:blank"


def test_closing_leaves_no_step_in_the_history(visit: Visit, site: NewSite, room: NewRoom) -> None:
    page = site(BUTTON.format(room(stay).origin)).origin
    ada = visit("about:blank", **PHONE)
    ada.page.goto(page)
    ada.join("ada")
    for _ in range(2):
        ada.find("close").click()
        ada.page.wait_for_function("() => !history.state?.portfolioChat")
        ada.find("button").click()
        ada.page.wait_for_function("() => history.state?.portfolioChat")
    ada.find("close").click()
    ada.page.wait_for_function("() => !history.state?.portfolioChat")
    ada.page.go_back()
    assert ada.page.url == "about:blank"


def test_page_behind_does_not_move(visit: Visit, site: NewSite, room: NewRoom) -> None:
    ada = visit(site(BUTTON.format(room(stay).origin)).origin, "ada", **PHONE)
    for part in ("panel", "log"):
        ada.find(part).hover()
        ada.page.mouse.wheel(0, 500)
    assert ada.page.evaluate("scrollY") == 0
    assert ada.page.evaluate("getComputedStyle(document.documentElement).overflowY") == "hidden"
    ada.find("close").click()
    expect(ada.find("button")).to_be_visible()
    assert ada.page.evaluate("getComputedStyle(document.documentElement).overflowY") == "visible"


def test_panel_is_the_whole_screen(visit: Visit, site: NewSite, room: NewRoom) -> None:
    ada = visit(site(BUTTON.format(room(stay).origin)).origin, "ada", **PHONE)
    expect(ada.find("panel")).to_have_css("border-width", "0px")
    expect(ada.find("panel")).to_have_css("border-radius", "0px")


def test_name_can_be_given_at_four_times_the_size(visit: Visit, site: NewSite, room: NewRoom) -> None:
    ada = visit(site(BUTTON.format(room(stay).origin)).origin, viewport={"width": 320, "height": 256})
    ada.find("button").click()
    for part in ("join .input", "join .go", "close", "send .go"):
        expect(ada.find(part)).to_be_in_viewport(ratio=1)


def test_button_says_what_it_opens_and_whether_it_is_open(visit: Visit, site: NewSite, room: NewRoom) -> None:
    ada = visit(site(BUTTON.format(room(stay).origin)).origin)
    button = ada.page.locator("portfolio-chat .button")
    expect(button).to_have_attribute("aria-haspopup", "dialog")
    expect(button).to_have_attribute("aria-expanded", "false")
    button.click()
    expect(button).to_have_attribute("aria-expanded", "true")
    ada.find("close").click()
    expect(button).to_have_attribute("aria-expanded", "false")
