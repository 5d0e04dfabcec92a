"""The widget's connection: it comes back, loses and doubles nothing, and stops where the close code says so."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import NewRoom, NewSite, Visit
from tests.browser.sites import ScriptedRoom, message
from tests.browser.sites import Visit as Connection
from tests.conftest import Start

# Connections come back within moments, so that no test waits for luck.
HASTE = "Math.random = () => 0.02;"
CHAT = '<portfolio-chat server="{}"></portfolio-chat>'


def test_server_is_killed_and_nothing_is_lost_or_doubled(start: Start, visit: Visit) -> None:
    server = start()
    address = str(server.get("/").url)
    ada, bob = visit(address, "ada", script=HASTE), visit(address, "bob", script=HASTE)
    ada.say("before")
    bob.sees("before")
    server.kill()
    ada.reads("The connection is lost. Trying again in")
    ada.say("one", "two")
    bob.reads("Trying again")
    expect(ada.page.locator(".waiting .time").first).to_have_text("Sending…")
    server.start()
    for visitor in (ada, bob):
        visitor.sees("before", "one", "two")
    assert server.stats()["total_messages"] == 3
    server.terminate()
    ada.reads("Trying again")
    server.start()
    ada.say("three")
    for visitor in (ada, bob):
        visitor.sees("before", "one", "two", "three")
        expect(visitor.page.locator("portfolio-chat .status")).to_be_empty()
    assert ada.page.locator(".own").count() == 4


def test_killed_in_the_midst_of_posts(start: Start, visit: Visit) -> None:
    server = start()
    ada = visit(str(server.get("/").url), "ada", script=HASTE)
    texts = [str(number) for number in range(60)]
    for number in range(0, 60, 20):
        ada.say(*texts[number : number + 20])
        server.kill()
        server.start()
    ada.sees(*texts)
    assert server.stats()["total_messages"] == 60


def test_wifi_goes_and_comes(start: Start, visit: Visit) -> None:
    server = start()
    address = str(server.get("/").url)
    ada, bob = visit(address, "ada"), visit(address, "bob")
    ada.page.context.set_offline(True)
    server.kill()  # a browser's emulation leaves open connections alone
    ada.reads("You are offline.")
    ada.say("from the tunnel")
    server.start()
    bob.say("meanwhile")
    bob.sees("meanwhile")
    assert ada.page.locator(".waiting").count() == 1
    ada.page.context.set_offline(False)
    for visitor in (ada, bob):
        visitor.sees("meanwhile", "from the tunnel")


def test_name_taken(start: Start, visit: Visit) -> None:
    address = str(start().get("/").url)
    visit(address, "ada")
    bob = visit(address)
    refusals = (("ADA", "Somebody else"), ("admin", "reserved"), ("a.b", "A name has"), ("", "Pick a name first"))
    for name, why in refusals:
        bob.offer(name)
        expect(bob.find("error")).to_contain_text(why)
        expect(bob.find("join .input")).to_be_focused()
        expect(bob.find("join .input")).to_have_attribute("aria-invalid", "true")
    bob.join("bob the builder")
    expect(bob.find("me")).to_have_text("as bob-the-builder (change)")


def test_rate_limit_says_when_and_sends_by_itself(start: Start, visit: Visit) -> None:
    server = start(RATE_LIMIT_MESSAGES="2", RATE_LIMIT_WINDOW="2")
    ada = visit(str(server.get("/").url), "ada")
    ada.say("1", "2", "3", "4")
    expect(ada.find("waiting .state")).to_have_text("That was too fast. Trying again in 1 s.")
    ada.sees("1", "2", "3", "4")
    assert server.stats()["total_messages"] == 4


def test_full_room(start: Start, visit: Visit) -> None:
    server = start(WS_MAX_CONNECTIONS="1")
    address = str(server.get("/").url)
    ada = visit(address, "ada")
    bob = visit(address)
    bob.offer("bob")
    bob.reads("The room is full. Trying again in")
    ada.page.close()
    bob.line.wait_for(timeout=15_000)


@pytest.mark.parametrize(
    ("code", "words"),
    [(1000, "was ended"), (1009, "was ended"), (4500, "You are banned"), (4501, "too much at once")],
)
def test_stops_where_the_close_code_says_so(visit: Visit, site: NewSite, room: NewRoom, code: int, words: str) -> None:
    def play(room: ScriptedRoom, connection: Connection) -> None:
        room.welcome(connection, message(1, "Hello"))
        connection.read()
        connection.socket.close(code)

    chat = room(play)
    ada = visit(site(CHAT.format(chat.origin)).origin, "ada", script=HASTE)
    ada.say("bye")
    ada.reads(words)
    expect(ada.find("failed .state")).to_contain_text(words)
    ada.page.evaluate("dispatchEvent(new Event('online'))")
    ada.page.wait_for_timeout(40)  # it would come back at once
    assert len(chat.visits) == 1


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (1001, "The connection is lost. Trying again in 1 s."),
        (1012, "The server restarts. Trying again in 1 s."),
        (1013, "The room is full. Trying again in 6 s."),
    ],
)
def test_says_why_it_waits_and_how_long(visit: Visit, site: NewSite, room: NewRoom, code: int, words: str) -> None:
    def play(room: ScriptedRoom, connection: Connection) -> None:
        room.welcome(connection)
        connection.read()
        connection.socket.close(code)

    slowly = "Math.random = () => 0.99"
    ada = visit(site(CHAT.format(room(play).origin)).origin, "ada", script=slowly)
    ada.say("bye")
    ada.reads(words)


def test_banned(visit: Visit, site: NewSite, room: NewRoom) -> None:
    chat = room(lambda _, connection: connection.refuse("banned", "You are not welcome.", 1008))
    ada = visit(site(CHAT.format(chat.origin)).origin, script=HASTE)
    ada.offer("ada")
    ada.reads("You are banned from this chat.")
    ada.page.wait_for_timeout(40)  # it would come back at once
    assert len(chat.visits) == 1


@pytest.mark.parametrize("code", [1001, 1011, 1012, 3000, 4000, 4001, 4499])
def test_comes_back_with_token_and_place(visit: Visit, site: NewSite, room: NewRoom, code: int) -> None:
    def play(room: ScriptedRoom, connection: Connection) -> None:
        if len(room.visits) > 1:
            room.welcome(connection, message(3, "missed"), recovered=True)
            return connection.stay()
        room.welcome(connection, message(1, "old"))
        connection.send("message", message(2, "new"))
        return connection.socket.close(code)

    chat = room(play)
    ada = visit(site(CHAT.format(chat.origin)).origin, "ada", script=HASTE)
    ada.sees("old", "new", "missed")
    first, second = chat.visits
    assert (first.query, first.offered) == ({"username": "ada"}, "chat.v1")
    assert second.query == {"username": "ada", "epoch": "first", "since": "2"}
    assert second.offered == "chat.v1, bearer.s1.a.b.c"


def test_history_that_is_no_recovery_replaces_what_was_there(visit: Visit, site: NewSite, room: NewRoom) -> None:
    def play(room: ScriptedRoom, connection: Connection) -> None:
        again = len(room.visits) > 1
        room.welcome(connection, message(1, "new past" if again else "old past"))
        if again:
            connection.stay()
        connection.read()
        connection.socket.close(1012)

    ada = visit(site(CHAT.format(room(play).origin)).origin, "ada", script=HASTE)
    expect(ada.find("text")).to_have_text("old past")
    ada.say("mine")
    expect(ada.page.locator(".text")).to_have_text(["new past", "mine"])


def test_silence_ends_the_connection(visit: Visit, site: NewSite, room: NewRoom) -> None:
    def play(room: ScriptedRoom, connection: Connection) -> None:
        room.welcome(connection, recovered=len(room.visits) > 1)
        if len(room.visits) > 2:
            connection.send("message", message(1, "at last"))
        connection.stay()

    chat = room(play, heartbeat=0.1)
    ada = visit(site(CHAT.format(chat.origin)).origin, script=HASTE)
    ada.offer("ada")
    expect(ada.find("text")).to_have_text("at last")
    assert len(chat.visits) >= 3


def test_ping_is_answered_and_waking_asks_for_a_sign_of_life(visit: Visit, site: NewSite, room: NewRoom) -> None:
    heard: list[str] = []

    def play(room: ScriptedRoom, connection: Connection) -> None:
        room.welcome(connection)
        connection.send("ping")
        while True:
            heard.append(connection.read()["type"])

    ada = visit(site(CHAT.format(room(play).origin)).origin, "ada")
    ada.page.evaluate("dispatchEvent(new Event('online'))")
    for _ in range(500):
        if len(heard) == 2:
            break
        ada.page.wait_for_timeout(20)
    assert heard == ["pong", "ping"]


def test_outage_is_shown_until_messages_come_again(visit: Visit, site: NewSite, room: NewRoom) -> None:
    def play(room: ScriptedRoom, connection: Connection) -> None:
        room.welcome(connection)
        connection.send("error", {"code": "unavailable"}, message="Not now.")
        connection.read()
        connection.send("message", message(1, "well again"))
        connection.stay()

    ada = visit(site(CHAT.format(room(play).origin)).origin, "ada")
    ada.reads("Nothing can be sent or received for now.")
    ada.say("go on")
    expect(ada.page.locator(".text").first).to_have_text("well again")
    expect(ada.page.locator("portfolio-chat .status")).to_be_empty()


# Waits before the next try are as long as can be, are written down (milliseconds), and pass a hundred times faster.
WAITS = """
window.waits = [];
Math.random = () => 1;
const { setTimeout } = window;
window.setTimeout = (act, ms) => {
  const next = [500, 2000, 4000, 8000].includes(ms); // the second, 1000, is the time of other things, too
  if (next) window.waits.push(ms);
  return setTimeout(act, next ? ms / 100 : ms);
};
"""


def test_room_that_lets_in_and_drops_is_left_alone_longer_and_longer(
    visit: Visit, site: NewSite, room: NewRoom
) -> None:
    def play(room: ScriptedRoom, connection: Connection) -> None:
        room.welcome(connection, recovered=len(room.visits) > 1)
        if len(room.visits) < 6:
            connection.socket.close(1012)
        else:
            connection.send("message", message(1, "at last"))
            connection.stay()

    ada = visit(site(CHAT.format(room(play).origin)).origin, script=WAITS)
    ada.offer("ada")
    ada.sees("at last")
    assert ada.page.evaluate("waits") == [500, 2000, 4000, 8000]
