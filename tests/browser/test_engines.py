"""The widget in three browser engines, against the real server."""

from __future__ import annotations

import httpx2
import pytest

from tests.browser.conftest import NewRoom, NewSite
from tests.browser.engines import WIDGET, Chat, Driver
from tests.browser.owner import TOKEN
from tests.browser.sites import Frame, ScriptedRoom, message
from tests.browser.sites import Visit as Connection
from tests.conftest import Start
from tests.support.running import RunningServer

IN_THE_PAGE = '<portfolio-chat server="{}"></portfolio-chat>'
TEXTAREA = f"{WIDGET}.querySelector('textarea')"
# What browsers send while an input method confirms what it suggests: Safari ends the composition before the key.
CONFIRM = f"""['keydown', 'keypress', 'keyup'].forEach((type) => {{
    for (const isComposing of [true, false]) {TEXTAREA}.dispatchEvent(new KeyboardEvent(type, {{
        key: 'Enter', keyCode: 229, isComposing, bubbles: true, composed: true, cancelable: true }}));
}})"""
# What a touch keyboard sends for its Enter key, in the midst of a word, too: no key, only what it does.
ENTER = f"""{TEXTAREA}.dispatchEvent(new InputEvent('beforeinput', {{
    inputType: 'insertLineBreak', isComposing: true, bubbles: true, composed: true, cancelable: true }}))"""


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


def stay(room: ScriptedRoom, connection: Connection) -> None:
    room.welcome(connection)
    connection.stay()


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
    chat.press(".sign-in")
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


def test_enter_sends_unless_it_confirms_a_suggestion(chat: Chat) -> None:
    chat.join("ada")
    chat.focus("textarea")
    chat.driver.type("日本")
    chat.driver.run(CONFIRM)
    assert chat.driver.run(f"{TEXTAREA}.value") == "日本"
    assert chat.driver.run(f"{WIDGET}.querySelectorAll('.message').length") == 0
    chat.driver.run(ENTER)
    chat.sees("日本")
    assert chat.driver.run(f"{TEXTAREA}.value") == ""
    assert chat.driver.run(f"{TEXTAREA}.getAttribute('enterkeyhint')") == "send"


def test_posts_that_wait_outlive_a_reload_and_are_sent_once(driver: Driver, site: NewSite, room: NewRoom) -> None:
    posts: list[Frame] = []

    def play(room: ScriptedRoom, connection: Connection) -> None:
        room.welcome(connection)
        posts.append(connection.read())
        if len(room.visits) > 1:
            connection.send("message", message(1, "mine", "ada", nonce=posts[-1]["nonce"]))
        connection.stay()

    page = site(IN_THE_PAGE.format(room(play).origin)).origin
    driver.open(page)
    chat = Chat(driver)
    chat.join("ada")
    chat.say("mine")
    chat.until(f"!!{WIDGET}.querySelector('.waiting')")
    driver.open(page)
    chat.until(f"{WIDGET}?.querySelectorAll('.message').length === 1")
    chat.sees("mine")
    chat.until(f"{WIDGET}.querySelectorAll('.message').length === 1")
    assert posts == [posts[0]] * 2


def test_button_stays_in_its_corner_where_the_page_moves_its_body(driver: Driver, site: NewSite, room: NewRoom) -> None:
    css = "<style>body { transform: translateY(300px); filter: grayscale(1) }</style>"
    body = IN_THE_PAGE.replace("<portfolio-chat", "<portfolio-chat corner").format(room(stay).origin)
    driver.resize(1000, 800)
    driver.open(site(css + body).origin)
    chat = Chat(driver)
    chat.until_shown(".button")
    box = chat.box(".button")
    assert round(driver.run("innerHeight") - box["bottom"]) == 20
    assert round(driver.run("document.documentElement.clientWidth") - box["right"]) == 20
