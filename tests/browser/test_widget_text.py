"""What a message's text becomes: links, code, and nothing else."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import NewRoom, NewSite, Visit
from tests.browser.sites import ScriptedRoom, message
from tests.browser.sites import Visit as Connection
from tests.browser.visitor import Visitor

CHAT = '<portfolio-chat server="{}"></portfolio-chat>'


def show(visit: Visit, site: NewSite, room: NewRoom, text: str, **options: object) -> Visitor:
    """A visitor who sees one message."""

    def play(room: ScriptedRoom, connection: Connection) -> None:
        room.welcome(connection, message(1, text))
        connection.stay()

    ada = visit(site(CHAT.format(room(play).origin)).origin, "ada", **options)
    expect(ada.find("message")).to_be_visible()
    return ada


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("See https://en.wikipedia.org/wiki/Foo_(bar).", "https://en.wikipedia.org/wiki/Foo_(bar)"),
        ("(see https://example.com/a)", "https://example.com/a"),
        ("[https://example.com/a[1]]", "https://example.com/a[1]"),
        ("**https://example.com/a**", "https://example.com/a"),
        ("'https://example.com/it's'", "https://example.com/it's"),
        ("https://example.com/a?b=c&d=(e)#f!", "https://example.com/a?b=c&d=(e)#f"),
        ("HTTPS://EXAMPLE.COM", "HTTPS://EXAMPLE.COM"),
        ("https://example.com/\u202egpj.exe", "https://example.com/"),
        ("https://exam\u200bple.com/x", "https://exam"),
    ],
)
def test_link_ends_where_the_sentence_goes_on(visit: Visit, site: NewSite, room: NewRoom, text: str, link: str) -> None:
    ada = show(visit, site, room, text)
    expect(ada.find("link")).to_have_text(link)
    expect(ada.find("link")).to_have_attribute("href", link)
    assert ada.find("text").text_content() == text


@pytest.mark.parametrize(
    "text",
    [
        "https://bank.example@evil.example/",
        "https://bank.example:pass@evil.example/",
        "http://[",
        "javascript:alert(1)",
        "**bold** _soft_ # title [a](b) <b>c</b> * list",
        "an unclosed ` tick",
        "```\nan unclosed block",
        "a ``` block``` of none",
    ],
)
def test_everything_else_is_shown_as_typed(visit: Visit, site: NewSite, room: NewRoom, text: str) -> None:
    ada = show(visit, site, room, text)
    assert ada.find("text").evaluate("text => [text.textContent, text.children.length]") == [text, 0]


def test_code_is_kept_to_the_letter_and_can_be_copied(visit: Visit, site: NewSite, room: NewRoom) -> None:
    code = "def  f():\n\treturn '<b>' # https://example.com `x`\n\n  end"
    permissions = ["clipboard-read", "clipboard-write"]
    ada = show(visit, site, room, f"Try `x  = 1`:\n```python\n{code}\n```\nand good luck", permissions=permissions)
    assert ada.page.locator("portfolio-chat code").all_text_contents() == ["x  = 1", code]
    assert ada.page.locator("portfolio-chat .link").count() == 0
    ada.find("copy").click()
    expect(ada.find("copy")).to_have_text("Copied")
    assert ada.page.evaluate("navigator.clipboard.readText()") == code
