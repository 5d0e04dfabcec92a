"""Blocked words: whole words in any script, and what can't hide them."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.chat import blocklist as module
from app.chat.blocklist import MAX_LIGATURES, Blocklist

ZERO_WIDTH = (
    "\u200b",
    "\u200c",
    "\u200d",
    "\u2060",
    "\ufeff",
    "\u00ad",
    "\u200e",
    "\u202e",
    "\u034f",
    "\ufe0f",
    "\x01",
)


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("spam", "spam"),
        ("spam", "This is SPAM!"),
        ("SPAM", "so much spam, really"),
        ("spam", "(spam)"),
        ("spam", '"spam"'),
        ("spam", "no-spam-please"),
        ("spam", "eggs\nspam\neggs"),
        ("spam", "🎉spam🎉"),
        ("spam", "ｓｐａｍ"),  # full width
        ("spam", "𝐬𝐩𝐚𝐦"),  # mathematical
        ("straße", "STRASSE"),
        ("strasse", "die STRAẞE hinunter"),
        ("café", "ein CAFE\u0301 bitte"),
        ("cafe\u0301", "ein Café bitte"),
        ("блин", "Ну БЛИН!"),
        ("κακός", "ΚΑΚΌΣ"),
        ("ΚΑΚΌΣ", "ο κακός λύκος"),
        ("istanbul", "İSTANBUL'da"),
        ("İstanbul", "istanbul"),
        ("sıkıntı", "SIKINTI var"),
        ("sıkıntı", "sıkıntı var"),
        ("كلب", "يا كلب!"),
        ("كلب", "يا كـــلب"),  # drawn out
        ("כלב", "הוא כלב."),
        ("कुत्ता", "वह कुत्ता है।"),
        ("笨蛋", "你这个笨蛋啊"),
        ("バカ", "あなたはバカです"),
        ("バカ", "あなたはﾊﾞｶです"),  # half width
        ("ばか", "このばかもの"),
        ("ควาย", "ไอ้ควายเอ๊ย"),
        ("ໝາ", "ໂຕໝາຂາວ"),
        ("ឆ្កែ", "អាឆ្កែនេះ"),
        ("ခွေး", "မင်းခွေးကောင်"),
        ("spam", "笨spam蛋"),  # a script without spaces beside it
        ("笨蛋", "x笨蛋y"),
        ("바보", "너 바보!"),
        ("🖕", "to you🖕"),
        ("🖕", "🖕🏽"),
        ("buy now", "Please BUY   now"),
        ("buy now", "buy\n\tnow"),
        ("buy\u00a0now", "buy now"),
        ("c++", "I like C++11"),
        ("@everyone", "hey @everyone!"),
        ("$$$", "for$$$you"),
        ("snake_case", "a snake_case b"),
        ("spam", "_spam_ and __more__"),
        ("a", "ä a"),
    ],
)
def test_word_is_found(word: str, text: str) -> None:
    assert Blocklist(["other", word]).found_in(text)


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("cunt", "I come from Scunthorpe"),
        ("ass", "a class, an assembly"),
        ("ass", "ass2 and 2ass"),
        ("spam", "spa m"),
        ("cafe", "café"),
        ("cafe", "cafe\u0301"),
        ("cafe", "cafe\u0323s"),  # a mark that composes with nothing
        ("блин", "блины"),
        ("sik", "sık sık"),  # Turkish: often
        ("كلب", "كلبي"),
        ("כלב", "כלבים"),
        ("कम", "कमी"),  # the vowel sign belongs to the word
        ("कम", "कम्"),
        ("กา", "ก่า"),
        ("ก", "กุ"),
        ("笨蛋", "笨 蛋"),
        ("buy now", "buy nowhere"),
        ("buy now", "goodbuy now"),
        ("buy now", "buynow"),
        ("c++", "C+"),
        ("spam", ""),
    ],
)
def test_part_of_another_word_is_not(word: str, text: str) -> None:
    assert not Blocklist([word]).found_in(text)


@pytest.mark.parametrize("hidden", ZERO_WIDTH)
def test_invisible_characters_hide_nothing(hidden: str) -> None:
    assert Blocklist(["buy now"]).found_in(f"{hidden}b{hidden}uy {hidden} now{hidden}")
    assert Blocklist([f"b{hidden}uy now"]).found_in("buy now")
    assert not Blocklist(["ass"]).found_in(f"cl{hidden}ass")


@pytest.mark.parametrize("words", [[], [""], [" ", "\u200b", "\n", "\x00"]])
def test_no_words_find_nothing(words: list[str]) -> None:
    assert not any(map(Blocklist(words).found_in, ("", " ", "text", "\x00\x01", "漢字 🎉")))


@pytest.mark.parametrize("text", ["\x00", "\x01", "\x00spa\x01m", "a\x00b", "\x00\x00spams"])
def test_marks_of_our_own_in_a_text_do_not_mislead(text: str) -> None:
    assert Blocklist(["spam"]).found_in(text) is ("spa\x01m" in text)


def test_hundreds_of_words_in_the_worst_of_texts() -> None:
    """Each word nearly matches everywhere. Were the search quadratic, this would take minutes."""
    words = Blocklist(
        ["a" * length for length in range(1, 301)] + ["漢" * 200 + "字", "กา" * 200 + "x", "a " * 200 + "b"]
    )
    for text in ("a" * 10_000, "漢" * 10_000, "กา" * 5_000, "a\u0301" * 5_000, "\u200b" * 10_000, "\ufdfa" * 10_000):
        assert not words.found_in(text)
    assert not Blocklist(["a " * 200 + "b"]).found_in("a " * 5_000)


LETTERS = "aáßiIİısｓ_1 \u200b\u0301\u0307\u0323\nб漢かก्ุक.🎉"


def joined(left: str, right: str) -> bool:
    """Whether a word goes on from one character to the next: the rule, said once more and slowly."""
    if unicodedata.category(right)[0] == "M":
        return True
    return all(unicodedata.category(char)[0] in "LMN" and char not in "漢かกุ" for char in (left, right))


def simply_found(word: str, text: str) -> bool:
    """One place after the other."""
    at = [start for start in range(len(text)) if text.startswith(word, start)]
    return any(
        not (start and joined(text[start - 1], word[0]))
        and not (start + len(word) < len(text) and joined(word[-1], text[start + len(word)]))
        for start in at
    )


@given(st.text("aáb_1б漢かก्ุक.🎉", min_size=1, max_size=3), st.text("aáb_1б漢かก्ุक.🎉", max_size=30))
def test_search_is_what_looking_at_each_place_finds(word: str, text: str) -> None:
    word, text = unicodedata.normalize("NFKC", word), unicodedata.normalize("NFKC", text)
    if unicodedata.category(word[0])[0] != "M":  # a mark without its letter is no word
        assert Blocklist([word]).found_in(text) is simply_found(word, text)


@given(st.text(LETTERS, min_size=1, max_size=5), st.text(LETTERS, max_size=5), st.text(LETTERS, max_size=5))
def test_word_between_spaces_is_found_in_every_spelling(word: str, before: str, after: str) -> None:
    words = Blocklist([word])
    if not words._words or unicodedata.category(word.lstrip(" \n\u200b")[0])[0] == "M":
        return
    for spelling in (word, word.casefold(), unicodedata.normalize("NFD", word)):
        assert words.found_in(f"{before} {spelling} {after}")


@given(st.text(max_size=50), st.text(max_size=50))
def test_no_text_is_too_odd(word: str, text: str) -> None:
    assert Blocklist([word]).found_in(text) in (True, False)


def test_hidden_characters_are_those_that_unicode_hides() -> None:
    """All but what the Unicode of this Python does not know yet."""
    for char in map(chr, range(0x110000)):
        kind = unicodedata.category(char)
        if kind in ("Cc", "Cf"):
            assert bool(module._INVISIBLE.match(char)) is not char.isspace(), ascii(char)
        elif kind != "Cn" and module._INVISIBLE.match(char):
            assert kind in ("Mn", "Lo", "Lm"), ascii(char)


@pytest.mark.parametrize("marks", ["\u0301\u0323", "\u0f73\u0345", "\u0344\u0323", "\uff9e\u0301", "\u0345\u0300"])
def test_normalization_never_has_many_marks_to_sort(monkeypatch: pytest.MonkeyPatch, marks: str) -> None:
    normalize = unicodedata.normalize

    def measured(form: str, text: str) -> str:
        assert max(map(len, normalize("NFKD", text).split("\u034f"))) <= 100
        return normalize(form, text)  # type: ignore[arg-type]

    monkeypatch.setattr("app.chat.blocklist.unicodedata.normalize", measured)
    assert not Blocklist(["spam"]).found_in(marks * 5000)
    assert Blocklist(["spam"]).found_in(marks * 100 + " spam " + marks * 100)


def test_mark_after_many_others_belongs_to_its_letter_still() -> None:
    marks = "\u0301\u0323" * 50
    assert not Blocklist(["spam"]).found_in("spam" + marks)
    assert Blocklist(["spam" + marks]).found_in("a spam" + marks)


@pytest.mark.parametrize("char", ["\ufdfa", "\ufdfb", "㌖", "㍿", "\U0001d160"])
def test_text_of_ligatures_does_not_grow_beyond_measure(char: str) -> None:
    assert len(module._fold((char + "a") * 5000)) <= 10_000
    assert module._fold(char * MAX_LIGATURES) == "".join(module._fold(char) for _ in range(MAX_LIGATURES))


def test_ligature_is_read_as_the_words_that_it_stands_for() -> None:
    assert Blocklist(["الله"]).found_in("\ufdfa")


def test_words_beside_many_ligatures_are_found() -> None:
    assert Blocklist(["spam"]).found_in("\ufdfa" * 1000 + "spam" + "㌖" * 1000)


def test_phrases_are_searched_for_only_where_all_their_parts_are() -> None:
    words = Blocklist([f"one{number} two{number}" for number in range(1000)])
    assert words.found_in("a one7 two7")
    assert not words.found_in("one7 two8 one8 two9")
