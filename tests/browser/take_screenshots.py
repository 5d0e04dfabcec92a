"""Screenshots for people to look at, in `screenshots/`: light, dark, phone, right to left, empty, full, long words."""

from __future__ import annotations

import time
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import NewRoom, NewSite, Visit
from tests.browser.sites import ScriptedRoom, message
from tests.browser.sites import Visit as Connection
from tests.browser.visitor import DESKTOP, PHONE, SCREENSHOTS
from tests.conftest import Start

CHAT = '<portfolio-chat corner server="{}"></portfolio-chat>'
TALK = [
    ("maria", "Hi! I came over from your talk on tiny servers."),
    ("maria", "Is the code of the demo public?"),
    ("owner", "It is: https://example.com/code. Have a look at the engine, that is where it gets interesting."),
    ("jo_92", "The part on batching was great"),
    ("ada", "How do you test what happens when the disk is full?"),
    ("owner", "With a disk that is full :)\nA loop device of one megabyte does."),
    ("ada", "Nice."),
]
ARABIC = [
    ("maria", "مرحبا! كيف حالك؟"),
    ("ada", "أنا بخير، شكرا. انظر https://example.com"),
    ("owner", "Hello, אהלן وسهلا!"),
]
LONG = [
    ("W" * 50, "A" * 180),
    ("owner", "https://example.com/" + "a-very-long-path/" * 8),
    ("ada", "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft"),
    ("i", "!"),
    ("ada", "🦆" * 120),
    ("x", "\n".join("line" for _ in range(6))),
]
CROWD = [(f"visitor{number % 7}", f"Message number {number}, of a hundred.") for number in range(100)]


def talk(said: list[tuple[str, str]]) -> Any:
    def play(room: ScriptedRoom, connection: Connection) -> None:
        roles: dict[str, Any] = {"owner": {"role": "owner"}}
        began = time.time() - 400 * len(said)
        room.welcome(
            connection,
            *(
                message(seq, text, name, timestamp=began + 400 * seq - (60 if seq % 2 else 0), **roles.get(name, {}))
                for seq, (name, text) in enumerate(said, 1)
            ),
        )
        connection.send("user_count", {"count": 4})
        if said is TALK:
            connection.send("system", {"event": "user_joined", "user": "eve"})
            post = connection.read()
            refusal = {"code": "blocked_content", "nonce": post["nonce"]}
            connection.send("error", refusal, message="The message holds markup that would run as a script.")
        connection.stay()

    return play


@pytest.mark.parametrize(
    ("name", "said", "device", "scheme", "direction"),
    [
        ("light", TALK, DESKTOP, "light", "ltr"),
        ("dark", TALK, DESKTOP, "dark", "ltr"),
        ("phone", TALK, PHONE, "light", "ltr"),
        ("phone-dark", TALK, PHONE, "dark", "ltr"),
        ("right-to-left", ARABIC, DESKTOP, "light", "rtl"),
        ("empty", [], DESKTOP, "light", "ltr"),
        ("long", LONG, DESKTOP, "light", "ltr"),
        ("long-phone", LONG, PHONE, "dark", "ltr"),
        ("hundred", CROWD, DESKTOP, "light", "ltr"),
    ],
)
def test_take_screenshot(
    visit: Visit, site: NewSite, room: NewRoom, name: str, said: Any, device: Any, scheme: str, direction: str
) -> None:
    page = site(CHAT.format(room(talk(said)).origin), dir=direction).origin
    ada = visit(page, color_scheme=scheme, **device)
    ada.page.screenshot(path=SCREENSHOTS / f"{name}-button.png")
    ada.find("button").click()
    expect(ada.find("panel")).to_be_visible()
    ada.page.screenshot(path=SCREENSHOTS / f"{name}-join.png")
    ada.join("ada")
    if said is TALK:
        ada.say("<script>alert('hi')</script>")
        expect(ada.find("failed")).to_be_visible()
        ada.line.fill("Two lines\nof a draft")
    expect(ada.find("count")).to_have_text("4 here")
    ada.page.screenshot(path=SCREENSHOTS / f"{name}.png")
    if said in (CROWD, LONG):
        ada.find("log").evaluate("log => log.scrollTop = 0")
        ada.page.screenshot(path=SCREENSHOTS / f"{name}-scrolled.png")
    assert (SCREENSHOTS / f"{name}.png").exists()


@pytest.mark.parametrize("device", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_take_screenshot_of_the_demo_page(start: Start, visit: Visit, device: Any, scheme: str) -> None:
    ada = visit(str(start().get("/").url), "ada", color_scheme=scheme, **device)
    ada.say("Hello!")
    ada.sees("Hello!")
    name = f"demo-{scheme}-{device['viewport']['width']}.png"
    ada.page.screenshot(path=SCREENSHOTS / name, full_page=True)
    assert ada.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
