"""The widget for everyone: by keyboard, by screen reader, by axe-core's rules, on phones and zoomed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import NewRoom, NewSite, Visit
from tests.browser.sites import ScriptedRoom, message
from tests.browser.sites import Visit as Connection
from tests.browser.visitor import DESKTOP, PHONE, violations
from tests.conftest import Start

CORNER = '<portfolio-chat corner {} server="{}"></portfolio-chat>'
# Stands for a phone's keyboard, which covers the lower part of the page and tells only the visual viewport.
KEYBOARD = """
const view = new EventTarget();
Object.assign(view, { height: 667, offsetTop: 0, scale: 1 });
Object.defineProperty(window, "visualViewport", { value: view });
window.keyboard = (height, offsetTop) => {
  Object.assign(view, { height, offsetTop });
  view.dispatchEvent(new Event("resize"));
};
"""


def busy(room: ScriptedRoom, connection: Connection) -> None:
    """A room with one of each: owner, link, own message, refusal, note, trouble."""
    old = message(1, "Welcome, see https://example.com", username="owner", role="owner")
    room.welcome(connection, old, message(2, "Hi", username="bob"), message(3, "Hi bob", connection.query["username"]))
    connection.send("user_count", {"count": 3})
    connection.send("system", {"event": "user_joined", "user": "eve", "content": "eve joined the chat"})
    connection.send("error", {"code": "unavailable"}, message="Not now.")
    post = connection.read()
    refusal = {"code": "blocked_content", "nonce": post["nonce"]}
    connection.send("error", refusal, message="The message holds markup that would run as a script.")
    connection.stay()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing(
    visit: Visit, site: NewSite, room: NewRoom, axe: str, scheme: str, device: dict[str, Any]
) -> None:
    page = site(CORNER.format("", room(busy).origin)).origin
    ada = visit(page, color_scheme=scheme, **device)
    assert violations(ada.page, axe) == []
    ada.find("button").click()
    expect(ada.find("panel")).to_be_visible()
    assert violations(ada.page, axe) == []
    ada.join("ada")
    ada.say("<script>")
    ada.line.fill("a" * 1003)
    expect(ada.find("failed .state")).to_contain_text("markup")
    expect(ada.find("counter")).to_have_text("3 too many")
    assert violations(ada.page, axe) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing_on_the_demo_page(
    start: Start, visit: Visit, axe: str, scheme: str, device: dict[str, Any]
) -> None:
    ada = visit(str(start().get("/").url), "ada", color_scheme=scheme, **device)
    ada.say("Hello")
    ada.sees("Hello")
    assert violations(ada.page, axe) == []


@pytest.mark.parametrize("accent", ["#fd0", "#777", "#767676", "navy", "oklch(.7 .2 150)", "#e11d48"])
def test_any_accent_can_be_read(visit: Visit, site: NewSite, room: NewRoom, axe: str, accent: str) -> None:
    ada = visit(site(CORNER.format(f'open accent="{accent}"', room(busy).origin)).origin, "ada")
    expect(ada.page.locator(".message")).to_have_count(3)
    colours = ada.find("own .bubble").evaluate(
        """bubble => {
          const style = getComputedStyle(bubble), canvas = document.createElement("canvas").getContext("2d");
          return [style.backgroundColor, style.color].map((colour) => {
            canvas.fillStyle = colour;
            canvas.fillRect(0, 0, 1, 1);
            return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
          });
        }"""
    )
    dark, light = sorted(map(luminance, colours))
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def luminance(colour: list[int]) -> float:
    """Relative luminance (WCAG 2.2)."""
    parts = [part / 255 for part in colour]
    red, green, blue = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_keyboard_alone_is_enough(start: Start, visit: Visit, site: NewSite) -> None:
    server = start(CORS_ORIGINS="*")
    ada = visit(site(chat=f"http://127.0.0.1:{server.port}").origin)
    keys = ada.page.keyboard
    keys.press("Tab")
    expect(ada.find("button")).to_be_focused()
    keys.press("Enter")
    expect(ada.find("join .input")).to_be_focused()
    keys.type("ada")
    keys.press("Enter")
    expect(ada.line).to_be_focused()
    keys.type("Hello")
    keys.press("Enter")
    ada.sees("Hello")
    keys.press("Shift+Tab")
    expect(ada.find("tools .delete")).to_be_focused()
    keys.press("Shift+Tab")
    expect(ada.find("log")).to_be_focused()
    keys.press("Escape")
    expect(ada.find("button")).to_be_focused()
    assert not ada.page.locator("dialog[open]").count()


def test_open_by_attribute_leaves_the_focus_alone(visit: Visit, site: NewSite, room: NewRoom) -> None:
    page = site(CORNER.format("open", room(busy).origin) + "<input autofocus id='own'>").origin
    ada = visit(page, **DESKTOP)
    expect(ada.find("join")).to_be_visible()
    expect(ada.page.locator("#own")).to_be_focused()
    ada.page.evaluate("document.querySelector('portfolio-chat').open = false")
    expect(ada.find("button")).to_be_visible()


def test_log_announces_new_messages_alone(visit: Visit, site: NewSite, room: NewRoom) -> None:
    ada = visit(site(CORNER.format("open", room(busy).origin)).origin, "ada")
    log = ada.find("log")
    expect(log).to_have_attribute("role", "log")
    assert log.get_attribute("aria-live") == "off"
    expect(log).to_have_attribute("aria-live", "polite")
    for part in ("own", "note"):
        expect(ada.find(part)).to_have_attribute("aria-live", "off")
    assert ada.find("message").get_attribute("aria-live") is None


def test_fills_a_phone_and_leaves_room_for_its_keyboard(visit: Visit, site: NewSite, room: NewRoom) -> None:
    ada = visit(site(CORNER.format("", room(busy).origin)).origin, "ada", script=KEYBOARD, **PHONE)
    assert ada.find("panel").bounding_box() == {"x": 0, "y": 0, "width": 375, "height": 667}
    ada.page.evaluate("window.keyboard(367, 20)")
    assert ada.find("panel").bounding_box() == {"x": 0, "y": 20, "width": 375, "height": 367}
    box = ada.line.bounding_box()
    assert box
    assert box["y"] + box["height"] < 387
    expect(ada.page.locator("portfolio-chat .message").last).to_be_in_viewport()
    ada.page.evaluate("window.keyboard(667, 0)")
    ada.page.keyboard.press("Escape")
    expect(ada.find("button")).to_be_focused()


@pytest.mark.parametrize("size", [(640, 400), (480, 320), (320, 568)])
def test_zoomed_or_small_nothing_is_cut_off(visit: Visit, site: NewSite, room: NewRoom, size: tuple[int, int]) -> None:
    viewport = {"width": size[0], "height": size[1]}
    ada = visit(site(CORNER.format("", room(busy).origin)).origin, "ada", viewport=viewport)
    for part in ("title", "close", "log", "send .go", "me", "input"):
        expect(ada.find(part)).to_be_in_viewport(ratio=1)
    assert ada.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_right_to_left(visit: Visit, site: NewSite, room: NewRoom) -> None:
    page = site(CORNER.format("", room(busy).origin), lang="ar", dir="rtl").origin
    ada = visit(page, "ada")
    panel, own = ada.find("panel").bounding_box(), ada.find("own .bubble").bounding_box()
    assert panel
    assert own
    assert panel["x"] == 20
    assert own["x"] + own["width"] / 2 < panel["x"] + panel["width"] / 2


def test_nothing_moves(visit: Visit, site: NewSite, room: NewRoom) -> None:
    ada = visit(site(CORNER.format("open", room(busy).origin)).origin, "ada", reduced_motion="reduce")
    assert ada.page.evaluate("document.getAnimations().length") == 0


def test_long_words_and_names_stay_inside(visit: Visit, site: NewSite, room: NewRoom) -> None:
    def play(room: ScriptedRoom, connection: Connection) -> None:
        name = "W" * 50
        texts = [message(1, "x" * 1000, username=name, role="owner"), message(2, "y" * 300, username="ada")]
        room.welcome(connection, *texts, message(3, json.dumps(["https://example.com/" + "z" * 300])))
        connection.send("system", {"event": "user_left", "user": name})
        connection.send("error", {"code": "other"}, message="v" * 200)
        connection.stay()

    ada = visit(site(CORNER.format("open", room(play).origin)).origin, "ada", **PHONE)
    ada.find("log").wait_for()
    for part in ("panel", "log", "status", "foot", "message"):
        assert ada.find(part).evaluate("element => element.scrollWidth <= element.clientWidth"), part
