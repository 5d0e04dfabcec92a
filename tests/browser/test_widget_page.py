"""The widget beside what else is on a page: how it was loaded, the page's styles, keys, theme and printer."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import NewRoom, NewSite, Visit
from tests.browser.sites import ScriptedRoom
from tests.browser.sites import Visit as Connection
from tests.browser.visitor import DESKTOP, Visitor
from tests.conftest import Start

CHAT = '<portfolio-chat server="{}"></portfolio-chat>'
BUTTON = '<portfolio-chat corner server="{}"></portfolio-chat>'
WAYS = {
    "classic": '<script src="{chat}/widget.js" defer></script>',
    "async": '<script src="{chat}/widget.js" async></script>',
    "module": '<script type="module" src="{chat}/widget.js"></script>',
    "imported": '<script type="module">import "{chat}/widget.js";</script>',
    "dynamic": '<script>import("{chat}/widget.js");</script>',
    "bundled": '<script type="module" src="/widget.js" data-server="{chat}"></script>',
    "inline": """<script data-server="{chat}"></script><script>
        fetch("/widget.js").then((file) => file.text()).then((code) => {
            const bundle = document.createElement("script");
            bundle.textContent = code;
            document.head.append(bundle);
        });</script>""",
}
NAMELESS = """<script>fetch("/widget.js").then((file) => file.text()).then((code) => {
    const bundle = document.createElement("script");
    bundle.textContent = code;
    document.head.append(bundle);
    document.body.append(document.createElement("portfolio-chat"));
});</script>"""


def stay(room: ScriptedRoom, connection: Connection) -> None:
    room.welcome(connection)
    connection.stay()


def wait_for_trouble(visitor: Visitor, words: str) -> None:
    """Waits until the console says so, and takes it, and what the browser itself says about it, for no trouble."""
    while not any(words in trouble for trouble in visitor.troubles):
        visitor.page.wait_for_event("console")
    visitor.troubles[:] = [one for one in visitor.troubles if words not in one and "CORS policy" not in one]


@pytest.mark.parametrize("way", WAYS)
def test_server_is_found_however_the_file_is_loaded(start: Start, visit: Visit, site: NewSite, way: str) -> None:
    server = start(CORS_ORIGINS="*")
    ada = visit(site(chat=f"http://127.0.0.1:{server.port}", head=WAYS[way]).origin)
    ada.find("button").wait_for()
    ada.join("ada")
    ada.say("Hello")
    ada.sees("Hello")


def test_console_names_what_is_missing_where_no_server_is_known(visit: Visit, site: NewSite) -> None:
    ada = visit(site(head=NAMELESS).origin)
    wait_for_trouble(ada, "data-server")


def test_console_says_that_the_origin_is_not_listed(start: Start, visit: Visit, site: NewSite) -> None:
    server = start(CORS_ORIGINS="https://other.example")
    page = site(BUTTON.format(f"http://127.0.0.1:{server.port}")).origin
    ada = visit(page)
    ada.find("button").click()
    wait_for_trouble(ada, f"Add {page} to its CORS_ORIGINS")
    ada.reads("The chat can't be reached now.")


def test_keys_of_the_page_are_not_pressed_by_who_writes(visit: Visit, site: NewSite, room: NewRoom) -> None:
    script = """window.pressed = [];
        for (const type of ["keydown", "keypress", "keyup"]) for (const capture of [true, false]) {
            for (const target of [window, document]) {
                target.addEventListener(type, (event) => { pressed.push(event.key); event.preventDefault(); }, capture);
            }
        }"""
    page = site(CHAT.format(room(stay).origin)).origin
    ada = visit(page, "ada")
    ada.page.evaluate(script)
    ada.line.focus()
    ada.page.keyboard.type("/search k?")
    expect(ada.line).to_have_value("/search k?")
    assert ada.page.evaluate("pressed") == []
    ada.page.locator("h1").click()
    ada.page.keyboard.press("k")
    assert len(ada.page.evaluate("pressed")) >= 6  # outside of the chat they are the page's, as ever


@pytest.mark.parametrize("style", ["transform: translateY(500px)", "filter: grayscale(1)", "zoom: 1; perspective: 9px"])
def test_button_stays_in_its_corner(visit: Visit, site: NewSite, room: NewRoom, style: str) -> None:
    css = f"<style>body {{ {style}; height: 3000px }} main {{ overflow: hidden; contain: paint }}</style>"
    ada = visit(site(css + BUTTON.format(room(stay).origin)).origin, **DESKTOP)
    for _ in range(2):
        box = ada.find("button").bounding_box()
        assert box
        assert (round(box["x"] + box["width"]), round(box["y"] + box["height"])) == (1280 - 20, 800 - 20)
        ada.page.mouse.wheel(0, 900)
    ada.join("ada")
    box = ada.find("panel").bounding_box()
    assert box
    assert (round(box["x"] + box["width"]), round(box["y"] + box["height"])) == (1280 - 20, 800 - 20)


@pytest.mark.parametrize("chat", [CHAT, BUTTON], ids=["in the page", "button"])
def test_chat_is_not_printed(visit: Visit, site: NewSite, room: NewRoom, chat: str) -> None:
    ada = visit(site(chat.format(room(stay).origin)).origin, "ada")
    ada.page.emulate_media(media="print")
    expect(ada.page.locator("portfolio-chat")).to_be_hidden()
    ada.page.emulate_media(media="screen")
    expect(ada.line).to_be_visible()


@pytest.mark.parametrize(
    ("page", "system", "dark"),
    [
        ("", "dark", False),  # the page is for light alone, as pages are that say nothing
        ("document.documentElement.style.colorScheme = 'light dark'", "dark", True),
        ("document.documentElement.style.colorScheme = 'light dark'", "light", False),
        ("document.documentElement.style.colorScheme = 'dark'", "light", True),
        ("document.documentElement.classList.add('dark')", "light", True),
        ("document.documentElement.dataset.theme = 'light'", "dark", False),
        ("document.documentElement.dataset.theme = 'dark'", "light", True),
        ("document.documentElement.dataset.bsTheme = 'dark'", "light", True),
        ("document.body.classList.add('dark')", "light", True),
    ],
)
def test_theme_is_the_page_s(visit: Visit, site: NewSite, room: NewRoom, page: str, system: str, dark: bool) -> None:
    ada = visit(site(CHAT.format(room(stay).origin)).origin, "ada", color_scheme=system)
    if page:
        ada.page.evaluate(page)
    colour = "rgb(23, 23, 28)" if dark else "rgb(255, 255, 255)"
    expect(ada.find("panel")).to_have_css("background-color", colour)
