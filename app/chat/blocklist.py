"""Blocked words: whether a text holds one of them as a whole word, in any script.

What Unicode itself calls the same is the same: look-alikes are not.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

# What has no look of its own: Unicode's control characters (but those that separate words) and format characters, its
# Default_Ignorable_Code_Point (the joiner, the fillers, the variation selectors), and the Arabic tatweel, which only
# draws a word out.
_HIDDEN = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u0600-\u0605\u061c\u0640\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160"
    "\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
# Scripts that are written without spaces: Thai and Lao, Myanmar, Khmer, Han with its marks, Hiragana and Katakana.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"
    "\U0001aff0-\U0001b16f\u2e80-\u2fdf\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
)
_IS_UNSPACED = re.compile(f"[{_UNSPACED}]")
_WITH_EDGES = re.compile(f"[{_UNSPACED}\\W_]")  # all but the letters and numbers of the other scripts
# Normalization sorts the combining marks that follow a letter, in a time that grows with the square of their number. A
# joiner ends the sorting (as in the Stream-Safe Text Format, UAX #15, section 13). Every mark is among the characters
# that are neither letter nor number, but for the two halfwidth ones of Katakana.
_MARKS = re.compile("[\\W\uff9e\uff9f]{32}")
_JOINER = "\u034f"
# Characters that stand for whole words, of up to 18 letters each, and notes, of three marks each.
_LIGATURES = re.compile("[\u3300-\u3357\u337b-\u337f\ufdf0-\ufdfb\U0001d15e-\U0001d164\U0001d1bb-\U0001d1c0]")
LIGATURES_READ = 100  # in a text with more of them, none is taken for what it stands for
_EDGE = "\0"  # stands wherever a word may begin or end; never in a folded text, which has no control characters
_NO_EDGE = "\1"  # takes back the edge before it


class Blocklist:
    """A list of words and phrases. Case, width, composition and invisible characters make no difference."""

    def __init__(self, words: Sequence[str]) -> None:
        folded = dict.fromkeys(word for word in map(_fold, words) if word)
        marked = [_with_edges(word).strip(_EDGE) for word in folded]
        self._words = frozenset(word for word in marked if _EDGE not in word)
        self._phrases = [(_EDGE + word + _EDGE, frozenset(word.split(_EDGE))) for word in marked if _EDGE in word]
        self._dotless = any("ı" in word for word in folded)

    def found_in(self, text: str) -> bool:
        """Whether the text holds one of them as a whole word.

        Time is linear in the text's length, and hardly grows with the number of words: only phrases of which each part
        is in the text are searched for.
        """
        if not (self._words or self._phrases):
            return False
        # In Turkish a capital I is the dotless one. Which language a text is in nobody knows, so both are looked for.
        return self._found(text) or (self._dotless and "I" in text and self._found(text.replace("I", "ı")))

    def _found(self, text: str) -> bool:
        marked = _EDGE + _with_edges(_fold(text)) + _EDGE
        parts = set(marked.split(_EDGE))
        if not self._words.isdisjoint(parts):
            return True
        return any(needed <= parts and phrase in marked for phrase, needed in self._phrases)


def _fold(text: str) -> str:
    """The text with one spelling for everything that counts as the same, its words separated by single spaces."""
    visible = _HIDDEN.sub("", text)
    if len(_LIGATURES.findall(visible)) > LIGATURES_READ:
        visible = _LIGATURES.sub(" ", visible)
    bounded = _MARKS.sub(rf"\g<0>{_JOINER}", visible)
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", bounded).casefold()).replace(_JOINER, "")
    return " ".join(folded.replace("i\u0307", "i").split())  # the Turkish capital İ folds to i and a dot


def _with_edges(text: str) -> str:
    edged = text.translate({ord(char): _edged(char) for char in _WITH_EDGES.findall("".join(set(text)))})
    return edged.replace(_EDGE + _NO_EDGE, "").replace(_NO_EDGE, "")


def _edged(char: str) -> str:
    """The character with the edges that it has by itself, whatever stands beside it.

    A combining mark has none before it, for it belongs to the letter there.
    """
    if unicodedata.category(char)[0] == "M":
        return f"{_NO_EDGE}{char}{_EDGE if _IS_UNSPACED.match(char) else ''}"
    return f"{_EDGE}{char}{_EDGE}"
