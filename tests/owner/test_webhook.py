"""The way of a notification to a real server: tries, time limits, proxies, and what the log must not hold."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from http.client import HTTPConnection
from typing import Any

import pytest

from app.owner import webhook
from app.owner.formats import Notification, request
from app.owner.webhook import Webhook
from tests.support.receiver import Answer, Receiver
from tests.support.running import ROOT, free_port, until

pytestmark = pytest.mark.anyio

NOTIFICATION = Notification("ada", "hello", 1.5)
SOON = 0.05  # seconds; what never answers is not waited for any longer
SECRETS = ("hunter2", "s3cret", "t0ken", "leaked", "elsewhere")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def all_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


class Pauses(list[float]):
    """A sleep that takes no time."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    assert not [secret for secret in SECRETS if secret in caplog.text]
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "notification"]


async def test_notification_arrives(caplog: pytest.LogCaptureFixture) -> None:
    async with Receiver() as receiver:
        assert await Webhook(receiver.url("/s3cret?a=t0ken", "ada:hunter2@"), "json").send(NOTIFICATION)
    (sent,) = receiver.requests
    assert sent.startswith(b"POST /s3cret?a=t0ken HTTP/1.1\r\n")
    assert b"\r\nAuthorization: Basic YWRhOmh1bnRlcjI=\r\n" in sent
    assert f"\r\nHost: 127.0.0.1:{receiver.port}\r\n".encode() in sent
    assert receiver.bodies()[0]["text"] == "hello"
    assert warnings(caplog) == []


@pytest.mark.parametrize("status", [200, 201, 204])
async def test_any_success_is_one(status: int) -> None:
    async with Receiver(status) as receiver:
        assert await Webhook(receiver.url(), "json").send(NOTIFICATION)


async def test_failure_is_tried_again_twice(caplog: pytest.LogCaptureFixture) -> None:
    pauses = Pauses()
    async with Receiver(500, 429, 200) as receiver:
        assert await Webhook(receiver.url(), "json", sleep=pauses).send(NOTIFICATION)
    assert len(receiver.requests) == 3
    assert pauses == [1.0, 2.0]
    assert warnings(caplog) == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (500, "HTTP 500"),
        (404, "HTTP 404"),
        (301, "HTTP 301"),
        (302, "HTTP 302"),
        (303, "HTTP 303"),
        (307, "HTTP 307"),
        (308, "HTTP 308"),
        ("never", "TimeoutError"),
        ("drip", "TimeoutError"),
        ("nonsense", "BadStatusLine"),
    ],
)
async def test_third_failure_is_the_last_and_logged_without_a_secret(
    answer: Answer, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    late, pauses = reason == "TimeoutError", Pauses()
    async with Receiver(answer) as receiver:
        url = receiver.url("/s3cret?a=t0ken#t0ken", "ada:hunter2@")
        assert not await Webhook(url, "discord", SOON if late else 5.0, pauses).send(NOTIFICATION)
    assert pauses == [1.0, 2.0]
    assert late or len(receiver.requests) == 3  # on a busy machine a try may be over before it begins
    assert all(sent.startswith(b"POST /s3cret?a=t0ken HTTP/1.1\r\n") for sent in receiver.requests)
    assert warnings(caplog) == [
        f"The notification of a message could not be sent to 127.0.0.1: {reason}. Check NOTIFY_URL"
    ]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://ada:hunter2@127.0.0.1:{port}/s3cret", "ConnectionRefusedError"),
        ("https://ada:hunter2@127.0.0.1:{port}/s3cret", "ConnectionRefusedError"),
        ("http://127.0.0.1:t0ken/s3cret", "ValueError"),
        ("ftp://127.0.0.1/s3cret", "ValueError"),
        ("file://127.0.0.1/s3cret", "ValueError"),
    ],
)
async def test_no_server_at_all_is_a_failure_like_any_other(
    url: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert not await Webhook(url.format(port=free_port()), "json", sleep=Pauses()).send(NOTIFICATION)
    assert warnings(caplog) == [
        f"The notification of a message could not be sent to 127.0.0.1: {reason}. Check NOTIFY_URL"
    ]


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_server_that_hangs_keeps_no_thread(scheme: str) -> None:
    async with Receiver("drip") as receiver:
        sending = asyncio.create_task(Webhook(receiver.url(scheme=scheme), "json", 60.0).send(NOTIFICATION))
        await receiver.until_asked()
        assert [thread.daemon for thread in threads()] == [True]
        sending.cancel()
        await receiver.until_left()
        await until(lambda: not threads())
    assert sending.cancelled()


async def test_nothing_is_sent_that_was_given_up_before_it_was_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    connect = HTTPConnection.connect

    def connect_late(self: Any) -> None:
        go_on.wait(20)
        connect(self)

    monkeypatch.setattr(HTTPConnection, "connect", connect_late)
    async with Receiver() as receiver:
        sending = asyncio.create_task(Webhook(receiver.url(), "json").send(NOTIFICATION))
        await until(lambda: bool(threads()))
        sending.cancel()
        await asyncio.wait({sending})
        go_on.set()
        await until(lambda: not threads())
    assert receiver.requests == []


async def test_end_of_the_process_waits_for_no_thread() -> None:
    script = """
import asyncio, sys
from app.owner import formats, webhook

async def main():
    webhook._Attempt.cancel = lambda self: None  # so that the thread hangs for good
    notification = formats.Notification("ada", "hi", 0.0)
    sending = asyncio.create_task(webhook.Webhook(sys.argv[1], "json", 600.0).send(notification))
    await asyncio.to_thread(sys.stdin.readline)
    sending.cancel()

asyncio.run(main())
"""
    async with Receiver("never") as receiver:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, receiver.url(), stdin=asyncio.subprocess.PIPE, cwd=ROOT
        )
        await receiver.until_asked()
        try:
            async with asyncio.timeout(20):
                await process.communicate(b"\n")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert process.returncode == 0


async def test_ended_loop_is_not_called() -> None:
    async with Receiver("never") as receiver:
        done = threading.Event()

        async def begin() -> None:
            webhook._Attempt(request("json", receiver.url(), NOTIFICATION), SOON)

        def run() -> None:
            asyncio.run(begin())
            done.set()

        threading.Thread(target=run).start()
        await until(lambda: done.is_set() and not threads())


@pytest.mark.parametrize(("bypassed", "host"), [("", "proxy"), ("127.0.0.1", "server")])
async def test_proxy_of_the_environment_is_used(bypassed: str, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Receiver() as proxy, Receiver() as server:
        monkeypatch.setenv("http_proxy", proxy.url(""))
        monkeypatch.setenv("no_proxy", bypassed)
        assert await Webhook(server.url("/s3cret"), "json").send(NOTIFICATION)
    first = (proxy.requests or server.requests)[0].partition(b"\r\n")[0].decode()
    assert len(proxy.requests) == (host == "proxy")
    assert first == f"POST {server.url('/s3cret') if host == 'proxy' else '/s3cret'} HTTP/1.1"
