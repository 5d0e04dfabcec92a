"""Notifications as requests: what each service gets, and that a visitor's text stays text there."""

from __future__ import annotations

import json
import re
from http.client import HTTPConnection
from typing import Any
from urllib.request import Request

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.owner.formats import MAX_DISCORD, Format, Notification, format_of, request

URLS: dict[Format, str] = {
    "discord": "https://discord.com/api/webhooks/1/secret",
    "slack": "https://hooks.slack.com/services/T/B/secret",
    "ntfy": "https://ntfy.sh/topic",
    "json": "https://example.com/hook",
}
FORMATS = tuple(URLS)
PUBLIC = "https://chat.example.com"
HOSTILE = (
    "https://evil.example/path?a=b#c http://evil.example www.evil.example evil.example ada@evil.example "
    "[click](https://evil.example) <https://evil.example|click> <!channel> <!here> <@U123> <#C123> <@&1> "
    "@everyone @here #general mailto:ada@evil.example evil。example evil．example HTTPS://EVIL.example discord.gg/evil "
    "*b* _i_ ~s~ `c` ```c``` **b** __u__ ~~s~~ ||spoiler|| > quote :smile: <:a:1> <t:0> &amp; &lt;!here&gt; \\ \\\\"
)


def made(format: Format, text: str = "hello", username: str = "ada", count: int = 1, url: str = PUBLIC) -> Request:
    return request(format, URLS[format], Notification(username, text, 1.5, count, url))


def body(sent: Request) -> bytes:
    assert isinstance(sent.data, bytes)
    return sent.data


def content(sent: Request) -> dict[str, Any]:
    assert sent.get_header("Content-type") == "application/json"
    decoded: dict[str, Any] = json.loads(body(sent))
    return decoded


def shown(format: Format, text: str) -> str:
    """The visitor's text as it goes to the service."""
    if format == "ntfy":
        return body(made(format, text)).decode()
    sent = content(made(format, text, url=""))
    return str(sent["content"].partition(":**\n")[2] if format == "discord" else sent["blocks"][1]["text"]["text"])


@pytest.mark.parametrize(
    ("url", "format"),
    [
        ("https://discord.com/api/webhooks/1/x", "discord"),
        ("https://DISCORD.com/api/webhooks/1/x", "discord"),
        ("https://ptb.discord.com/api/webhooks/1/x", "discord"),
        ("https://discordapp.com/api/webhooks/1/x", "discord"),
        ("https://hooks.slack.com/services/x", "slack"),
        ("https://ntfy.sh/topic", "ntfy"),
        ("https://ada:secret@ntfy.example.com:8443/topic", "ntfy"),
        ("https://example.com/discord.com", "json"),
        ("https://notdiscord.com/", "json"),
        ("https://discord.com.example.com/", "json"),
        ("https://slack.com/", "json"),
        ("https://example.com/?ntfy.sh", "json"),
        ("nothing", "json"),
    ],
)
def test_format_follows_from_the_host(url: str, format: Format) -> None:
    assert format_of(url) == format


@pytest.mark.parametrize("format", FORMATS)
def test_request_is_a_post_with_a_name_of_our_own(format: Format) -> None:
    sent = made(format)
    assert (sent.get_method(), sent.full_url) == ("POST", URLS[format])
    assert sent.get_header("User-agent") == "portfolio-backend"


def test_json_has_what_a_program_needs() -> None:
    assert content(made("json", "a <b>\n@c https://d.example", count=3)) == {
        "event": "message",
        "username": "ada",
        "text": "a <b>\n@c https://d.example",
        "timestamp": 1.5,
        "count": 3,
        "url": PUBLIC,
    }


def test_discord_gets_markdown_and_pings_nobody() -> None:
    assert content(made("discord", "hello\nworld")) == {
        "content": f"**ada wrote at 00\\:00 UTC:**\nhello\nworld\n<{PUBLIC}/>",
        "allowed_mentions": {"parse": []},
        "flags": 4,
    }


def test_slack_gets_blocks_and_a_fallback_without_the_text() -> None:
    sent = content(made("slack", "hello\nworld"))
    heading, text, link = (block["text"] for block in sent.pop("blocks"))
    assert heading == {"type": "plain_text", "text": "ada wrote at 00:00 UTC:", "emoji": False}
    assert text == {"type": "plain_text", "text": "hello\nworld", "emoji": False}
    assert link == {"type": "mrkdwn", "text": f"<{PUBLIC}/>", "verbatim": True}
    assert sent.pop("text") == "ada wrote at 00:00 UTC"
    assert sent == dict.fromkeys(("mrkdwn", "link_names", "unfurl_links", "unfurl_media"), False)


def test_ntfy_gets_plain_text() -> None:
    sent = made("ntfy", "hello\nwörld")
    assert body(sent).decode() == "hello\nwörld"
    headers = {name.lower(): value for name, value in sent.header_items()}
    assert headers == {
        "content-type": "text/plain; charset=utf-8",
        "user-agent": "portfolio-backend",
        "title": "ada wrote at 00:00 UTC",
        "click": f"{PUBLIC}/",
    }


@pytest.mark.parametrize("format", FORMATS)
def test_without_public_url_there_is_no_link(format: Format) -> None:
    sent = made(format, url="")
    assert "http" not in body(sent).decode()
    assert not sent.has_header("Click")


@pytest.mark.parametrize(
    ("count", "heading"),
    [
        (1, "ada wrote at 00:00 UTC"),
        (2, "2 new messages, the last from ada at 00:00 UTC"),
        (999, "999 new messages, the last from ada at 00:00 UTC"),
        (1000, "1000 or more new messages, the last from ada at 00:00 UTC"),
    ],
)
def test_heading_has_the_count(count: int, heading: str) -> None:
    assert made("ntfy", count=count).get_header("Title") == heading
    assert content(made("slack", count=count))["text"] == heading
    escaped = heading.replace(",", r"\,").replace(":", r"\:")
    assert content(made("discord", count=count))["content"].startswith(f"**{escaped}:**\n")


# Discord shows a character after a backslash as it is, unless it is a letter, a digit or a space.
def test_discord_shows_a_hostile_text_as_typed() -> None:
    escaped = shown("discord", HOSTILE)
    assert re.sub(r"\\([^0-9A-Za-z\s])", r"\1", escaped) == HOSTILE
    assert not re.search(r"[!-/:-@\[-`{-~]", re.sub(r"\\[!-~]", "", escaped))


@pytest.mark.parametrize("format", ["slack", "ntfy"])
def test_no_address_and_no_mention_is_left_in_a_hostile_text(format: Format) -> None:
    text = shown(format, HOSTILE)
    assert not re.search(r"[.:/@#。．](?=[^\s\u200b])", text)
    plain = text.replace("\u200b", "")
    assert (
        plain if format == "ntfy" else plain.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    ) == HOSTILE


def test_slack_gets_no_control_characters_of_its_own() -> None:
    assert not re.search(r"[<>]|&(?!amp;|lt;|gt;)", shown("slack", HOSTILE))


@pytest.mark.parametrize("format", ["discord", "slack", "ntfy"])
def test_text_cannot_turn_around_what_stands_beside_it(format: Format) -> None:
    assert shown(format, "a\u202eb\u2066c\u2069d") == "abcd"
    assert shown(format, "שלום \u200fאב 👩\u200d💻") == "שלום \u200fאב 👩\u200d💻"


@pytest.mark.parametrize("format", FORMATS)
def test_name_is_a_name_whatever_it_holds(format: Format) -> None:
    sent = made(format, username="a.b\r\nX: <!here> ü")
    if format == "json":
        assert content(sent)["username"] == "a.b\r\nX: <!here> ü"
    else:
        heading = sent.get_header("Title") if format == "ntfy" else body(sent).decode()
        assert heading is not None
        assert "a?b??X????here??? wrote" in heading.replace("\\", "")


@pytest.mark.parametrize(("length", "cut"), [(500, False), (501, True), (10_000, True)])
@pytest.mark.parametrize("format", FORMATS)
def test_long_text_is_cut(format: Format, length: int, cut: bool) -> None:
    text = content(made("json", "x" * length))["text"] if format == "json" else shown(format, "x" * length)
    assert text == ("x" * 499 + "…" if cut else "x" * length)


@pytest.mark.parametrize("text", ["!" * 501, "&" * 501, "😀" * 501, ":" * 501, "\ufdfa" * 501])
def test_limits_of_the_services_are_kept(text: str) -> None:
    assert len(content(made("discord", text, "_" * 200, 1000))["content"]) <= MAX_DISCORD
    assert all(len(block["text"]["text"]) <= 3000 for block in content(made("slack", text, "_" * 200, 1000))["blocks"])
    assert len(body(made("ntfy", text))) <= 4096


def test_link_that_does_not_fit_is_left_out() -> None:
    url = "https://example.com/" + "x" * 1500
    assert url in content(made("discord", url=url))["content"]
    assert url not in content(made("discord", "!" * 500, url=url))["content"]


@pytest.mark.parametrize(
    ("url", "link"),
    [
        ("https://example.com", "https://example.com/"),
        ("https://me.example/a_b*c?d=e&f=(g)#chat", "https://me.example/a_b*c?d=e&f=(g)#chat"),
        ("https://bücher.example:8443/ä b", "https://xn--bcher-kva.example:8443/%C3%A4%20b"),
        ('https://example.com/a|b>c<d"e\\f%20', "https://example.com/a%7Cb%3Ec%3Cd%22e%5Cf%20"),
        ("http://[::1]:8000/", "http://[::1]:8000/"),
    ],
)
def test_owners_link_is_a_link(url: str, link: str) -> None:
    assert made("ntfy", url=url).get_header("Click") == link
    assert content(made("discord", url=url))["content"].endswith(f"\n<{link}>")
    assert content(made("slack", url=url))["blocks"][2]["text"]["text"] == f"<{link.replace('&', '&amp;')}>"


@pytest.mark.parametrize(
    ("url", "address", "authorization"),
    [
        ("https://example.com/hook?a=b", "https://example.com/hook?a=b", None),
        ("https://ada:secret@example.com:8443/", "https://example.com:8443/", "Basic YWRhOnNlY3JldA=="),
        ("https://:tk%3A1@example.com/", "https://example.com/", "Basic OnRrOjE="),
        ("https://ada@example.com?a", "https://example.com/?a", "Basic YWRhOg=="),
        ("http://bücher.example/tö pic", "http://xn--bcher-kva.example/t%C3%B6%20pic", None),
    ],
)
def test_address_is_fit_to_be_sent_and_userinfo_a_header(url: str, address: str, authorization: str | None) -> None:
    sent = request("json", url, Notification("ada", "hello", 1.5))
    assert sent.full_url == address
    assert sent.get_header("Authorization") == authorization


@pytest.mark.parametrize(
    "url", ["", "nothing", "ftp://example.com/", "file:///etc/passwd", "https://", "http://a:b/", "http://[::1/"]
)
def test_what_is_no_web_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        request("json", url, Notification("ada", "hello", 1.5))


class Unsent(HTTPConnection):
    """Puts a request together without a socket."""

    def send(self, data: Any) -> None:
        pass


@given(st.sampled_from(FORMATS), st.text(), st.text(max_size=600), st.integers(1, 1000))
def test_any_text_makes_a_request_that_can_be_sent(format: Format, name: str, text: str, count: int) -> None:
    sent = made(format, text, name, count)
    Unsent("example.com").request("POST", sent.selector, sent.data, dict(sent.header_items()))
    assert format == "ntfy" or content(sent)


def test_half_a_character_breaks_nothing() -> None:
    for format in FORMATS:
        assert body(made(format, "a\ud800b"))
