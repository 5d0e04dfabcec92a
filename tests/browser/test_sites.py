"""The widget on sites whose links swap the page (Turbo, htmx, Astro, React, by hand), and on plain ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.browser.engines import WIDGET, Chat, Driver
from tests.browser.sites import BuiltSite
from tests.conftest import Start
from tests.support.running import RunningServer

SWAPPING = ["turbo", "htmx2", "htmx4", "astro", "react", "hand"]
ELEMENTS = "document.querySelectorAll('portfolio-chat').length"
DRAFT = f"{WIDGET}.querySelector('textarea').value"

OpenSite = Callable[[str], Chat]


@pytest.fixture
def chat_server(start: Start) -> RunningServer:
    return start(CORS_ORIGINS="*")


@pytest.fixture
def visit_site(driver: Driver, chat_server: RunningServer, packages: Path) -> Iterator[OpenSite]:
    """`visit_site("turbo/button")`: the first page of that site, for a visitor who has not been there before."""
    with ExitStack() as stack:

        def visit(name: str) -> Chat:
            site, _, folder = name.partition("/")
            built = BuiltSite(packages / ".sites" / site, f"http://127.0.0.1:{chat_server.port}")
            stack.enter_context(built)
            driver.open(f"{built.origin}/{folder}/one")
            return Chat(driver)

        yield visit
        driver.open("about:blank")


def follow(chat: Chat, title: str) -> None:
    """Follows the page's link, and waits for the other page."""
    chat.driver.run("setTimeout(() => document.querySelector('#other').click())")
    chat.until(f"document.querySelector('h1')?.textContent === '{title}'")


def connections(server: RunningServer) -> int:
    return server.log().count("User connected: ada")


@pytest.mark.parametrize("site", SWAPPING)
def test_button_stays_with_its_chat_while_pages_are_swapped(
    visit_site: OpenSite, chat_server: RunningServer, site: str
) -> None:
    chat = visit_site(f"{site}/button")
    chat.press(".button")
    chat.join("ada")
    chat.say("Hello")
    chat.sees("Hello")
    chat.focus("textarea")
    chat.driver.type("a draft")
    for title in ("Two", "One", "Two"):
        follow(chat, title)
        chat.until(f"{ELEMENTS} === 1")
        chat.until_shown("dialog[open]")
        assert chat.driver.run(DRAFT) == "a draft"
        chat.sees("Hello")
    chat.press(".send .go")
    chat.sees("Hello", "a draft")
    chat.press(".close")
    follow(chat, "One")
    chat.until(f"{ELEMENTS} === 1")
    chat.until_shown(".button")
    assert connections(chat_server) == 1


@pytest.mark.parametrize("site", SWAPPING)
def test_chat_in_the_page_goes_on_while_pages_are_swapped(
    visit_site: OpenSite, chat_server: RunningServer, site: str
) -> None:
    chat = visit_site(f"{site}/element")
    chat.join("ada")
    texts = [f"line {number}" for number in range(20)]
    for text in texts:
        chat.say(text)
    chat.sees(*texts)
    chat.focus("textarea")
    chat.driver.type("a draft")
    log = f"{WIDGET}.querySelector('.log')"
    scrolled = f"new Promise((done) => {{ {log}.addEventListener('scroll', () => done(true)); {log}.scrollTop = 50; }})"
    assert chat.driver.run(scrolled)
    for title in ("Two", "One", "Two"):
        follow(chat, title)
        chat.until(f"{ELEMENTS} === 1")
        chat.until(f"{WIDGET}?.querySelector('textarea')?.value === 'a draft'")
        chat.sees(*texts)
        chat.until(f"{log}.scrollTop === 50")
    chat.press(".send .go")
    chat.sees(*texts, "a draft")
    assert connections(chat_server) == 1


@pytest.mark.parametrize("folder", ["button", "element"])
def test_page_that_is_loaded_anew_has_the_draft_and_the_open_chat(visit_site: OpenSite, folder: str) -> None:
    chat = visit_site(f"plain/{folder}")
    if folder == "button":
        chat.press(".button")
    chat.join("ada")
    chat.say("Hello")
    chat.sees("Hello")
    chat.focus("textarea")
    chat.driver.type("a draft")
    follow(chat, "Two")
    chat.until(f"{WIDGET}?.querySelector('textarea')?.value === 'a draft'")
    chat.sees("Hello")
    if folder == "button":
        chat.press(".close")
        follow(chat, "One")
        chat.until_shown(".button")
        chat.until(f"!{WIDGET}.querySelector('dialog')")


def test_react_has_nothing_to_say_about_the_button(visit_site: OpenSite) -> None:
    chat = visit_site("react/button")
    chat.until_shown(".button")
    follow(chat, "Two")
    assert chat.driver.run("window.problems") == []
