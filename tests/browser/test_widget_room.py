"""What visitors see of the owner's rules: who may write, how often, what is hidden, who is banned."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import expect

from tests.browser.conftest import NewRoom, NewSite, Visit
from tests.browser.sites import ScriptedRoom, message
from tests.browser.sites import Visit as Connection

HASTE = "Math.random = () => 0.02;"
CHAT = '<portfolio-chat server="{}"></portfolio-chat>'
OPEN: dict[str, Any] = {"paused": False, "slow_mode": 0.0, "owner_online": False}


def test_says_whether_the_owner_is_here(visit: Visit, site: NewSite, room: NewRoom) -> None:
    def play(room: ScriptedRoom, connection: Connection) -> None:
        room.welcome(connection, **OPEN)
        connection.read()
        connection.send("room", {**OPEN, "owner_online": True})
        connection.read()
        connection.socket.close(4500)

    ada = visit(site(CHAT.format(room(play).origin)).origin, "ada")
    expect(ada.find("presence")).to_have_text("The owner usually answers later")
    ada.say("Is anybody here?")
    expect(ada.find("presence")).to_have_text("The owner is here")
    ada.say("Oh")
    expect(ada.page.locator("portfolio-chat .presence")).to_be_empty()


def test_paused_room_is_read_and_not_written_in(visit: Visit, site: NewSite, room: NewRoom) -> None:
    def play(room: ScriptedRoom, connection: Connection) -> None:
        room.welcome(connection, **OPEN)
        post = connection.read()
        connection.send("room", {**OPEN, "paused": True})
        connection.send("error", {"code": "paused", "nonce": post["nonce"]}, message="Not now.")
        connection.read()
        connection.send("room", OPEN)
        again = connection.read()
        mine = message(1, again["content"], "ada", nonce=again["nonce"])
        connection.send("message", mine)
        connection.stay()

    chat = room(play)
    ada = visit(site(CHAT.format(chat.origin)).origin, "ada")
    ada.say("Hello")
    expect(ada.find("failed .state")).to_contain_text("Only the owner can write now.")
    expect(ada.find("rule")).to_have_text("Only the owner can write now.")
    expect(ada.line).to_be_focused()
    ada.line.press_sequentially("a")
    ada.line.press("Enter")
    expect(ada.line).to_have_value("")
    expect(ada.line).to_have_js_property("readOnly", True)
    expect(ada.find("send .go")).to_be_disabled()
    ada.page.evaluate("dispatchEvent(new Event('online'))")  # asks for a sign of life, which the room waits for
    expect(ada.page.locator("portfolio-chat .rule")).to_be_empty()
    expect(ada.line).to_have_js_property("readOnly", False)
    ada.page.get_by_role("button", name="Retry").click()
    ada.sees("Hello")


def test_slow_mode_is_said(visit: Visit, site: NewSite, room: NewRoom) -> None:
    def play(room: ScriptedRoom, connection: Connection) -> None:
        room.welcome(connection, **{**OPEN, "slow_mode": 30.0})
        post = connection.read()
        refusal = {"code": "slow_mode", "nonce": post["nonce"], "retry_after": 0.5}
        connection.send("error", refusal, message="Slowly.")
        again = connection.read()
        assert again == post
        connection.send("message", message(1, again["content"], "ada", nonce=again["nonce"]))
        connection.stay()

    ada = visit(site(CHAT.format(room(play).origin)).origin, "ada")
    expect(ada.find("rule")).to_have_text("Slow mode: a message every 30 s.")
    ada.say("Hello")
    expect(ada.find("waiting .state")).to_have_text("Slow mode. Trying again in 1 s.")
    ada.sees("Hello")


def test_who_followed_a_hidden_message_is_named_again(visit: Visit, site: NewSite, room: NewRoom) -> None:
    first, second, third, other = (
        message(seq, text, name)
        for seq, text, name in ((1, "1", "bob"), (2, "2", "bob"), (3, "3", "bob"), (4, "4", "eve"))
    )

    def play(room: ScriptedRoom, connection: Connection) -> None:
        room.welcome(connection, first, second, third, other, message(5, "5", "bob"), **OPEN)
        for hidden in (first, second, other):
            connection.read()
            connection.send("hidden", {"id": hidden["id"]})
        connection.stay()

    ada = visit(site(CHAT.format(room(play).origin)).origin, "ada")
    follows = ada.page.locator("portfolio-chat .message:not(.waiting)")
    expect(follows).to_have_class(["message", "message follows", "message follows", "message", "message"])
    ada.say("a")
    expect(follows).to_have_class(["message", "message follows", "message", "message"])
    ada.say("b")
    expect(follows).to_have_class(["message", "message", "message"])
    ada.say("c")
    expect(follows).to_have_class(["message", "message follows"])
    assert ada.texts()[:2] == ["3", "5"]


def test_hidden_is_an_acknowledgement(visit: Visit, site: NewSite, room: NewRoom) -> None:
    def play(room: ScriptedRoom, connection: Connection) -> None:
        if len(room.visits) == 1:
            room.welcome(connection, **OPEN)
            connection.read()
            return connection.socket.close(1012)
        room.welcome(connection, recovered=True, **OPEN)
        post = connection.read()
        connection.send("hidden", {"id": "gone", "nonce": post["nonce"]})
        return connection.stay()

    chat = room(play)
    ada = visit(site(CHAT.format(chat.origin)).origin, "ada", script=HASTE)
    ada.say("Hello")
    ada.sees()
    assert len(chat.visits) == 2


def test_hidden_while_away(visit: Visit, site: NewSite, room: NewRoom) -> None:
    gone, stays = message(1, "gone"), message(2, "stays")

    def play(room: ScriptedRoom, connection: Connection) -> None:
        if len(room.visits) == 1:
            room.welcome(connection, gone, stays, **OPEN)
            connection.read()
            return connection.socket.close(1012)
        connection.send("history", [], recovered=True, hidden=[gone["id"]])
        connection.send("session", {"username": "ada", "token": "s1.a.b.c", "epoch": "first", "seq": 2, **OPEN})
        connection.read()
        return connection.stay()

    ada = visit(site(CHAT.format(room(play).origin)).origin, "ada", script=HASTE)
    expect(ada.page.locator("portfolio-chat .follows")).to_have_count(1)
    ada.say("Hello")
    expect(ada.page.locator("portfolio-chat .message:not(.waiting)")).to_have_class(["message"])
    assert ada.texts() == ["stays", "Hello"]


def test_banned_while_here(visit: Visit, site: NewSite, room: NewRoom) -> None:
    def play(room: ScriptedRoom, connection: Connection) -> None:
        room.welcome(connection, message(1, "Hi"), **{**OPEN, "slow_mode": 30.0})
        connection.read()
        connection.refuse("banned", "You are not welcome.", 4500)

    chat = room(play)
    ada = visit(site(CHAT.format(chat.origin)).origin, "ada", script=HASTE)
    ada.say("Hello")
    ada.reads("You are banned from this chat.")
    expect(ada.page.locator("portfolio-chat .rule")).to_be_empty()
    expect(ada.find("failed .state")).to_contain_text("You are banned from this chat.")
    ada.page.evaluate("dispatchEvent(new Event('online'))")
    ada.page.wait_for_timeout(40)  # it would come back at once
    assert len(chat.visits) == 1
