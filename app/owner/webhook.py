"""Sends notices to one URL: a few tries, each with an end, in threads that nothing waits for.

The URL is a secret, and so is whatever the receiver answers: the log gets the host and the kind of failure alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import logging
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from app.owner import formats
from app.owner.formats import Format, Notification

TIMEOUT = 5.0  # seconds for a try, from the name look-up to the answer's last header
PAUSES = (1.0, 2.0)  # seconds before the second and the third try

logger = logging.getLogger(__name__)


class Webhook:
    """Where notices go."""

    def __init__(
        self,
        url: str,
        format: Format,
        timeout: float = TIMEOUT,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._url = url
        self._format = format
        self._timeout = timeout
        self._sleep = sleep

    async def send(self, notice: Notification) -> bool:
        """Whether the notice arrived, after three tries at most. Raises nothing: a failure is logged here."""
        reason = await self._try(notice)
        for pause in PAUSES:
            if not reason:
                break
            await self._sleep(pause)
            reason = await self._try(notice)
        if reason:
            what = "a message" if notice.count == 1 else f"{notice.count} messages"
            host = urlsplit(self._url).hostname
            logger.warning("The notice of %s could not be sent to %s: %s. Check NOTIFY_URL", what, host, reason)
        return not reason

    async def _try(self, notice: Notification) -> str:
        """Why it failed, in a word or two; nothing when it arrived."""
        try:
            post = _Post(formats.request(self._format, self._url, notice), self._timeout)
        except Exception as error:  # a URL that is none, or no thread to be had: the chat goes on
            return _kind(error)
        try:
            async with asyncio.timeout(self._timeout):
                return await post.failure
        except TimeoutError as error:
            return _kind(error)
        finally:
            post.give_up()


class _Post:
    """One request, in a daemon thread of its own: any other would hold up the end of the process until it is over.

    `failure` is what went wrong, empty when nothing did.
    """

    def __init__(self, request: urllib.request.Request, timeout: float) -> None:
        self._request = request
        self._timeout = timeout  # seconds for each step; those of all steps are counted by whoever waits
        self._lock = threading.Lock()  # guards what follows: both threads use the line
        self._line: socket.socket | None = None
        self._given_up = False
        self._loop = asyncio.get_running_loop()
        self.failure: asyncio.Future[str] = self._loop.create_future()
        threading.Thread(target=self._run, name="notice", daemon=True).start()

    def give_up(self) -> None:
        """Ends the thread soon, wherever it is, without a request that nobody waits for. Safe to call when all is over.

        A server that sends a byte now and then never lets a step time out, but no read outlives its line.
        """
        with self._lock:
            self._given_up = True
            if self._line:
                with contextlib.suppress(OSError):  # the other side was faster
                    self._line.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        failure = self._failure()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._settle, failure)

    def _settle(self, failure: str) -> None:
        if not self.failure.done():
            self.failure.set_result(failure)

    def _failure(self) -> str:
        try:
            with _opener(self._keep).open(self._request, timeout=self._timeout):
                return ""  # the status has come, and nobody reads the rest
        except urllib.error.HTTPError as error:
            error.close()
            return f"HTTP {error.code}"
        except Exception as error:  # all that can go wrong between two machines, and in a library
            return _kind(error)
        finally:
            with self._lock:
                if self._line:
                    self._line.close()
                    self._line = None

    def _keep(self, line: socket.socket) -> None:
        with self._lock:
            if self._given_up:
                raise TimeoutError
            self._line = line.dup()  # TLS takes the socket itself away


def _opener(keep: Callable[[socket.socket], None]) -> urllib.request.OpenerDirector:
    """What opens http and https alone, through the environment's proxies; each new line is handed to `keep`.

    Redirects are failures, for a redirect could lead the secret elsewhere: there is no handler for them.
    """

    class Plain(http.client.HTTPConnection):
        def connect(self) -> None:
            super().connect()
            keep(self.sock)

    class Secure(http.client.HTTPSConnection, Plain):
        """TLS over such a line: HTTPSConnection has the next class in order open it."""

    class Lines(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Plain, req)

        def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Secure, req)

    opener = urllib.request.OpenerDirector()
    opener.add_handler(urllib.request.ProxyHandler())
    opener.add_handler(Lines())
    opener.add_handler(urllib.request.HTTPDefaultErrorHandler())
    opener.add_handler(urllib.request.HTTPErrorProcessor())
    return opener


def _kind(error: BaseException) -> str:
    """The name of an error, never its text, which may quote anything."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    return type(cause if isinstance(cause, BaseException) else error).__name__
