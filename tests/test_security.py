"""What is let in: names, text that comes back as typed, and markup that never runs."""

from __future__ import annotations

import html
from html.parser import HTMLParser

import bleach
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import security
from app.exceptions import BlockedContent, EmptyMessage, InvalidUsername, MessageTooLong
from app.security import BLEACH_ALWAYS, check_username, clean_text, escape

EVERYDAY = [
    "Hello",
    "I <3 this",
    "<3",
    ">:-) <:o",
    "AT&T",
    "R&D & more",
    "don't",
    'She said "hi"',
    "it's `code` and 'quotes'",
    "a < b && c > d",
    "a<b",
    "1<2>3",
    "x <- y -> z",
    "<- see there",
    "->",
    "=>",
    "if (a < b) { return a; }",
    "const onclose = () => {}",
    "element.onclick = handler",
    "for (let i = 0; i < n; i++) {}",
    "vector<int>",
    "Map<String, List<Integer>>",
    "#include <stdio.h>",
    "std::cout << x << std::endl;",
    "<div>",
    "<b>bold</b>",
    '<p class="x">text</p>',
    "</body>",
    "<br/>",
    '<a href="https://example.com">link</a>',
    "x<!--y-->z",
    "<!-- a comment -->",
    "<!DOCTYPE html>",
    "<?php echo 1; ?>",
    "<![CDATA[x]]>",
    "<title>",
    "<user@example.com>",
    "a & b &amp; c",
    "&lt;b&gt; is not <b>",
    "&copy; &#169; &#xA9; &nbsp;",
    "&notanentity; &amp",
    "&&&&",
    "http://example.com/?a=1&b=2&copy=3",
    "C:\\new\\table",
    "100 % of 5 $ {x} %s {{y}}",
    "see the javascript: scheme",
    "javascript:alert(1)",
    "the script tag, an iframe, on error",
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🎉",
    "é vs e\u0301",
    "Straße, naïve, Ελληνικά, кириллица",
    "你好，世界 こんにちは 안녕",
    "مرحبا بالعالم",
    "שלום \u200fworld\u200e",
    "हिन्दी ภาษาไทย",
    "two\nlines",
    "three\n\n\tindented lines\n",
    "  spaces around  ",
    "non\u00a0breaking and \u2028 separators",
    "zero\u200bwidth inside",
    "\ufffd \ufeff \uffff",
    "¯\\_(ツ)_/¯ (╯°□°)╯︵ ┻━┻",
    "∀x∈ℝ: ⌈x⌉ ≠ √2",
    "𝕱𝖆𝖓𝖈𝖞",
    "\\u003cscript\\u003e",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
]
WORDS = [
    "const onclose = () => {}",
    "a < b && c > d",
    "see the javascript: scheme",
    "vector<int>",
    "vector<string> onload",
    "a<b, onclose",
    "a<b && onclose == c",
    "the <scripted> and <scripts> and <embedded> words",
    "<a href='https://example.com/javascript:'>",
    "<a title='javascript: the good parts'>",
    "<p>onclick=alert(1)</p>",
    "<b>on time = money</b>",
    "<p one2=1 data-onclick=3>",
    "</script>",
    "< script>",
    "<img onerror>",
    '<img onerror="">',
    "<a>href=javascript:x</a>",
]
ELEMENTS = [
    "<script>alert(1)</script>",
    "<SCRIPT SRC=//evil.example/x.js></SCRIPT>",
    "<ScRiPt>alert(1)</sCrIpT>",
    "<script\n>alert(1)</script>",
    "<script\t>alert(1)",
    "<script/x>alert(1)</script>",
    "<script",
    "<<script>alert(1)//<</script>",
    "<scr<script>ipt>alert(1)</script>",
    "<scr\x00ipt>alert(1)</script>",
    "<s\x07cript>alert(1)</script>",
    '"><script>alert(1)</script>',
    "--><script>alert(1)</script>",
    "</title><script>alert(1)</script>",
    '<IMG """><SCRIPT>alert("XSS")</SCRIPT>">',
    "<svg><script>alert&#40;1&#41;</script>",
    "<iframe src=//evil.example>",
    '<iframe srcdoc="&lt;script&gt;alert(1)&lt;/script&gt;">',
    "<object data=x.swf>",
    "<embed src=x.swf>",
    "<EMBED\r\nSRC=x>",
]
HANDLERS = [
    "<img src=x onerror=alert(1)>",
    '<img src="x" onerror="alert(1)">',
    "<IMG SRC=x OnErRoR='alert(1)'>",
    '<img src="x"onerror=alert(1)>',
    "<img/src/onerror=alert(1)>",
    "<img\nsrc=x\nonerror\n=\nalert(1)>",
    "<img src=x on\x00error=alert(1)>",
    "<img src=x:x onerror=alert`1`>",
    "<img src=x onerror=&#97;lert(1)>",
    "<img src='>' onerror=alert(1)>",
    '<img title="a>b" alt=\'"\' onerror=alert(1)>',
    '<img a="\'" onerror=alert(1) b="\'">',
    "<svg onload=alert(1)>",
    "<svg/onload=alert(1)>",
    "<svg////onload=alert(1)",
    "<body onpageshow=alert(1)>",
    "<details open ontoggle=alert(1)>",
    "<input autofocus onfocus=alert(1)>",
    "<my-element onclick=alert(1)>",
    "<x:y onmouseover=alert(1)>",
    '<x"y onclick=alert(1)>',
    "<x@ onclick=alert(1)>",
    "<xé onclick=alert(1)>",
    '<img src=x a=\u00a0" onerror=alert(1) b=">',
    "<!-- x --><p onclick=alert(1)>",
    "<!--><img src=x onerror=alert(1)>-->",
    "<a b='<img onerror=alert(1)>",
    "<style></style><marquee onstart=alert(1)>",
]
URLS = [
    '<a href="javascript:alert(1)">x</a>',
    "<a href=javascript:alert(1)>x</a>",
    "<A HREF='JaVaScRiPt:alert(1)'>x</A>",
    '<a href=" \n javascript:alert(1)">x</a>',
    '<a href="java\nscript:alert(1)">x</a>',
    '<a href="java\tscript\n:alert(1)">x</a>',
    '<a href="java\x00script:alert(1)">x</a>',
    '<a href="\x01javascript:alert(1)">x</a>',
    '<a href="&#106;avascript:alert(1)">x</a>',
    '<a href="&#x6A&#x61vascript:alert(1)">x</a>',
    '<a href="&#0000106avascript:alert(1)">x</a>',
    '<a href="javascript&colon;alert(1)">x</a>',
    '<a href="jav&Tab;ascript:alert(1)">x</a>',
    '<a href="java&NewLine;script:alert(1)">x</a>',
    '<a title=">" href="javascript:alert(1)">x</a>',
    "<form action=javascript:alert(1)>",
    "<button formaction=javascript:alert(1)>",
    "<img src=javascript:alert(1)>",
    "<svg><a xlink:href=javascript:alert(1)>",
    "<math href=javascript:alert(1)>",
    "<svg><animate attributeName=href values=javascript:alert(1)>",
    "<video poster=javascript:alert(1)>",
    "<link rel=stylesheet href=javascript:alert(1)>",
    "<body background=javascript:alert(1)>",
    "<a href=vbscript:msgbox(1)>",
]
texts = st.text(st.characters(exclude_categories=["Cs"])) | st.text("<>&;#\"'/!-=abltgmpx1 \n")


class Reader(HTMLParser):
    """What a browser would make of a piece of HTML."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.text = ""
        self.markup: list[str] = []
        self.feed(source)
        self.close()

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.markup.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self.markup.append(tag)

    def handle_comment(self, data: str) -> None:
        self.markup.append(data)

    def handle_decl(self, decl: str) -> None:
        self.markup.append(decl)

    def handle_pi(self, data: str) -> None:
        self.markup.append(data)

    def unknown_decl(self, data: str) -> None:
        self.markup.append(data)


@pytest.mark.parametrize("name", ["a", "Ada", "ada_l-99", "-", "_", "0", "system", "x" * 50])
def test_username_is_taken_as_it_is(name: str) -> None:
    assert check_username(name, 50) == name


@pytest.mark.parametrize(
    "name",
    [
        None, "", " ", "ada lovelace", " ada", "ada ", "x" * 51, "ada\x00", "\x00", "ada\n", "a\nb", "\r", "ada\t",
        "ada.", "a+b", "<b>", "ada@x", "Zoë", "мария", "аda", "李", "عمر", "٣", "ａda", "🎉", "ada\u200b", "ſ",
        "\ud800", "%00", "a/b", "'", "\\",
    ],
)  # fmt: skip
def test_username_of_any_other_kind_is_refused(name: str | None) -> None:
    with pytest.raises(InvalidUsername) as caught:
        check_username(name, 50)
    assert "50" in str(caught.value)


@pytest.mark.parametrize("text", EVERYDAY)
def test_everyday_text_comes_back_as_typed(text: str) -> None:
    assert clean_text(text, 1000, block_markup=True) == text
    content = escape(text)
    assert html.unescape(content) == text
    assert not set("<>") & set(content)
    assert (Reader(content).text, Reader(content).markup) == (text, [])


def test_there_are_enough_everyday_texts() -> None:
    assert len(set(EVERYDAY)) >= 45


@pytest.mark.parametrize("text", ["Hello", "don't", '"quoted"', "two\nlines", "你好 🎉", "a = b; c"])
def test_text_without_markup_characters_is_its_own_content(text: str) -> None:
    assert escape(text) == text


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("a\r\nb\rc\n", "a\nb\nc\n"),
        ("\r\r\n", None),
        ("a\x00\x07\x1b[31mb\x7f\x85\x9b", "a[31mb"),
        ("a\tb", "a\tb"),
        ("a\x0b\x0cb", "ab"),
    ],
)
def test_newlines_are_normalised_and_control_characters_removed(typed: str, kept: str | None) -> None:
    if kept is None:
        with pytest.raises(EmptyMessage):
            clean_text(typed, 1000, True)
    else:
        assert clean_text(typed, 1000, True) == kept


@pytest.mark.parametrize("char", ["a", "é", "🎉", "&", "<", "\U0010ffff", '"'])
def test_length_is_counted_in_characters_before_escaping(char: str) -> None:
    longest = "x" + char * 999
    assert clean_text(longest, 1000, True) == longest
    with pytest.raises(MessageTooLong) as caught:
        clean_text(longest + char, 1000, True)
    assert "1001" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "\n", "\t \r\n", "\x00", "\u00a0", "\u3000", "\u2028\u2029", "\u200b", "\u200c\u200d", "\ufeff",
        "\u2060", "\u00ad", "\u180e", "\u115f\u1160\u3164\uffa0", "\u2800", "\ufe0f", "\u034f", "\u202e\u202c",
        "\U000e0001", "\u200b \n\u2063", "\U000e0100", "\U000e01ef", "\u17b4",
    ],
)  # fmt: skip
def test_text_without_anything_visible_is_empty(text: str) -> None:
    with pytest.raises(EmptyMessage):
        clean_text(text, 1000, True)


@pytest.mark.parametrize("text", [".", "\u200b.", "❤\ufe0f", "\u0301a", "¨", "\u200dx"])
def test_text_with_anything_visible_is_kept_whole(text: str) -> None:
    assert clean_text(text, 1000, True) == text


@pytest.mark.parametrize("attack", ELEMENTS + HANDLERS + URLS)
def test_xss_prevention(attack: str) -> None:
    text = clean_text(attack, 1000, block_markup=False)
    seen = Reader(escape(text))
    assert (seen.text, seen.markup) == (text, [])
    for disguise in (attack, f"Look: {attack} nice", f"a < b, {attack}"):
        with pytest.raises(BlockedContent):
            clean_text(disguise, 1000, block_markup=True)


@pytest.mark.parametrize("text", WORDS)
def test_words_are_not_markup(text: str) -> None:
    assert clean_text(text, 1000, block_markup=True) == text


@given(texts)
def test_escaped_text_has_no_markup_and_loses_nothing(typed: str) -> None:
    try:
        text = clean_text(typed, 1000, block_markup=False)
    except EmptyMessage:
        return
    content = escape(text)
    assert html.unescape(content) == text
    assert not set("<>") & set(content)
    assert Reader(content).markup == []


@given(texts)
def test_cleaning_is_done_once_and_for_all(typed: str) -> None:
    try:
        text = clean_text(typed, 1000, block_markup=True)
    except (EmptyMessage, BlockedContent):
        return
    assert clean_text(text, 1000, block_markup=True) == text
    assert "\r" not in text


@given(texts, st.sampled_from(ELEMENTS[:3] + HANDLERS[:3] + URLS[:3]))
def test_nothing_before_it_hides_markup_that_runs(before: str, attack: str) -> None:
    with pytest.raises(BlockedContent):
        clean_text(before + attack, 10_000, block_markup=True)


@pytest.fixture
def bleached(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What bleach is given."""
    given_to: list[str] = []
    clean = security._cleaner.clean

    def spy(text: str) -> str:
        given_to.append(text)
        return clean(text)

    monkeypatch.setattr(security._cleaner, "clean", spy)
    return given_to


@given(texts, st.integers(1, 60))
def test_escaped_text_is_what_bleach_makes_of_it(typed: str, times: int) -> None:
    try:
        text = clean_text(typed * times, 100_000, block_markup=False)
    except EmptyMessage:
        return
    assert escape(text) == bleach.clean(html.escape(text, quote=False), tags=set())


@pytest.mark.parametrize("text", ["AT&T", "a < b", "a > b", "<b>bold</b>", "&amp;"])
def test_everyday_text_with_an_entity_goes_to_bleach(text: str, bleached: list[str]) -> None:
    escape(text)
    assert bleached == [html.escape(text, quote=False)]


@pytest.mark.parametrize("text", ["hello", "x" * 10_000, "&" * 10_000, "<>" * 5000, "&amp;" * 2000, "<a b='" * 1500])
def test_long_or_plain_text_that_bleach_could_not_change_does_not_go_there(text: str, bleached: list[str]) -> None:
    escape(text)
    assert bleached == []


@pytest.mark.parametrize("length", [0, BLEACH_ALWAYS, 10_000])
@pytest.mark.parametrize("markup", [*ELEMENTS, *HANDLERS, *URLS, "a & b", "&lt", "&copy;", "&#60;b&#62;", "a > b"])
def test_bleach_cleans_what_escaping_leaves(monkeypatch: pytest.MonkeyPatch, markup: str, length: int) -> None:
    """The second layer alone: no text is so long that it would be left out."""
    monkeypatch.setattr("html.escape", lambda text, quote: text)
    cleaned = escape("x" * length + markup)
    assert cleaned == bleach.clean("x" * length + markup, tags=set())
    assert not set("<>") & set(cleaned)


@pytest.mark.parametrize(
    "repeated", ["<a", "<a ", "<a/", "b ", "b/", "a=b ", "b=''", "to=&a ", "\n'", '<a b="', "<a b='\""]
)
def test_looking_for_markup_takes_a_time_that_grows_with_the_length_alone(
    monkeypatch: pytest.MonkeyPatch, repeated: str
) -> None:
    looked_at: list[int] = []

    class Counting:
        def match(self, text: str, position: int) -> object:
            looked_at.append(position)
            return attribute.match(text, position)

    attribute = security._ATTRIBUTE
    monkeypatch.setattr(security, "_ATTRIBUTE", Counting())
    text = "<a " + repeated * (10_000 // len(repeated))
    assert not security.has_active_markup(text)
    assert len(looked_at) <= len(text) / 2 + 2


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("\x00" * 65_000 + "x", "x"),
        ("\r" * 65_000 + "x", "\n" * 65_000 + "x"),
        ("\r\n" * 30_000 + "x", "\n" * 30_000 + "x"),
    ],
)
def test_long_text_is_measured_without_what_is_removed(typed: str, kept: str) -> None:
    assert clean_text(typed, len(kept), True) == kept
