"""The widget in browsers of 2022, and in those that are too old for it."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Route, expect

from app.web.pages import STATIC
from tests.browser.conftest import NewRoom, NewSite, Visit
from tests.browser.sites import ScriptedRoom
from tests.browser.sites import Visit as Connection

CHAT = '<portfolio-chat server="{}"></portfolio-chat>'
# What a browser of 2022 does with a style: it passes over what it does not know.
OLD_STYLES = """
const replace = CSSStyleSheet.prototype.replaceSync;
CSSStyleSheet.prototype.replaceSync = function (css) {
  replace.call(this, css.replace(/field-sizing: *\\w+/g, "").replace(/@supports[^{]*\\{[^}]*\\}\\s*\\}/g, ""));
};
const supports = CSS.supports.bind(CSS);
CSS.supports = (name, ...value) => name !== "field-sizing" && supports(name, ...value);
delete HTMLElement.prototype.showPopover;
"""
NO_SHEETS = "delete window.CSSStyleSheet;"


def stay(room: ScriptedRoom, connection: Connection) -> None:
    room.welcome(connection)
    connection.stay()


@pytest.mark.parametrize("script", [OLD_STYLES, NO_SHEETS], ids=["without what is new in CSS", "without sheets"])
def test_chat_is_plain_but_whole(visit: Visit, site: NewSite, room: NewRoom, script: str) -> None:
    page = site(CHAT.replace("<portfolio-chat", "<portfolio-chat corner").format(room(stay).origin)).origin
    ada = visit(page, "ada", script=script)
    expect(ada.find("panel")).to_have_css("background-color", "rgb(255, 255, 255)")
    expect(ada.find("send .go")).to_have_css("background-color", "rgb(79, 70, 229)")
    low = ada.line.bounding_box()
    ada.line.fill("one\ntwo\nthree\nfour")
    high = ada.line.bounding_box()
    assert low
    assert high
    assert high["height"] > 2 * low["height"]


def test_style_uses_nothing_that_hides_a_rule_from_a_browser_of_2022() -> None:
    styles = [STATIC / name for name in ("widget.js", "widget/style.js", "widget/owner-style.js")]
    new = r"light-dark\(|:has\(|@layer|@container|@scope|@starting-style|\boklch\(|color-mix\(|^\s*&|\d(?:svh|lvh)\b"
    for path in styles:
        assert not re.search(new, path.read_text(), re.MULTILINE)


def test_browser_that_does_not_know_the_language_says_that_it_is_too_old(
    visit: Visit, site: NewSite, room: NewRoom
) -> None:
    ada = visit(site(CHAT.replace("<portfolio-chat", "<portfolio-chat corner").format(room(stay).origin)).origin)
    ada.page.route("**/widget/panel.js", answer_with("class Panel { of the future }"))
    ada.find("button").click()
    expect(ada.find("notice")).to_have_text("This browser is too old for the chat.")
    ada.troubles.clear()
    expect(ada.find("button")).to_be_visible()


def test_chat_that_can_t_be_loaded_is_tried_again_by_the_next_click(visit: Visit, site: NewSite, room: NewRoom) -> None:
    ada = visit(site(CHAT.replace("<portfolio-chat", "<portfolio-chat corner").format(room(stay).origin)).origin)
    ada.page.route("**/widget/panel.js", lambda route: route.abort())
    ada.find("button").click()
    expect(ada.find("notice")).to_have_text("The chat can't be reached now. Try again later.")
    ada.troubles.clear()
    ada.page.unroute("**/widget/panel.js")
    ada.join("ada")
    expect(ada.page.locator("portfolio-chat .notice")).to_be_hidden()


def answer_with(script: str) -> Callable[[Route], None]:
    return lambda route: route.fulfill(body=script, content_type="text/javascript")
