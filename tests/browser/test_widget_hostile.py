"""The widget among the hostile: what is typed, what a server sends, and how strict a page may be."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import NewRoom, NewSite, Visit
from tests.browser.sites import ScriptedRoom, message
from tests.browser.sites import Visit as Connection
from tests.browser.visitor import Visitor
from tests.conftest import Start

CHAT = '<portfolio-chat server="{}"></portfolio-chat>'
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # which the server takes out
# What the widget makes; anything else would be somebody's markup. Attributes that could run or load are no one's.
INVENTORY = """() => {
  const words = "a bdi button code dialog div form h2 input label p path pre section small span svg textarea";
  const known = words.split(" ");
  const chats = [...document.querySelectorAll("portfolio-chat")];
  const all = chats.flatMap((chat) => [...chat.shadowRoot.querySelectorAll("*")]);
  return all.filter((element) => !known.includes(element.localName)
    || element.getAttributeNames().some((name) => /^(on|src|formaction|xlink)/.test(name))
    || (element.href && !/^https?:/.test(element.href))).map((element) => element.outerHTML);
}"""


@pytest.fixture(scope="session")
def attacks(packages: Path) -> list[str]:
    """Strings of the Big List of Naughty Strings that are meant to run."""
    strings = json.loads((packages / "big-list-of-naughty-strings" / "blns.json").read_text())
    found = sorted({text for text in strings if "<" in text or "javascript:" in text.lower()})
    assert len(found) >= 200
    return found


def shown_as(text: str) -> str:
    """The text of a message, in which `code` has lost its marks."""
    return re.sub("`([^`\n]+)`", r"\1", text)


def assert_harmless(visitor: Visitor) -> None:
    assert visitor.page.evaluate(INVENTORY) == []
    assert visitor.troubles == []


TYPE_ALL = """(line, texts) => {
    for (const text of texts) {
        line.value = text;
        line.dispatchEvent(new Event("input"));
        line.dispatchEvent(new InputEvent("beforeinput", { inputType: "insertLineBreak", cancelable: true }));
    }
}"""


def test_attacks_that_are_typed_do_not_run(start: Start, visit: Visit, attacks: list[str]) -> None:
    server = start(BLOCK_DANGEROUS_MARKUP="false", HISTORY_LIMIT="300")
    ada = visit(str(server.get("/").url), "ada")
    ada.line.evaluate(TYPE_ALL, attacks)
    expect(ada.page.locator("portfolio-chat .message")).to_have_count(len(attacks))
    expect(ada.page.locator("portfolio-chat .waiting")).to_have_count(0, timeout=20_000)
    shown = ada.texts()
    visible = [shown_as(CONTROLS.sub("", attack)) for attack in attacks]
    assert sorted(shown) == sorted(visible)
    bob = visit(str(server.get("/").url), "bob")
    expect(bob.page.locator("portfolio-chat .message")).to_have_count(len(attacks))
    assert bob.texts() == shown
    assert_harmless(ada)
    assert_harmless(bob)


def test_attacks_of_a_hostile_server_do_not_run(visit: Visit, site: NewSite, room: NewRoom, attacks: list[str]) -> None:
    def play(room: ScriptedRoom, connection: Connection) -> None:
        half = len(attacks) // 2
        ways: list[dict[str, Any]] = [
            message(seq, attack, username=attack, text=attack, role="owner") for seq, attack in enumerate(attacks)
        ]
        room.welcome(connection, *ways[:half], username=attacks[0])
        for attack, data in zip(attacks, [*ways[half:], *ways[:half]], strict=True):
            connection.send("message", {**data, "timestamp": attack if len(attack) % 2 else data["timestamp"]})
            connection.send("system", {"event": "user_joined", "user": attack, "content": attack})
            connection.send("error", {"code": attack, "retry_after": attack}, message=attack)
            connection.send("user_count", {"count": attack})
        connection.send("message", message(9999, "the end"))
        connection.stay()

    ada = visit(site(CHAT.format(room(play).origin)).origin, "ada")
    expect(ada.page.locator(".text", has_text="the end")).to_have_count(1, timeout=30_000)
    assert ada.texts()[:-1] == [shown_as(attack) for attack in attacks]
    assert_harmless(ada)


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "nonsense",
        "[]",
        "null",
        '"x"',
        '{"type": "message"}',
        '{"type": "message", "data": null}',
        '{"type": "history", "data": 7, "recovered": true}',
        '{"type": "error"}',
        '{"type": "error", "message": 1, "data": {"code": "constructor"}}',
        '{"type": "system", "data": {"event": "toString", "user": {}}}',
        '{"type": "constructor"}',
        '{"type": "__proto__", "data": {}}',
        '{"type": "hidden", "data": {"id": "x"}}',
        '{"type": "message", "data": {"id": "x", "seq": "y", "username": 7, "content": {}, "timestamp": "z"}}',
        '{"type": "user_count", "data": {}}',
    ],
)
def test_frame_that_is_none_is_passed_over(visit: Visit, site: NewSite, room: NewRoom, frame: str) -> None:
    def play(room: ScriptedRoom, connection: Connection) -> None:
        room.welcome(connection, room="lobby", owner_online=True)
        connection.socket.send(frame)
        connection.socket.send(b"\x00\xff")
        connection.send("message", message(1, "still here"))
        connection.stay()

    chat = room(play)
    ada = visit(site(CHAT.format(chat.origin)).origin, "ada")
    expect(ada.page.locator(".text").last).to_have_text("still here")
    assert len(chat.visits) == 1


def test_strict_page_of_another_origin(start: Start, visit: Visit, site: NewSite) -> None:
    server = start(CORS_ORIGINS="*")
    page = site(chat=f"http://127.0.0.1:{server.port}", strict=True)
    ada = visit(page.origin, "ada")
    ada.say("Hello https://example.com")
    ada.sees("Hello https://example.com")
    assert ada.find("own .bubble").evaluate("bubble => getComputedStyle(bubble).borderRadius") == "14px"
    assert_harmless(ada)


def test_page_and_widget_leave_each_other_s_styles_alone(visit: Visit, site: NewSite, room: NewRoom) -> None:
    body = CHAT.format(room(lambda room, connection: (room.welcome(connection), connection.stay())).origin)
    loud = "<style>* { color: red; font-size: 40px; border: 9px solid; display: block } button { width: 300px }</style>"
    plain, styled = visit(site(body).origin, "ada"), visit(site(loud + body).origin, "ada")
    look = """element => {
      const style = getComputedStyle(element);
      return [style.color, style.fontSize, style.borderWidth];
    }"""
    for part in ("title", "send .go", "me", "log", "input"):
        assert plain.find(part).evaluate(look) == styled.find(part).evaluate(look)
    assert plain.page.locator("h1").evaluate(look) == ["rgb(0, 0, 0)", "32px", "0px"]
