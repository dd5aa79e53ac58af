"""What counts as a word when two instructions are compared.

On ASCII text this is exactly the tokenisation of the `rouge_score` package without its stemmer: lower case,
maximal runs of [a-z0-9]. That rule leaves nothing of Greek or Hindi and cuts "café" to "caf", so elsewhere a
word is a maximal run of letters, digits and combining marks of any script, after NFKC. Scripts that put no
spaces between words give one word a character, since a whole sentence as one word would match only itself.

Not guaranteed: the scores that `rouge_score` itself would give for text with non-ASCII letters.
"""

import re
import unicodedata

_ASCII_WORD = re.compile(r"[a-z0-9]+")

# First and last code point of the scripts written without spaces between words.
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x3400, 0x4DBF),  # Han, extension A
    (0x4E00, 0x9FFF),  # Han
    (0xF900, 0xFAFF),  # Han, compatibility
    (0x20000, 0x3FFFF),  # Han, further extensions
)


def words(text: str) -> list[str]:
    """The words of a text in order, lower case; empty if it has no letter and no digit."""
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    found: list[str] = []
    run: list[str] = []
    for character in unicodedata.normalize("NFKC", text).lower():
        alone = _stands_alone(character)
        if run and (alone or not _in_word(character, run)):
            found.append("".join(run))
            run.clear()
        if alone:
            found.append(character)
        elif _in_word(character, run):
            run.append(character)
    if run:
        found.append("".join(run))
    return found


def _stands_alone(character: str) -> bool:
    point = ord(character)
    return any(low <= point <= high for low, high in _UNSPACED) and unicodedata.category(character)[0] in "LN"


def _in_word(character: str, run: list[str]) -> bool:
    """Letters and digits; a combining mark only on something that it can combine with."""
    kind = unicodedata.category(character)[0]
    return kind in "LN" or (kind == "M" and bool(run))
