"""What is let in: origins, addresses, usernames, and message text with its escaping. The only user of bleach.

Knows nothing of connections. Escaping is the protection; refusing markup (`blocks`) only spares the readers.
"""

from __future__ import annotations

import html
import ipaddress
import re
import unicodedata
from collections.abc import Sequence
from urllib.parse import urlsplit

import bleach

from app.exceptions import BlockedContent, EmptyMessage, InvalidUsername, MessageTooLong

LOOPBACK = ("127.0.0.0/8", "::1")
DEFAULT_PORTS = {"http": 80, "https": 443}
_USERNAME = re.compile(r"[A-Za-z0-9_-]+")
# C0 and C1 controls but for tab and newline: invisible, and a terminal or a log would obey some of them.
_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f][\x00-\x08\x0b-\x1f\x7f-\x9f]*+"
)  # `+` alone is searched for slowly
# Letters, marks and symbols that draw nothing (Unicode's Default_Ignorable_Code_Point outside category Cf, and the
# blank Braille pattern).
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0") | frozenset(
    map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)))
)


def origin_of(text: str) -> tuple[str, str, int] | None:
    """Scheme, host and port of an origin (RFC 6454), a default port as if it were written; None when it is none."""
    try:
        parts = urlsplit(text)
        port = DEFAULT_PORTS.get(parts.scheme, 0) if parts.port is None else parts.port
    except ValueError:
        return None
    whole = f"{parts.scheme}://{parts.netloc}".lower()
    if not parts.hostname or "@" in parts.netloc or text.lower().removesuffix("/") != whole:
        return None
    return parts.scheme, parts.hostname, port


def origin_allowed(sent: Sequence[str], own: Sequence[str], listed: Sequence[str]) -> bool:
    """Whether a WebSocket handshake with these Origin headers is let in (OWASP WebSocket Security, CSWSH).

    `own`: the server's own origins, `listed`: CORS_ORIGINS. Without the header it is no browser that asks.
    """
    if not sent or "*" in listed:
        return True
    origin = origin_of(sent[0]) if len(sent) == 1 else None
    return origin is not None and any(origin == origin_of(one) for one in (*own, *listed))


def limit_key(host: str, hidden: bool) -> str | None:
    """What limits by address count by: an IPv4 address or an IPv6 /64. None: they don't apply.

    `hidden`: the peer sent forwarded addresses that are not believed. If it is in a private or shared network it is a
    proxy that nobody configured, and all visitors share it.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None  # a Unix socket, say
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    if hidden and not address.is_global:
        return None
    return str(ipaddress.ip_network((address, 64), strict=False) if address.version == 6 else address)


def is_shared(key: str, proxies: Sequence[str]) -> bool:
    """Whether a limit key may be many people's: it has this machine in it, or one of these addresses or networks."""
    own = ipaddress.ip_network(key)
    networks = [ipaddress.ip_network(network, strict=False) for network in (*LOOPBACK, *proxies)]
    return any(network.version == own.version and network.overlaps(own) for network in networks)


def check_username(raw: str | None, max_length: int) -> str:
    """The username, if it is one. Raises InvalidUsername."""
    if not raw or len(raw) > max_length or not _USERNAME.fullmatch(raw):
        raise InvalidUsername(max_length)
    return raw


def clean_text(raw: str, max_length: int, block_markup: bool) -> str:
    """Message text as it is stored: newlines are `\\n`, control characters gone, else as typed.

    `max_length` counts characters. Raises MessageTooLong, EmptyMessage or BlockedContent.
    """
    text = _CONTROL.sub("", raw.replace("\r\n", "\n").replace("\r", "\n"))
    if len(text) > max_length:
        raise MessageTooLong(len(text), max_length)
    if not any(map(_visible, text)):
        raise EmptyMessage
    if block_markup and runs(text):
        raise BlockedContent
    return text


def _visible(char: str) -> bool:
    # Z*: spaces and separators; C*: controls, format characters, unassigned code points.
    return unicodedata.category(char)[0] not in "ZC" and char not in _BLANK


# bleach needs some 5 µs for each entity, which in a long text would hold up the room. So a long text goes to bleach if
# the first layer left anything in it that bleach could change: `<`, `>`, or an `&` that begins none of our entities.
BLEACH_ALWAYS = 300  # characters of escaped text up to which bleach cleans whatever holds one of the three
_NO_ENTITIES = re.compile("[^<>&]*+")
_OUR_ENTITIES = re.compile("[^<>&]*+(?:&(?:amp|lt|gt);[^<>&]*+)*+")
_cleaner = bleach.Cleaner(tags=set())


def escape(text: str) -> str:
    """Text as HTML element content: no `<` or `>`, nothing lost. (Not for use inside an attribute.)

    Escaping comes first, so that bleach, which drops what looks like markup, finds none to drop (OWASP XSS
    Prevention, rule for HTML element content). The result is always the one that bleach gives, called or not.
    """
    escaped = html.escape(text, quote=False)
    harmless = _NO_ENTITIES if len(escaped) <= BLEACH_ALWAYS else _OUR_ENTITIES
    return escaped if harmless.fullmatch(escaped) else _cleaner.clean(escaped)


# Markup that would run, found as the HTML tokenizer finds it (WHATWG HTML, section 13.2.5), but from every `<` on,
# because quotes and comments can hide from a reader what a browser sees.
_ELEMENT = re.compile(r"<(?:script|iframe|object|embed)(?=[\s/>]|$)", re.IGNORECASE)
_TAG = re.compile(r"<[a-z][^\s/>]*+", re.IGNORECASE | re.ASCII)
_ATTRIBUTE = re.compile(
    r"""[\s/]*+([^\s/>][^\s/>=]*+)(?:\s*=\s*(?:"([^"]*)"?|'([^']*)'?|([^\s>"'][^\s>]*)))?""", re.ASCII
)
_URL_SPACE = re.compile(r"[\x00-\x20]")
_URL_ATTRIBUTES = {
    "action", "background", "cite", "code", "codebase", "data", "dynsrc", "formaction", "from", "href", "longdesc",
    "lowsrc", "manifest", "ping", "poster", "profile", "src", "srcset", "to", "usemap", "values", "xlink:href",
}  # fmt: skip


def runs(text: str) -> bool:
    """Whether text, taken as HTML, would run: an active element, an event handler, a `javascript:` URL."""
    return bool("<" in text and (_ELEMENT.search(text) or _has_running_attribute(text)))


def _has_running_attribute(text: str) -> bool:
    # Each character is looked at once: a tag inside another's attributes joins its parse, and one that begins inside an
    # unquoted value is none, for nothing that could hide a tag from us ends without the `>` that ends the value.
    seen: set[int] = set()
    unquoted_until = 0
    for tag in _TAG.finditer(text):
        position = tag.end() if tag.start() >= unquoted_until else -1
        while position >= 0 and position not in seen and (attribute := _ATTRIBUTE.match(text, position)):
            seen.add(position)
            position = attribute.end()
            group = attribute.lastindex or 1  # that of the value, where there is one
            if group > 1 and _runs_as_attribute(attribute[1].lower(), attribute[group]):
                return True
            if group == 4:
                unquoted_until = max(unquoted_until, position)
    return False


def _runs_as_attribute(name: str, value: str) -> bool:
    if name.startswith("on") and name[2:].isalpha():
        return bool(value.strip()) and not value.startswith("=")  # `a<b && onclose == c` is no handler
    if name in _URL_ATTRIBUTES:
        urls = _URL_SPACE.sub("", html.unescape(value)).lower().split(";" if name == "values" else "\n")
        return any(url.startswith(("javascript:", "vbscript:")) for url in urls)
    return False
