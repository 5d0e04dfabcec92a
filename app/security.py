"""Checks what is let in: origins, addresses, usernames and message text, and escapes text. The only user of bleach.

Escaping is the protection. Refusing active markup (`has_active_markup`) only spares the readers the sight of it.
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
# C0 and C1 controls but for tab and newline: invisible, and some of them would drive a terminal. (The set is there
# twice because a search for a repeated set is slow.)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f][\x00-\x08\x0b-\x1f\x7f-\x9f]*+")
# Letters, marks and symbols that show nothing (Unicode's Default_Ignorable_Code_Point outside category Cf, and the
# blank Braille pattern).
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0") | frozenset(
    map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)))
)


def origin_of(text: str) -> tuple[str, str, int] | None:
    """Returns scheme, host and port of an origin (RFC 6454), default ports included, or None for anything else."""
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
    """Returns whether a WebSocket handshake with these Origin headers is let in (OWASP WebSocket Security, CSWSH).

    `own`: the server's own origins, `listed`: CORS_ORIGINS. A client that sends no such header is no browser.
    """
    if not sent or "*" in listed:
        return True
    origin = origin_of(sent[0]) if len(sent) == 1 else None
    return origin is not None and any(origin == origin_of(one) for one in (*own, *listed))


def limit_key(host: str, hidden: bool) -> str | None:
    """Returns the key of limits by address: an IPv4 address or an IPv6 /64; None where they don't apply.

    `hidden`: the peer sent forwarded addresses that are not trusted. In a private or shared network, such a peer is a
    proxy that is not configured, and all visitors share its address.
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
    """Returns whether many users may share a limit key, because it holds this machine, or one of these proxies."""
    own = ipaddress.ip_network(key)
    networks = [ipaddress.ip_network(network, strict=False) for network in (*LOOPBACK, *proxies)]
    return any(network.version == own.version and network.overlaps(own) for network in networks)


def check_username(raw: str | None, max_length: int) -> str:
    """Returns the username unchanged. Raises InvalidUsername."""
    if not raw or len(raw) > max_length or not _USERNAME.fullmatch(raw):
        raise InvalidUsername(max_length)
    return raw


def clean_text(raw: str, max_length: int, block_markup: bool) -> str:
    """Returns message text as it is stored: newlines are `\\n`, control characters are removed, the rest is as typed.

    `max_length` counts characters. Raises MessageTooLong, EmptyMessage or BlockedContent.
    """
    text = _CONTROL.sub("", raw.replace("\r\n", "\n").replace("\r", "\n"))
    if len(text) > max_length:
        raise MessageTooLong(len(text), max_length)
    # Z*: spaces and separators; C*: controls, format characters, unassigned code points.
    if all(unicodedata.category(char)[0] in "ZC" or char in _BLANK for char in text):
        raise EmptyMessage
    if block_markup and has_active_markup(text):
        raise BlockedContent
    return text


# bleach takes some 5 µs for each entity, which in a long text would hold up the room. So a long text goes there only if
# escaping left anything that bleach could change: `<`, `>`, or an `&` that begins none of our entities.
BLEACH_ALWAYS = 300  # characters of escaped text up to which anything with one of the three goes to bleach
_NO_ENTITIES = re.compile("[^<>&]*+")
_OUR_ENTITIES = re.compile("[^<>&]*+(?:&(?:amp|lt|gt);[^<>&]*+)*+")
_cleaner = bleach.Cleaner(tags=set())


def escape(text: str) -> str:
    """Returns text as HTML element content: no `<` or `>`, and nothing lost. (Not for use inside an attribute.)

    Escaping comes first, so that bleach, which drops anything like markup, finds nothing to drop (OWASP XSS Prevention,
    rule for HTML element content). The result is the same whether bleach is called or not.
    """
    escaped = html.escape(text, quote=False)
    harmless = _NO_ENTITIES if len(escaped) <= BLEACH_ALWAYS else _OUR_ENTITIES
    return escaped if harmless.fullmatch(escaped) else _cleaner.clean(escaped)


# Active markup is found as the HTML tokenizer finds it (WHATWG HTML, section 13.2.5), but from every `<` on, because
# quotes and comments can hide from a parser what a browser sees.
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


def has_active_markup(text: str) -> bool:
    """Returns whether text, taken as HTML, has an active element, an event handler or a `javascript:` URL.

    Linear in the length of the text: each character is parsed once. A tag inside another's attributes joins its parse.
    One that begins inside an unquoted value is none, because anything that could hide a tag from us ends only at the
    `>` that ends the value.
    """
    if "<" not in text:
        return False
    if _ELEMENT.search(text):
        return True
    seen: set[int] = set()
    unquoted_until = 0
    for tag in _TAG.finditer(text):
        position = tag.end() if tag.start() >= unquoted_until else -1
        while position >= 0 and position not in seen and (attribute := _ATTRIBUTE.match(text, position)):
            seen.add(position)
            position = attribute.end()
            group = attribute.lastindex or 1  # the value's, where there is a value
            if group > 1 and _is_active(attribute[1].lower(), attribute[group]):
                return True
            if group == 4:
                unquoted_until = max(unquoted_until, position)
    return False


def _is_active(name: str, value: str) -> bool:
    if name.startswith("on") and name[2:].isalpha():
        return bool(value.strip()) and not value.startswith("=")  # `a<b && onclose == c` is no handler
    if name in _URL_ATTRIBUTES:
        urls = _URL_SPACE.sub("", html.unescape(value)).lower().split(";" if name == "values" else "\n")
        return any(url.startswith(("javascript:", "vbscript:")) for url in urls)
    return False
