"""How long the widget keeps a page busy."""

from __future__ import annotations

import time

from tests.browser.conftest import NewRoom, NewSite, Visit
from tests.browser.sites import ScriptedRoom, message
from tests.browser.sites import Visit as Connection
from tests.browser.visitor import Visitor

CHAT = '<portfolio-chat server="{}"></portfolio-chat>'
SLOWNESS = 6  # of a phone, beside this computer


class Meter:
    """Seconds of processor time that a page would take on a phone, from now on. No clock: others may be busy, too."""

    def __init__(self, visitor: Visitor) -> None:
        self._session = visitor.page.context.new_cdp_session(visitor.page)
        self._session.send("Performance.enable", {"timeDomain": "threadTicks"})
        self._before = self._read()

    def _read(self) -> float:
        metrics = self._session.send("Performance.getMetrics")["metrics"]
        return float(next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration"))

    def read(self) -> float:
        return SLOWNESS * (self._read() - self._before)


def test_five_hundred_missed_messages_are_shown_in_one_piece(visit: Visit, site: NewSite, room: NewRoom) -> None:
    missed = [message(seq, f"Message {seq}, with some words", f"visitor{seq % 7}") for seq in range(1, 501)]

    def play(room: ScriptedRoom, connection: Connection) -> None:
        if len(room.visits) == 1:
            room.welcome(connection)
            connection.read()  # the test's sign to break
            connection.socket.close(1012)
        else:
            room.welcome(connection, *missed, recovered=True)
            connection.stay()

    ada = visit(site(CHAT.format(room(play).origin)).origin, "ada")
    ada.line.fill("now")
    meter = Meter(ada)
    ada.line.press("Enter")
    ada.find("log").get_by_text("Message 500").wait_for()
    assert meter.read() < 1.2  # 0.5 with everything around it; it was 10 when each message was inserted by itself


def test_live_messages_stay_cheap_after_thousands_of_joins(visit: Visit, site: NewSite, room: NewRoom) -> None:
    def play(room: ScriptedRoom, connection: Connection) -> None:
        room.welcome(connection, *(message(seq, f"Message {seq}") for seq in range(1, 101)))
        for number in range(3000):
            connection.send("system", {"event": "user_joined", "user": f"visitor{number}"})
        connection.read()  # the test's sign to go on
        for seq in range(101, 161):
            connection.send("message", message(seq, f"Message {seq}", f"visitor{seq % 7}"))
            time.sleep(0.05)
        connection.send("message", message(161, "the last one"))
        connection.stay()

    ada = visit(site(CHAT.format(room(play).origin)).origin, "ada")
    log = ada.find("log")
    log.locator(".note", has_text="visitor2999").wait_for()
    assert log.locator(".note").count() == 1
    ada.line.fill("go on")
    meter = Meter(ada)
    ada.line.press("Enter")
    ada.page.get_by_text("the last one").wait_for()
    assert meter.read() / 60 < 0.08  # a third of it, where nothing else runs
