"""Sends notifications to one URL: a few tries, each with a time limit, in threads that delay nothing.

The URL and the receiver's answers are secret: the log gets only the host and the kind of failure.
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

TIMEOUT = 5.0  # seconds for one try, from the DNS lookup to the last header of the answer
PAUSES = (1.0, 2.0)  # seconds before the second and the third try

logger = logging.getLogger(__name__)


class Webhook:
    """The URL that notifications are sent to. `timeout`: seconds for one try."""

    def __init__(
        self,
        url: str,
        format: Format,
        timeout: float = TIMEOUT,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._url, self._format = url, format
        self._timeout, self._sleep = timeout, sleep

    async def send(self, notification: Notification) -> bool:
        """Sends a notification, in three tries at most. Returns whether it arrived. Never raises; logs a failure."""
        reason = await self._try(notification)
        for pause in PAUSES:
            if not reason:
                return True
            await self._sleep(pause)
            reason = await self._try(notification)
        if reason:
            what = "a message" if notification.count == 1 else f"{notification.count} messages"
            host = urlsplit(self._url).hostname
            logger.warning("The notification of %s could not be sent to %s: %s. Check NOTIFY_URL", what, host, reason)
        return not reason

    async def _try(self, notification: Notification) -> str:
        """Tries once. Returns the reason of a failure in a word or two, or nothing."""
        try:
            attempt = _Attempt(formats.request(self._format, self._url, notification), self._timeout)
        except Exception as error:  # an invalid URL, or no thread to be had: the chat goes on
            return _kind(error)
        try:
            async with asyncio.timeout(self._timeout):
                return await attempt.failure
        except TimeoutError as error:
            return _kind(error)
        finally:
            attempt.cancel()


class _Attempt:
    """One request, in a daemon thread of its own, because any other thread would delay the end of the process.

    `failure` is the reason of a failure, or empty. `timeout`: seconds for each step; the caller limits the whole.
    """

    def __init__(self, request: urllib.request.Request, timeout: float) -> None:
        self._request = request
        self._timeout = timeout
        self._lock = threading.Lock()  # guards the next two, which both threads use
        self._socket: socket.socket | None = None
        self._cancelled = False
        self._loop = asyncio.get_running_loop()
        self.failure: asyncio.Future[str] = self._loop.create_future()
        threading.Thread(target=self._run, name="notification", daemon=True).start()

    def cancel(self) -> None:
        """Ends the thread soon, wherever it is. Safe to call when the request is done, and again.

        Closing the socket is needed because a server that sends a byte now and then never lets a step time out.
        """
        with self._lock:
            self._cancelled = True
            if self._socket:
                with contextlib.suppress(OSError):  # the other side was faster
                    self._socket.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        failure = ""
        try:
            with _opener(self._keep).open(self._request, timeout=self._timeout):
                pass  # the status is enough
        except urllib.error.HTTPError as error:
            error.close()
            failure = f"HTTP {error.code}"
        except Exception as error:  # anything that can go wrong between two machines, and in a library
            failure = _kind(error)
        with self._lock:
            if self._socket:
                self._socket.close()
                self._socket = None
        with contextlib.suppress(RuntimeError):  # the loop is closed: nothing waits any more
            self._loop.call_soon_threadsafe(self._finish, failure)

    def _finish(self, failure: str) -> None:
        if not self.failure.done():
            self.failure.set_result(failure)

    def _keep(self, connected: socket.socket) -> None:
        with self._lock:
            if self._cancelled:
                raise TimeoutError
            self._socket = connected.dup()  # TLS takes the socket itself away


def _opener(keep: Callable[[socket.socket], None]) -> urllib.request.OpenerDirector:
    """Makes an opener of http and https alone, through the environment's proxies. Calls `keep` with each new socket.

    There is no handler for redirects: one could lead the secret elsewhere, so it counts as a failure.
    """

    class Plain(http.client.HTTPConnection):
        def connect(self) -> None:
            super().connect()
            keep(self.sock)

    class Secure(http.client.HTTPSConnection, Plain):
        """TLS over such a socket: HTTPSConnection lets the next class in order open it."""

    class Sockets(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Plain, req)

        def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Secure, req)

    opener = urllib.request.OpenerDirector()
    opener.add_handler(urllib.request.ProxyHandler())
    opener.add_handler(Sockets())
    opener.add_handler(urllib.request.HTTPDefaultErrorHandler())
    opener.add_handler(urllib.request.HTTPErrorProcessor())
    return opener


def _kind(error: BaseException) -> str:
    """Returns the name of an error, never its text, which may quote anything."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    return type(cause if isinstance(cause, BaseException) else error).__name__
