"""What the widget meets: sites of other origins that carry it, and rooms that do what a test says."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol

from app.web.pages import STATIC

STRICT = (
    "default-src 'none'; script-src {origin}; connect-src {origin} {socket}; base-uri 'none'; form-action 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
PAGE = """<!doctype html><html lang="{lang}" dir="{dir}"><meta charset="utf-8"><title>A portfolio</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
{head}<body><main><h1>A portfolio</h1><p>Some text of the page.</p>{body}</main>
</html>"""

LINE = '<script src="{chat}/widget.js" defer></script>'

Frame = dict[str, Any]


class Site:
    """One page with the widget, on a web server of its own. Leaving the context ends it.

    `chat`: the chat server's address; without one the site serves the widget itself. `strict`: with a
    Content-Security-Policy that allows that server and nothing else. `head`: instead of the line with the script;
    `{chat}` in it is the server.
    """

    def __init__(
        self,
        body: str = "",
        chat: str = "",
        strict: bool = False,
        lang: str = "en",
        dir: str = "ltr",
        head: str = LINE,
    ) -> None:
        page = PAGE.format(lang=lang, dir=dir, body=body, head=head.replace("{chat}", chat))
        policy = STRICT.format(origin=chat or "'self'", socket=chat.replace("http", "ws")) if strict else ""

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                script = self.path.startswith("/widget")
                self.send_response(200)
                self.send_header("Content-Type", f"text/{'javascript' if script else 'html'}; charset=utf-8")
                if policy:
                    self.send_header("Content-Security-Policy", policy)
                self.end_headers()
                self.wfile.write((STATIC / self.path[1:]).read_bytes() if script else page.encode())

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


class BuiltSite:
    """A site of several pages, built from npm packages, on a web server of its own. Leaving the context ends it.

    `folder`: of its files. `chat`: the address of the chat server whose widget its pages have.
    """

    def __init__(self, folder: Path, chat: str) -> None:
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = folder / self.path[1:]
                script = path.suffix == ".js"
                file = path if script else path.with_suffix(".html")
                found = file.is_file() and file.is_relative_to(folder)
                self.send_response(200 if found else 404)
                self.send_header("Content-Type", f"text/{'javascript' if script else 'html'}; charset=utf-8")
                self.end_headers()
                if found:
                    self.wfile.write(file.read_text().replace("http://chat.invalid", chat).encode())

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
    """A chat server: lets everybody in, then does what `play` does with the connection. `heartbeat`: seconds.

    `history`: what it answers to those who only look.
    """

    def __init__(self, play: Callable[[ScriptedRoom, Visit], object], heartbeat: float = 30.0) -> None:
        self.heartbeat = heartbeat
        self.visits: list[Visit] = []

        def handle(socket: ServerConnection) -> None:
            visit = Visit(socket)
            self.visits.append(visit)
            with contextlib.suppress(ConnectionClosed):
                play(self, visit)

        def answer(connection: ServerConnection, request: Request) -> Response | None:
            if request.path.startswith("/ws/"):
                return None
            response = connection.respond(200, json.dumps(self.history))
            response.headers["Access-Control-Allow-Origin"] = "*"
            return response

        self.history: Frame = {"data": [], "epoch": None, "seq": 0, "active_users": 0, "owner_online": False}
        self._server = serve(
            handle,
            "127.0.0.1",
            0,
            subprotocols=[Subprotocol("chat.v1")],
            compression=None,
            process_request=answer,
        )
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
            "author": f"author of {visit.query['username']}",
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
    own = {"id": str(uuid.uuid4()), "seq": seq, "username": username, "author": f"author of {username}"}
    return own | {"content": words, "timestamp": time.time()} | more
