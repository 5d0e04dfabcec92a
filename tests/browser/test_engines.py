"""The widget in three browser engines, against the real server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import httpx2
import pytest

from tests.browser.conftest import NewSite
from tests.browser.engines import NAMES, PROGRAMS, Chat, Driver, open_driver
from tests.browser.owner import TOKEN
from tests.conftest import Start, need_service
from tests.support.running import RunningServer


@pytest.fixture(scope="module", params=NAMES)
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    """One browser for each engine."""
    engine = request.param
    need_service(shutil.which(PROGRAMS[engine]) is not None, f"{PROGRAMS[engine]} is not installed")
    need_service(engine != "webkit" or shutil.which("Xvfb") is not None, "Xvfb is not installed")
    with open_driver(engine) as opened:
        yield opened


@pytest.fixture
def chat(driver: Driver, address: str) -> Chat:
    """A visitor on the demo page, who has not been there before."""
    driver.open(address)
    driver.run("(localStorage.clear(), sessionStorage.clear())")
    driver.resize(1000, 800)
    driver.open(address)
    return Chat(driver)


def post(server: RunningServer, text: str) -> None:
    """Writes as the owner."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    answer = httpx2.post(f"http://127.0.0.1:{server.port}/api/messages", json={"content": text}, headers=headers)
    assert answer.status_code == 201


def test_visitor_writes_and_is_answered(chat: Chat, server: RunningServer) -> None:
    chat.join("ada")
    chat.say("Hello")
    chat.sees("Hello")
    post(server, "Hello ada")
    chat.sees("Hello", "Hello ada")


def test_chat_goes_on_after_the_server_was_killed(chat: Chat, server: RunningServer) -> None:
    chat.join("ada")
    chat.say("before")
    chat.sees("before")
    server.kill()
    chat.say("meanwhile")
    server.start()
    chat.sees("before", "meanwhile")


def test_missed_messages_are_there_after_coming_back_to_the_page(chat: Chat, server: RunningServer) -> None:
    chat.join("ada")
    chat.say("one")
    chat.sees("one")
    chat.driver.open(f"http://127.0.0.1:{server.port}/health")
    post(server, "two")
    chat.driver.back()
    chat.sees("one", "two")


def test_name_and_place_are_kept_over_a_reload(chat: Chat, address: str) -> None:
    chat.join("ada")
    chat.say("one")
    chat.sees("one")
    chat.driver.open(address)
    chat.sees("one")
    chat.say("two")
    chat.sees("one", "two")


def test_owner_signs_in_and_hides_a_message(chat: Chat, server: RunningServer) -> None:
    chat.join("ada")
    chat.say("to be hidden")
    chat.sees("to be hidden")
    chat.driver.run("localStorage.clear()")
    chat.driver.open(f"http://127.0.0.1:{server.port}/")
    chat.press(".join .under")
    chat.focus(".ask input[type=password]")
    chat.driver.type(f"{TOKEN}\n")
    chat.sees("to be hidden")
    chat.press(".tools .hide")
    chat.press(".ask .alarm")
    chat.until("!document.querySelector('portfolio-chat').shadowRoot.querySelector('.message .text')")


def test_panel_is_opaque_and_its_parts_have_their_size(chat: Chat) -> None:
    chat.join("ada")
    assert chat.style(".panel", "backgroundColor") not in ("transparent", "rgba(0, 0, 0, 0)")
    assert chat.box("textarea")["height"] >= 20


def test_a_narrow_window_is_not_scrolled_sideways(chat: Chat) -> None:
    chat.driver.resize(360, 640)
    chat.join("ada")
    assert chat.driver.run("document.documentElement.scrollWidth <= innerWidth")
    box = chat.box("textarea")
    assert box["left"] >= 0
    assert box["right"] <= chat.driver.run("innerWidth")


def test_button_of_the_one_line_script_opens_the_chat(driver: Driver, start: Start, site: NewSite) -> None:
    server = start(CORS_ORIGINS="*")
    page = site(chat=f"http://127.0.0.1:{server.port}")
    driver.open(page.origin)
    chat = Chat(driver)
    chat.press(".button")
    chat.join("ada")
    chat.say("Hello from another origin")
    chat.sees("Hello from another origin")
