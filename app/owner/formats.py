"""Notices to the owner as requests: what each service wants to get, and what it must not make of a visitor's text.

Sends nothing. A visitor gets no link, no mention and no formatting into a notice; the owner's own PUBLIC_URL is a link.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote, unquote, urlsplit, urlunsplit
from urllib.request import Request

Format = Literal["discord", "slack", "ntfy", "json"]

MOST = 1000  # the highest count; it says "or more"
MAX_TEXT = 500  # characters
MAX_DISCORD = 2000  # characters; Discord refuses a longer message
SUPPRESS_EMBEDS = 4  # a flag of Discord's: no preview below the message

# Discord's edge turns away urllib's own name.
_USER_AGENT = "portfolio-backend"
_URL_SAFE = "/:?#[]@!$&'()*+,;=%~"  # RFC 3986, reserved characters, with what is escaped already
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")
_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")
# After these, a zero-width space keeps services from seeing an address or a mention. Besides the dot there are the full
# stops that a browser takes for one (UTS 46).
_LINKING = re.compile(r"(?<=[.:/@#\u3002\uff0e\uff61])(?=\S)")
# Embeddings, overrides and isolates: they would turn around what the notice itself says.
_BIDI = dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)))


@dataclass(frozen=True, slots=True)
class Notification:
    """What the owner is told: the last of `count` messages, and where the chat is.

    `timestamp` is Unix seconds. A `count` of MOST stands for as many or more. `url` is PUBLIC_URL and may be empty.
    """

    username: str
    text: str
    timestamp: float
    count: int = 1
    url: str = ""


def format_of(url: str) -> Format:
    """The format that the host of a URL wants, as far as its name tells; else JSON. Raises ValueError for no URL."""
    host = urlsplit(url).hostname or ""
    if host.endswith((".discord.com", ".discordapp.com")) or host in ("discord.com", "discordapp.com"):
        return "discord"
    if host == "hooks.slack.com":
        return "slack"
    return "ntfy" if host.startswith("ntfy.") else "json"


def request(format: Format, url: str, notice: Notification) -> Request:
    """The POST that tells `notice` to `url`; userinfo in the URL becomes basic authentication.

    Raises ValueError for a URL that is not of http or https, or can't be one.
    """
    body, headers = _BODIES[format](notice)
    address, credentials = _address(url)
    headers = {"User-Agent": _USER_AGENT, **headers, **credentials}
    return Request(address, data=body, headers=headers, method="POST")  # noqa: S310 (_address checks the scheme)


def _address(url: str) -> tuple[str, Mapping[str, str]]:
    """A URL in ASCII, without spaces, quotes, `<`, `>` or `|`; and its userinfo as a header. Raises ValueError."""
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


def _heading(notice: Notification) -> str:
    name = _NOT_IN_NAMES.sub("?", notice.username)
    when = time.strftime("at %H:%M UTC", time.gmtime(notice.timestamp))
    if notice.count == 1:
        return f"{name} wrote {when}"
    count = f"{MOST} or more" if notice.count >= MOST else str(notice.count)
    return f"{count} new messages, the last from {name} {when}"


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1].rstrip() + "…"


def _unlinked(text: str) -> str:
    """The text, cut, with nothing in it that looks like an address or a mention to a program."""
    return _LINKING.sub("\u200b", _cut(text.translate(_BIDI)))


def _json(content: Mapping[str, Any]) -> tuple[bytes, Mapping[str, str]]:
    return json.dumps(content).encode(), {"Content-Type": "application/json"}


def _plain_json(notice: Notification) -> tuple[bytes, Mapping[str, str]]:
    """For programs, so the text is as typed."""
    return _json(
        {
            "event": "message",
            "username": notice.username,
            "text": _cut(notice.text),
            "timestamp": notice.timestamp,
            "count": notice.count,
            "url": notice.url,
        }
    )


def _discord(notice: Notification) -> tuple[bytes, Mapping[str, str]]:
    """Discord shows Markdown, and a backslash before any punctuation takes its meaning from it, a URL's too."""
    heading, text = (_PUNCTUATION.sub(r"\\\1", part) for part in (_heading(notice), _cut(notice.text.translate(_BIDI))))
    content = f"**{heading}:**\n{text}"
    link = f"\n<{_address(notice.url)[0]}>" if notice.url else ""
    if len(content + link) <= MAX_DISCORD:
        content += link
    return _json({"content": content, "allowed_mentions": {"parse": []}, "flags": SUPPRESS_EMBEDS})


def _slack(notice: Notification) -> tuple[bytes, Mapping[str, str]]:
    """In Slack `&`, `<` and `>` are escaped everywhere; only `mrkdwn` has formatting, and that is for the link alone.

    `text` is what notifications show. It is read as addresses are looked for, so it holds nothing but the heading.
    """
    blocks: list[dict[str, Any]] = [
        {"type": "section", "text": {"type": "plain_text", "text": text, "emoji": False}}
        for text in (f"{_heading(notice)}:", _slack_escaped(_unlinked(notice.text)))
    ]
    if notice.url:
        link = f"<{_slack_escaped(_address(notice.url)[0])}>"
        blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": link, "verbatim": True}})
    off = {"mrkdwn": False, "link_names": False, "unfurl_links": False, "unfurl_media": False}
    return _json({"text": _heading(notice), "blocks": blocks, **off})


def _slack_escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _ntfy(notice: Notification) -> tuple[bytes, Mapping[str, str]]:
    """Without a Markdown header ntfy shows text as it is, but its apps make links of addresses."""
    headers = {"Content-Type": "text/plain; charset=utf-8", "Title": _heading(notice)}
    if notice.url:
        headers["Click"] = _address(notice.url)[0]
    return _unlinked(notice.text).encode("utf-8", "replace"), headers


_BODIES: Mapping[Format, Callable[[Notification], tuple[bytes, Mapping[str, str]]]] = {
    "discord": _discord,
    "slack": _slack,
    "ntfy": _ntfy,
    "json": _plain_json,
}
