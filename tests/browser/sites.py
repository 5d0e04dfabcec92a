"""What the widget meets: sites of other origins that carry it, and rooms that do what a test says."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol

from app.web.pages import STATIC

STRICT = (
    "default-src 'none'; script-src {origin}; connect-src {origin} {socket}; base-uri 'none'; form-action 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
PAGE = """<!doctype html><html lang="{lang}" dir="{dir}"><meta charset="utf-8"><title>A portfolio</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<script src="{script}" defer></script><body><main><h1>A portfolio</h1><p>Some text of the page.</p>{body}</main>
</html>"""

Frame = dict[str, Any]


class Site:
    """One page with the widget, on a web server of its own. Leaving the context ends it.

    `chat`: the chat server's address; without one the site serves the widget itself. `strict`: with a
    Content-Security-Policy that allows that server and nothing else.
    """

    def __init__(
        self, body: str = "", chat: str = "", strict: bool = False, lang: str = "en", dir: str = "ltr"
    ) -> None:
        page = PAGE.format(lang=lang, dir=dir, body=body, script=f"{chat}/widget.js")
        policy = STRICT.format(origin=chat or "'self'", socket=chat.replace("http", "ws")) if strict else ""

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                script = self.path == "/widget.js"
                self.send_response(200)
                self.send_header("Content-Type", f"text/{'javascript' if script else 'html'}; charset=utf-8")
                if policy:
                    self.send_header("Content-Security-Policy", policy)
                self.end_headers()
                self.wfile.write((STATIC / "widget.js").read_bytes() if script else page.encode())

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.origin = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class ScriptedRoom:
    """A chat server: lets everybody in, then does what `play` does with the connection. `heartbeat`: seconds."""

    def __init__(self, play: Callable[[ScriptedRoom, Visit], object], heartbeat: float = 30.0) -> None:
        self.heartbeat = heartbeat
        self.visits: list[Visit] = []

        def handle(socket: ServerConnection) -> None:
            visit = Visit(socket)
            self.visits.append(visit)
            with contextlib.suppress(ConnectionClosed):
                play(self, visit)

        self._server = serve(handle, "127.0.0.1", 0, subprotocols=[Subprotocol("chat.v1")], compression=None)
        self.origin = f"http://127.0.0.1:{self._server.socket.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()

    def welcome(self, visit: Visit, *messages: Frame, recovered: bool = False, **session: Any) -> None:
        """History and session, as the protocol has them."""
        seq = max([message["seq"] for message in messages], default=0)
        visit.send("history", list(messages), recovered=recovered)
        known = {
            "username": visit.query["username"],
            "role": "visitor",
            "token": "s1.a.b.c",
            "epoch": "first",
            "seq": seq,
        }
        beats = {"heartbeat_interval": self.heartbeat, "heartbeat_timeout": 60, "max_message_length": 1000}
        visit.send("session", known | beats | session)


class Visit:
    """One connection to a scripted room."""

    def __init__(self, socket: ServerConnection) -> None:
        assert socket.request
        self.socket = socket
        self.query = {name: values[0] for name, values in parse_qs(urlsplit(socket.request.path).query).items()}
        self.offered = socket.request.headers.get("Sec-WebSocket-Protocol", "")

    def send(self, kind: str, data: object = None, **more: Any) -> None:
        """One frame."""
        self.socket.send(json.dumps({"type": kind, "data": data, **more}))

    def refuse(self, code: str, message: str, close: int, **data: Any) -> None:
        """An error frame and the end."""
        self.send("error", {"code": code, **data}, message=message)
        self.socket.close(close)

    def read(self) -> Frame:
        """The next frame."""
        frame: Frame = json.loads(self.socket.recv())
        return frame

    def stay(self) -> None:
        """Reads until the end."""
        for _ in self.socket:
            pass


def message(seq: int, words: str, username: str = "bob", **more: Any) -> Frame:
    """The data of a message."""
    own = {"id": str(uuid.uuid4()), "seq": seq, "username": username, "content": words, "timestamp": time.time()}
    return own | more
