import pytest

from stages.curate.words import words

TABLE = {
    "lower case, punctuation apart": (
        "Don't stop, World-wide 2nd!",
        ["don", "t", "stop", "world", "wide", "2nd"],
    ),
    "an underscore is no letter, as in rouge_score": ("snake_case", ["snake", "case"]),
    "nothing but punctuation": ("?! -- __", []),
    "an accent stays in its word": ("Un café noir", ["un", "café", "noir"]),
    "composed and decomposed are one word": ("cafe\u0301", ["café"]),
    "curly quotes separate": ("it\u2019s", ["it", "s"]),
    "Greek": ("Γράψε μια ιστορία", ["γράψε", "μια", "ιστορία"]),
    "vowel signs of Hindi stay in their word": ("हिन्दी में लिखो", ["हिन्दी", "में", "लिखो"]),
    "Chinese has a word a character": ("写一个故事。", ["写", "一", "个", "故", "事"]),
    "scripts mix": ("用Python写 3个", ["用", "python", "写", "3", "个"]),
    "full-width letters are letters": ("ＡＢＣ", ["abc"]),
    "a mark on nothing is no word": ("\u0301 a", ["a"]),
}


@pytest.mark.parametrize(("text", "expected"), TABLE.values(), ids=TABLE.keys())
def test_a_text_has_these_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected
