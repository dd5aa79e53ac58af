import pytest

from stages.curate.filters import Drop, Reason, has_odd_start, reason_to_drop, repetition, unsuitable_word

VERDICTS = {
    "a plain instruction passes": ("Explain how tides work.", None),
    "no instruction": (None, Drop(Reason.UNPARSED, "")),
    "an empty instruction": ("  \n", Drop(Reason.UNPARSED, "")),
    "six characters after stripping": (" Singit ", None),
    "four characters after stripping": (" Sing ", Drop(Reason.TOO_SHORT, "4 characters")),
    "400 characters": ("Sum " + ", ".join(f"{n:03}" for n in range(79)) + ".", None),
    "401 characters": ("a " * 200 + "b", Drop(Reason.TOO_LONG, "401 characters")),
    "an image": ("Describe the Image below.", Drop(Reason.UNSUITABLE_WORD, "image")),
    "a phrase": ("Go to the shop and buy milk.", Drop(Reason.UNSUITABLE_WORD, "go to")),
    "a list item": ("- Explain how tides work.", Drop(Reason.ODD_FIRST_CHARACTER, "-")),
    "a stuck word": ("Write very very very very good prose.", Drop(Reason.REPETITIVE, "very")),
    "the first filter names the reason": ("*draw", Drop(Reason.TOO_SHORT, "5 characters")),
}


@pytest.mark.parametrize(("instruction", "expected"), VERDICTS.values(), ids=VERDICTS.keys())
def test_the_filters_name_their_reason(instruction: str | None, expected: Drop | None) -> None:
    assert reason_to_drop(instruction) == expected


def test_lengths_and_words_are_the_callers() -> None:
    assert reason_to_drop("Sing", least_characters=4) is None
    assert reason_to_drop("Sing a song", most_characters=10) == Drop(Reason.TOO_LONG, "11 characters")
    assert reason_to_drop("Draw a cat", unsuitable_words=()) is None
    assert reason_to_drop("Dance a jig", unsuitable_words=["dance"]) == Drop(Reason.UNSUITABLE_WORD, "dance")


@pytest.mark.parametrize(
    "text",
    ["Photograph in words", "Tell of profiles", "Mapping minds", "A cinematographic style", "file_name"],
)
def test_a_part_of_a_word_is_not_the_word(text: str) -> None:
    assert unsuitable_word(text) is None


def test_a_word_of_another_script_ends_at_its_own_letters() -> None:
    assert unsuitable_word("рисуйте словами", ["рисуй"]) is None
    assert unsuitable_word("рисуй словами", ["рисуй"]) == "рисуй"


STARTS = {
    "Write": False,
    "écrivez": False,
    "Напиши": False,
    "写": False,
    "हिन्दी": False,
    "3 reasons": False,
    "¿Qué es": False,
    "¡Escribe": False,
    "¿": True,
    '"Translate': True,
    "“Translate": True,
    "(a)": True,
    "<instruction>": True,
    "😀 smile": True,
    "\u0301x": True,
    "": True,
}


@pytest.mark.parametrize(("text", "odd"), STARTS.items())
def test_a_letter_or_digit_of_any_script_is_a_fine_start(text: str, odd: bool) -> None:
    assert has_odd_start(text) is odd


REPETITIONS = {
    "Describe a day and a night and a dawn.": None,
    "Play over and over and over.": None,
    "Sing no, no, no to me.": None,
    "Sort 0, 0, 0, 0, 0, 1.": None,
    "Continue: 1 0 1 0 1 0 1 0 1 0": None,
    "Fill in: the ________ is ------ blue.": None,
    "Write 1000000000 in words.": None,
    "Say aaaaaaah": "aaaaaaa",
    "List the the the the.": "the",
    "the cat sat the cat sat the cat sat": "the cat sat",
    "Explain it step by step by step by step.": "step by",
    "写写写写": "写",
}


@pytest.mark.parametrize(("text", "loop"), REPETITIONS.items())
def test_a_sampling_loop_is_seen_and_speech_is_not(text: str, loop: str | None) -> None:
    assert repetition(text) == loop


def test_a_text_that_returns_to_the_same_phrases_is_repetitive() -> None:
    phrases = ["write a long story", "tell of the sea", "write a long story", "and so on now"]
    text = " ".join(phrases + phrases[::-1] + phrases)
    assert repetition(text) == "18 of 46 word trigrams distinct"
    assert repetition(" ".join(f"{phrase} {place}th" for place, phrase in enumerate(phrases))) is None
