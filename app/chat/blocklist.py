"""Blocked words, found in a text as whole words, in any script.

Words are the same if they are the same to Unicode (after NFKC and case folding); mere look-alikes are not.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

# Invisible characters: Unicode's control characters (but those that separate words) and format characters, its
# Default_Ignorable_Code_Point (the joiner, the fillers, the variation selectors), and the Arabic tatweel, which only
# makes a word longer.
_INVISIBLE = re.compile(
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
# Normalization sorts the combining marks after a letter, in a time that grows with the square of their number. A joiner
# after each 32 bounds that (as in the Stream-Safe Text Format, UAX #15, section 13). All marks are in \W, but for two
# halfwidth ones of Katakana.
_MARKS = re.compile("[\\W\uff9e\uff9f]{32}")
_JOINER = "\u034f"
# Characters that normalize to whole words of up to 18 letters, and musical notes, which normalize to three marks.
_LIGATURES = re.compile("[\u3300-\u3357\u337b-\u337f\ufdf0-\ufdfb\U0001d15e-\U0001d164\U0001d1bb-\U0001d1c0]")
MAX_LIGATURES = 100  # in a text with more of them, all are taken for spaces
_EDGE = "\0"  # stands where a word may begin or end; a folded text has no control characters of its own
_NO_EDGE = "\1"  # removes the edge before it


class Blocklist:
    """A list of blocked words and phrases. Case, width, composition and invisible characters make no difference."""

    def __init__(self, words: Sequence[str]) -> None:
        folded = dict.fromkeys(word for word in map(_fold, words) if word)
        marked = [_with_edges(word).strip(_EDGE) for word in folded]
        self._words = frozenset(word for word in marked if _EDGE not in word)
        self._phrases = [(_EDGE + word + _EDGE, frozenset(word.split(_EDGE))) for word in marked if _EDGE in word]
        self._dotless = any("ı" in word for word in folded)

    def found_in(self, text: str) -> bool:
        """Returns whether the text holds one of them as a whole word.

        The time is linear in the text's length, and hardly grows with the number of words, because only phrases with
        all their words in the text are searched for.
        """
        if not (self._words or self._phrases):
            return False
        # The capital of a dotless i is I, in Turkish. The language of a text is not known, so both are looked for.
        return self._found(text) or (self._dotless and "I" in text and self._found(text.replace("I", "ı")))

    def _found(self, text: str) -> bool:
        marked = _EDGE + _with_edges(_fold(text)) + _EDGE
        parts = set(marked.split(_EDGE))
        if not self._words.isdisjoint(parts):
            return True
        return any(needed <= parts and phrase in marked for phrase, needed in self._phrases)


def _fold(text: str) -> str:
    """Returns the text in one spelling for everything that counts as the same, words separated by single spaces."""
    visible = _INVISIBLE.sub("", text)
    if len(_LIGATURES.findall(visible)) > MAX_LIGATURES:
        visible = _LIGATURES.sub(" ", visible)
    bounded = _MARKS.sub(rf"\g<0>{_JOINER}", visible)
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", bounded).casefold()).replace(_JOINER, "")
    return " ".join(folded.replace("i\u0307", "i").split())  # the Turkish capital İ folds to i and a dot


def _with_edges(text: str) -> str:
    """Returns a folded text with an edge wherever a word may begin or end."""
    edged = text.translate({ord(char): _edged(char) for char in _WITH_EDGES.findall("".join(set(text)))})
    return edged.replace(_EDGE + _NO_EDGE, "").replace(_NO_EDGE, "")


def _edged(char: str) -> str:
    """Returns the character between edges. A combining mark has none before it: it belongs to the letter there."""
    if unicodedata.category(char)[0] == "M":
        return f"{_NO_EDGE}{char}{_EDGE if _IS_UNSPACED.match(char) else ''}"
    return f"{_EDGE}{char}{_EDGE}"
