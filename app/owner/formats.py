"""Notifications to the owner as HTTP requests, in the format of each service.

A visitor can't get a link, a mention or formatting into a notification. The owner's own PUBLIC_URL becomes a link.
"""

from __future__ import annotations

import base64
import html
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal
from urllib.parse import quote, unquote, urlsplit, urlunsplit
from urllib.request import Request

Format = Literal["discord", "slack", "ntfy", "json"]
Body = tuple[bytes, Mapping[str, str]]  # and its headers

MAX_COUNT = 1000  # stands for as many or more
MAX_TEXT = 500  # characters
MAX_DISCORD = 2000  # characters; Discord refuses a longer message
SUPPRESS_EMBEDS = 4  # a flag of Discord's: no preview below the message

_USER_AGENT = "portfolio-backend"  # Discord refuses urllib's own
_URL_SAFE = "/:?#[]@!$&'()*+,;=%~"  # the reserved characters of RFC 3986, and % of escapes
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")
_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")
# A zero-width space after these keeps services from seeing an address or a mention. The last three are full stops that
# a browser takes for a dot (UTS 46).
_LINKING = re.compile(r"(?<=[.:/@#\u3002\uff0e\uff61])(?=\S)")
# Embeddings, overrides and isolates, which would turn around the words around the text.
_BIDI = dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)))


@dataclass(frozen=True, slots=True)
class Notification:
    """The last of `count` new messages. `timestamp` is Unix seconds, `url` is PUBLIC_URL or empty."""

    username: str
    text: str
    timestamp: float
    count: int = 1
    url: str = ""


def format_of(url: str) -> Format:
    """Guesses the format of a URL from its host; "json" for an unknown one. Raises ValueError for no URL."""
    host = urlsplit(url).hostname or ""
    if host.endswith((".discord.com", ".discordapp.com")) or host in ("discord.com", "discordapp.com"):
        return "discord"
    if host == "hooks.slack.com":
        return "slack"
    return "ntfy" if host.startswith("ntfy.") else "json"


def request(format: Format, url: str, notification: Notification) -> Request:
    """Makes the POST of a notification to `url`. Userinfo in the URL becomes basic authentication.

    Raises ValueError for anything but a valid http or https URL.
    """
    body, headers = _BODIES[format](notification)
    address, credentials = _address(url)
    headers = {"User-Agent": _USER_AGENT, **headers, **credentials}
    return Request(address, data=body, headers=headers, method="POST")  # noqa: S310 (_address checks the scheme)


def _address(url: str) -> tuple[str, Mapping[str, str]]:
    """Returns a URL in ASCII without spaces, quotes, `<`, `>` and `|`, and its userinfo as a header."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("no web address")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname.encode("idna").decode()
    netloc = host if parts.port is None else f"{host}:{parts.port}"
    rest = (quote(part, safe=_URL_SAFE) for part in (parts.path or "/", parts.query, parts.fragment))
    address = urlunsplit((parts.scheme, netloc, *rest))
    if parts.username is None:
        return address, {}
    userinfo = unquote(f"{parts.username}:{parts.password or ''}").encode()
    return address, {"Authorization": f"Basic {base64.b64encode(userinfo).decode()}"}


def _heading(notification: Notification) -> str:
    name = _NOT_IN_NAMES.sub("?", notification.username)
    when = time.strftime("at %H:%M UTC", time.gmtime(notification.timestamp))
    if notification.count == 1:
        return f"{name} wrote {when}"
    count = f"{MAX_COUNT} or more" if notification.count >= MAX_COUNT else str(notification.count)
    return f"{count} new messages, the last from {name} {when}"


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1].rstrip() + "…"


def _unlinked(text: str) -> str:
    """Returns the text, cut, without anything that a program takes for an address or a mention."""
    return _LINKING.sub("\u200b", _cut(text.translate(_BIDI)))


def _json(content: Mapping[str, Any]) -> Body:
    return json.dumps(content).encode(), {"Content-Type": "application/json"}


def _plain_json(notification: Notification) -> Body:
    """For programs, so the text is as typed."""
    return _json({"event": "message", **asdict(notification), "text": _cut(notification.text)})


def _discord(notification: Notification) -> Body:
    """Discord shows Markdown, where a backslash before punctuation removes its meaning, also inside a URL."""
    parts = (_heading(notification), _cut(notification.text.translate(_BIDI)))
    heading, text = (_PUNCTUATION.sub(r"\\\1", part) for part in parts)
    content = f"**{heading}:**\n{text}"
    link = f"\n<{_address(notification.url)[0]}>" if notification.url else ""
    if len(content + link) <= MAX_DISCORD:
        content += link
    return _json({"content": content, "allowed_mentions": {"parse": []}, "flags": SUPPRESS_EMBEDS})


def _slack(notification: Notification) -> Body:
    """Slack wants `&`, `<` and `>` escaped everywhere. Only `mrkdwn` has formatting, and is used for the link alone.

    `text` is shown in Slack's own notifications. Slack looks for addresses in it, so it is only the heading.
    """
    blocks: list[dict[str, Any]] = [
        {"type": "section", "text": {"type": "plain_text", "text": text, "emoji": False}}
        for text in (f"{_heading(notification)}:", html.escape(_unlinked(notification.text), quote=False))
    ]
    if notification.url:
        link = f"<{html.escape(_address(notification.url)[0], quote=False)}>"
        blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": link, "verbatim": True}})
    off = {"mrkdwn": False, "link_names": False, "unfurl_links": False, "unfurl_media": False}
    return _json({"text": _heading(notification), "blocks": blocks, **off})


def _ntfy(notification: Notification) -> Body:
    """ntfy shows text as it is unless a header asks for Markdown, but its apps make links of addresses."""
    headers = {"Content-Type": "text/plain; charset=utf-8", "Title": _heading(notification)}
    if notification.url:
        headers["Click"] = _address(notification.url)[0]
    return _unlinked(notification.text).encode("utf-8", "replace"), headers


_BODIES: Mapping[Format, Callable[[Notification], Body]] = {
    "discord": _discord,
    "slack": _slack,
    "ntfy": _ntfy,
    "json": _plain_json,
}
