"""Finds listed words and phrases in a text, as whole words and in any language.

Knows nothing of what follows from a find. Only what Unicode itself calls the same is the same: look-alikes are not.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache

# What has no look of its own and belongs to no category C*: Unicode's Default_Ignorable_Code_Point (the joiner, the
# fillers, the variation selectors), and the Arabic tatweel, which only draws a word out.
_IGNORED = frozenset("\u034f\u0640\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0") | frozenset(
    map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)))
)
# Scripts that are written without spaces: Thai and Lao, Myanmar, Khmer, Han with its marks, Hiragana and Katakana.
_UNSPACED = (
    range(0x0E00, 0x0F00), range(0x1000, 0x10A0), range(0xA9E0, 0xAA00), range(0xAA60, 0xAA80), range(0x1780, 0x1800),
    range(0x3005, 0x3008), range(0x3040, 0x3100), range(0x31F0, 0x3200), range(0x1AFF0, 0x1B170),
    range(0x2E80, 0x2FE0), range(0x3400, 0x4DC0), range(0x4E00, 0xA000), range(0xF900, 0xFB00), range(0x20000, 0x323B0),
)  # fmt: skip
_EDGE = "\0"  # stands wherever a word may begin or end; never in a folded text, which has no control characters
_NO_EDGE = "\1"  # takes back the edge before it


class Words:
    """A list of words and phrases. Case, width, composition and invisible characters make no difference."""

    def __init__(self, words: Sequence[str]) -> None:
        folded = dict.fromkeys(word for word in map(_fold, words) if word)
        self._words = tuple(_EDGE + _with_edges(word).strip(_EDGE) + _EDGE for word in folded)
        self._dotless = any("ı" in word for word in folded)

    def found_in(self, text: str) -> bool:
        """Whether the text holds one of them as a whole word.

        Time is linear in the text's length, for each word that is a search for one substring.
        """
        if not self._words:
            return False
        # In Turkish a capital I is the dotless one. Which language a text is in nobody knows, so both are looked for.
        return self._found(text) or (self._dotless and "I" in text and self._found(text.replace("I", "ı")))

    def _found(self, text: str) -> bool:
        marked = _EDGE + _with_edges(_fold(text)) + _EDGE
        return any(word in marked for word in self._words)


def _fold(text: str) -> str:
    """The text with one spelling for everything that counts as the same, its words separated by single spaces."""
    hidden = [ord(char) for char in set(text) if _is_hidden(char)]
    visible = text.translate(dict.fromkeys(hidden)) if hidden else text
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", visible).casefold())
    return " ".join(folded.replace("i\u0307", "i").split())  # the Turkish capital İ folds to i and a dot


def _with_edges(text: str) -> str:
    edged = text.translate({ord(char): _edged(char) for char in set(text)})
    return edged.replace(_EDGE + _NO_EDGE, "").replace(_NO_EDGE, "")


@lru_cache(4096)
def _is_hidden(char: str) -> bool:
    # Cc: control characters, of which those that separate words are space; Cf: format characters.
    return char in _IGNORED or (unicodedata.category(char) in ("Cc", "Cf") and not char.isspace())


@lru_cache(4096)
def _edged(char: str) -> str:
    """The character with the edges that it has by itself, whatever stands beside it.

    Letters and numbers have none. A combining mark has none before it, for it belongs to the letter there.
    """
    unspaced = any(ord(char) in block for block in _UNSPACED)
    kind = unicodedata.category(char)[0]
    if kind == "M":
        return _NO_EDGE + char + (_EDGE if unspaced else "")
    return char if kind in "LN" and not unspaced else _EDGE + char + _EDGE
