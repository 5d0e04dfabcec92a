"""Reading before joining, the name, who is who, and what is new."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import NewRoom, NewSite, Visit
from tests.browser.sites import ScriptedRoom, message
from tests.browser.sites import Visit as Connection
from tests.browser.visitor import TIMEOUT
from tests.conftest import Start
from tests.support.running import RunningServer

BUTTON = '<portfolio-chat corner server="{}"></portfolio-chat>'
BROKEN = ["{", "null", "7", '"words"', '{"name": {}, "token": {}, "posts": [3], "draft": {}, "epoch": []}']
CHAT = '<portfolio-chat server="{}"></portfolio-chat>'


def address_of(server: RunningServer) -> str:
    return f"http://127.0.0.1:{server.port}"


def stay(room: ScriptedRoom, connection: Connection) -> None:
    room.welcome(connection)
    connection.stay()


def test_room_is_read_without_a_connection(start: Start, visit: Visit) -> None:
    server = start()
    ada = visit(address_of(server), "ada")
    ada.say("Hello")
    ada.sees("Hello")
    bob = visit(address_of(server))
    bob.sees("Hello")
    expect(bob.find("count")).to_have_text("1 here")
    expect(bob.find("presence")).to_have_text("The owner usually answers later")
    assert server.stats()["active_users"] == 1
    assert server.log().count("User connected") == 1


def test_name_and_first_message_go_in_one_step(start: Start, visit: Visit) -> None:
    server = start()
    ada = visit(address_of(server))
    ada.find("join .input").fill("ada")
    ada.say("My first words")
    ada.sees("My first words")
    expect(ada.find("me")).to_contain_text("ada")


def test_without_a_name_nothing_is_sent_and_nothing_is_lost(start: Start, visit: Visit) -> None:
    ada = visit(address_of(start()))
    ada.say("My first words")
    expect(ada.find("error")).to_have_text("Pick a name first.")
    expect(ada.line).to_have_value("My first words")
    ada.find("suggestion").click()
    expect(ada.find("me")).to_be_visible(timeout=TIMEOUT)
    ada.line.press("Enter")
    ada.sees("My first words")


def test_one_click_takes_the_suggested_name(start: Start, visit: Visit) -> None:
    ada = visit(address_of(start()))
    suggested = ada.find("suggestion").text_content()
    assert suggested
    assert re.fullmatch(r"Call me [a-z]+-[a-z]+-\d\d", suggested)
    ada.find("suggestion").click()
    expect(ada.find("me")).to_contain_text(suggested.removeprefix("Call me "), timeout=TIMEOUT)


def test_join_that_is_pressed_twice_joins_once(start: Start, visit: Visit) -> None:
    server = start()
    ada = visit(address_of(server))
    ada.find("join .input").fill("ada")
    ada.find("join .go").dblclick()
    expect(ada.find("me")).to_be_visible(timeout=TIMEOUT)
    ada.say("Hello")
    ada.sees("Hello")
    assert server.log().count("User connected") == 1


def test_two_people_of_one_name_are_told_apart(visit: Visit, site: NewSite, room: NewRoom) -> None:
    def play(room: ScriptedRoom, connection: Connection) -> None:
        room.welcome(
            connection,
            message(1, "I was here before", "ada", author="the first"),
            message(2, "And I after that", "ada", author="the second"),
            message(3, "I am you", "ada", author="author of ada"),
        )
        connection.stay()

    ada = visit(site(CHAT.format(room(play).origin)).origin, "ada")
    expect(ada.find("log").locator(".name")).to_have_text(["ada", "another ada", "You"])
    hues = ada.page.locator("portfolio-chat .message:not(.own)").evaluate_all(
        "rows => rows.map((row) => row.style.cssText)"
    )
    assert len(set(hues)) == 2


def test_somebody_else_of_one_s_own_name_is_another(visit: Visit, site: NewSite, room: NewRoom) -> None:
    def play(room: ScriptedRoom, connection: Connection) -> None:
        own, other = message(1, "I am you", "ada"), message(2, "I am not", "Ada", author="the other")
        room.welcome(connection, own, other)
        connection.stay()

    ada = visit(site(CHAT.format(room(play).origin)).origin, "ada")
    expect(ada.find("log").locator(".name")).to_have_text(["You", "another Ada"])


def test_messages_under_an_earlier_name_stay_one_s_own_as_long_as_the_session_does(
    visit: Visit, site: NewSite, room: NewRoom
) -> None:
    def play(room: ScriptedRoom, connection: Connection) -> None:
        said = message(1, "Words of ada", "ada", author="one")
        room.welcome(connection, said, author="two" if connection.query["username"] == "cyd" else "one")
        connection.stay()

    ada = visit(site(CHAT.format(room(play).origin)).origin, "ada")
    expect(ada.find("own .text")).to_have_text("Words of ada")
    for name, own in (("bob", 1), ("cyd", 0)):
        ada.find("me").click()
        ada.offer(name)
        expect(ada.find("me")).to_contain_text(name)
        expect(ada.page.locator("portfolio-chat .own")).to_have_count(own)


def test_what_came_while_away_is_on_the_button_and_marked(start: Start, visit: Visit, site: NewSite) -> None:
    server = start(CORS_ORIGINS="*")
    page = site(BUTTON.format(address_of(server))).origin
    ada, bob = visit(page, "ada"), visit(address_of(server), "bob")
    ada.say("A question")
    ada.sees("A question")
    ada.find("close").click()
    ada.page.goto("about:blank")
    bob.say("An answer", "And another one")
    bob.sees("A question", "An answer", "And another one")
    ada.page.goto(page)
    expect(ada.find("badge")).to_have_text("2")
    assert server.log().count("User connected: ada") == 1  # looking needs no connection
    ada.find("button").click()
    ada.sees("A question", "An answer", "And another one")
    expect(ada.find("since + .message .text")).to_have_text("An answer")
    expect(ada.page.locator("portfolio-chat .badge")).to_be_hidden()


def test_what_is_read_in_one_tab_is_read_in_all(start: Start, visit: Visit, site: NewSite) -> None:
    server = start(CORS_ORIGINS="*")
    page = site(BUTTON.format(address_of(server))).origin
    ada, bob = visit(page, "ada"), visit(address_of(server), "bob")
    ada.find("close").click()
    bob.say("An answer")
    expect(ada.find("badge")).to_have_text("1")
    other = ada.page.context.new_page()
    other.goto(page)
    other.locator("portfolio-chat .button").click()
    expect(other.locator("portfolio-chat .message .text")).to_have_text(["An answer"])
    expect(ada.page.locator("portfolio-chat .badge")).to_be_hidden()


@pytest.mark.parametrize("broken", BROKEN)
def test_storage_that_is_broken_is_as_none(start: Start, visit: Visit, broken: str) -> None:
    script = f"""for (const area of [localStorage, sessionStorage]) for (const end of ["", " read", " page"]) {{
        area.setItem("portfolio-chat " + location.origin + end, {json.dumps(broken)});
    }}"""
    ada = visit(address_of(start()), script=script)
    ada.join("ada")
    ada.say("Hello")
    ada.sees("Hello")


def test_own_message_is_deleted_for_everybody(start: Start, visit: Visit) -> None:
    server = start()
    ada, bob = visit(address_of(server), "ada"), visit(address_of(server), "bob")
    ada.say("one", "two", "three")
    bob.say("four")
    for visitor in (ada, bob):
        visitor.sees("one", "two", "three", "four")
    assert bob.page.locator("portfolio-chat .tools .delete").count() == 1  # of one's own
    own = ada.page.locator("portfolio-chat .own", has_text="two")
    own.hover()
    own.locator(".delete").click()
    ada.find("ask .alarm").click()
    for visitor in (ada, bob):
        visitor.sees("one", "three", "four")
    own = ada.page.locator("portfolio-chat .own", has_text="one")
    own.hover()
    own.locator(".delete").click()
    ada.find("ask .tick").check()
    ada.find("ask .alarm").click()
    for visitor in (ada, bob):
        visitor.sees("four")
