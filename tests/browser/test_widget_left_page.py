"""Pages that the visitor leaves: they hold no connection, kept by the browser or not, and come back whole."""

from __future__ import annotations

from collections.abc import Callable

import httpx2
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import BACK_FORWARD_CACHE, NewRoom, NewSite, Visit
from tests.browser.owner import HASTE, TOKEN
from tests.browser.sites import Frame, ScriptedRoom, message
from tests.browser.sites import Visit as Connection
from tests.browser.visitor import Visitor
from tests.conftest import Start
from tests.support.running import RunningServer

CHAT = '<portfolio-chat corner server="{}"></portfolio-chat>'
LINKS = " ".join(f'<a href="/{number}">page {number}</a>' for number in range(1, 7))
HIDE_AND_SHOW = [
    (
        "new PageTransitionEvent('pagehide', { persisted: true })",
        "new PageTransitionEvent('pageshow', { persisted: true })",
    ),
    ("new Event('freeze')", "new Event('resume')"),
]
DISPATCH = "(event) => (/freeze|resume/.test(event.type) ? document : window).dispatchEvent(event)"
# Survives in a page that the browser keeps, and in no other.
MARK = (
    "window.kept = false; window.told = []; addEventListener('chat:status', ({ detail }) => told.push(detail.status));"
)

each_way = pytest.mark.parametrize(
    "chromium", [{}, BACK_FORWARD_CACHE], indirect=True, ids=["unloaded", "kept"], scope="module"
)
kept = pytest.mark.parametrize("chromium", [BACK_FORWARD_CACHE], indirect=True, ids=["kept"], scope="module")
by_events = pytest.mark.parametrize(("hide", "show"), HIDE_AND_SHOW, ids=["pagehide", "freeze"])


def metric(server: RunningServer, name: str) -> float:
    """One figure of the server's, as `/metrics` shows it."""
    answer = httpx2.get(f"http://127.0.0.1:{server.port}/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    return next(float(line.split()[-1]) for line in answer.text.splitlines() if line.startswith(f"{name} "))


def wait_for(page: Page, condition: Callable[[], bool]) -> None:
    """Returns once a condition holds, and fails when it does not in time. The browser goes on meanwhile."""
    for _ in range(500):
        if condition():
            return
        page.wait_for_timeout(20)
    raise AssertionError("what was waited for did not happen")


def wait_for_connections(page: Page, server: RunningServer, count: int) -> None:
    """Returns once so many connections are open, and fails when they are not in time."""
    wait_for(page, lambda: metric(server, "chat_connections") == count)


def wait_for_room(visitor: Visitor) -> None:
    """Returns once the widget has been let in."""
    expect(visitor.page.locator("portfolio-chat .count")).to_have_text("1 here")


def go_back(visitor: Visitor, address: str) -> None:
    """Goes back to a page that the browser kept: Playwright's `go_back` would wait for it to load again."""
    visitor.page.evaluate("setTimeout(() => history.back())")
    visitor.page.wait_for_url(address, wait_until="commit")
    visitor.page.wait_for_function("window.kept")


def dispatch(visitor: Visitor, event: str) -> None:
    """An event of the page's life."""
    visitor.page.evaluate(f"({DISPATCH})({event})")


@each_way
def test_six_links_leave_one_connection(start: Start, visit: Visit, site: NewSite) -> None:
    server = start(OWNER_TOKEN=TOKEN, CORS_ORIGINS="*", WS_MAX_CONNECTIONS_PER_IP="3")
    ada = visit(site(LINKS, chat=f"http://127.0.0.1:{server.port}").origin, "ada")
    for number in range(1, 7):
        ada.page.get_by_role("link", name=f"page {number}").click()
        ada.page.wait_for_url(f"**/{number}")
        wait_for_room(ada)
        wait_for_connections(ada.page, server, 1)
    assert metric(server, 'chat_refusals_total{code="too_many_connections"}') == 0


@each_way
def test_left_page_says_goodbye(visit: Visit, site: NewSite, room: NewRoom) -> None:
    def play(room: ScriptedRoom, connection: Connection) -> None:
        room.welcome(connection)
        connection.stay()

    chat = room(play)
    ada = visit(site(CHAT.format(chat.origin)).origin, "ada")
    ada.page.goto("about:blank")
    wait_for(ada.page, lambda: chat.visits[0].socket.close_code == 1000)


@kept
def test_back_brings_what_was_missed_and_loses_nothing(start: Start, visit: Visit, site: NewSite) -> None:
    server = start(OWNER_TOKEN=TOKEN, CORS_ORIGINS="*")
    origin = site(chat=f"http://127.0.0.1:{server.port}").origin
    ada, bob = visit(f"{origin}/1", "ada", script=MARK), visit(origin, "bob")
    ada.say("before")
    ada.sees("before")
    ada.line.fill("a draft")
    ada.page.evaluate("window.kept = true")
    ada.page.goto("about:blank")
    wait_for_connections(bob.page, server, 1)
    bob.say("missed")
    bob.sees("before", "missed")
    go_back(ada, f"{origin}/1")
    ada.sees("before", "missed")
    expect(ada.line).to_have_value("a draft")
    assert ada.page.evaluate("told") == ["connecting", "online", "connecting", "online"]


@kept
def test_back_sends_posts_without_an_answer_again(visit: Visit, site: NewSite, room: NewRoom) -> None:
    posts: list[Frame] = []

    def play(room: ScriptedRoom, connection: Connection) -> None:
        again = len(room.visits) > 1
        room.welcome(connection, *([] if again else [message(7, "old")]), recovered=again, seq=7)
        posts.append(connection.read())
        if again:
            connection.send("message", message(8, "mine", "ada", nonce=posts[-1]["nonce"]))
        connection.stay()

    chat = room(play)
    origin = site(CHAT.format(chat.origin)).origin
    ada = visit(f"{origin}/1", "ada", script=MARK)
    ada.say("mine")
    expect(ada.page.locator(".waiting")).to_have_count(1)
    ada.page.evaluate("window.kept = true")
    ada.page.goto("about:blank")
    go_back(ada, f"{origin}/1")
    ada.sees("old", "mine")
    assert posts[0] == posts[1]
    assert chat.visits[1].query == {"username": "ada", "epoch": "first", "since": "7"}


@by_events
def test_hidden_page_stays_away_until_it_is_shown(
    visit: Visit, site: NewSite, room: NewRoom, hide: str, show: str
) -> None:
    def play(room: ScriptedRoom, connection: Connection) -> None:
        room.welcome(connection)
        connection.stay()

    chat = room(play)
    ada = visit(site(CHAT.format(chat.origin)).origin, "ada", script=HASTE)
    dispatch(ada, hide)
    wait_for(ada.page, lambda: chat.visits[0].socket.close_code == 1000)
    ada.page.evaluate("dispatchEvent(new Event('online'))")
    ada.page.wait_for_timeout(40)  # it would come back at once
    assert len(chat.visits) == 1
    dispatch(ada, show)
    wait_for(ada.page, lambda: len(chat.visits) == 2)


@by_events
def test_hidden_page_forgets_that_it_was_to_try_again(
    visit: Visit, site: NewSite, room: NewRoom, hide: str, show: str
) -> None:
    def play(room: ScriptedRoom, connection: Connection) -> None:
        room.welcome(connection)
        if len(room.visits) > 1:
            return connection.stay()
        connection.read()
        return connection.socket.close(1012)

    leave_when_waiting = (
        f"addEventListener('chat:status', ({{ detail }}) => detail.status === 'waiting' && ({DISPATCH})({hide}));"
    )
    chat = room(play)
    ada = visit(site(CHAT.format(chat.origin)).origin, "ada", script=HASTE + leave_when_waiting)
    ada.say("bye")
    ada.reads("The server restarts.")
    ada.page.wait_for_timeout(40)  # it would have tried again after 10 ms
    assert len(chat.visits) == 1
    dispatch(ada, show)
    wait_for(ada.page, lambda: len(chat.visits) == 2)


@by_events
def test_connection_that_was_ended_stays_ended(
    visit: Visit, site: NewSite, room: NewRoom, hide: str, show: str
) -> None:
    chat = room(lambda _, connection: connection.refuse("banned", "You are not welcome.", 1008))
    ada = visit(site(CHAT.format(chat.origin)).origin, script=HASTE)
    ada.find("button").click()
    ada.offer("ada")
    ada.reads("You are banned from this chat.")
    dispatch(ada, hide)
    dispatch(ada, show)
    ada.page.wait_for_timeout(40)  # it would come back at once
    assert len(chat.visits) == 1
    ada.reads("You are banned from this chat.")


@by_events
def test_page_without_a_name_stays_without_connection(
    visit: Visit, site: NewSite, room: NewRoom, hide: str, show: str
) -> None:
    chat = room(lambda _, connection: connection.stay())
    ada = visit(site(CHAT.format(chat.origin)).origin)
    dispatch(ada, hide)
    dispatch(ada, show)
    ada.page.wait_for_timeout(40)
    assert chat.visits == []


def test_chat_that_comes_back_later_is_the_same_and_catches_up(start: Start, visit: Visit, site: NewSite) -> None:
    server = start(OWNER_TOKEN=TOKEN, CORS_ORIGINS="*")
    origin = site(CHAT.format(f"http://127.0.0.1:{server.port}")).origin
    ada, bob = visit(origin, "ada"), visit(origin, "bob")
    ada.line.fill("a draft")
    ada.page.evaluate("window.chat = document.querySelector('portfolio-chat'), window.chat.remove()")
    wait_for_connections(bob.page, server, 1)  # after some seconds, in which a page may be swapped
    bob.say("missed")
    bob.sees("missed")
    ada.page.evaluate("""() => {
        const next = document.createElement("portfolio-chat");
        for (const name of ["corner", "server"]) next.setAttribute(name, window.chat.getAttribute(name));
        document.body.append(next);
    }""")
    ada.sees("missed")
    expect(ada.line).to_have_value("a draft")
    wait_for_connections(bob.page, server, 2)
    # Not a second one beside it: pages that show and hide a chat all day would gather them.
    assert ada.page.evaluate("document.querySelector('portfolio-chat[corner]').launcher === window.chat.launcher")
