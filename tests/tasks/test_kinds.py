"""Finding answers in what models write: awkward outputs by kind, and what must not be taken for an answer."""

from __future__ import annotations

import pytest

from stages.tasks.kinds import Kind, extract, normal, same

FOUND = [
    ("boolean", "not ( True ) and ( True ) is False.", "false"),
    ("boolean", "So not True is False.", "false"),
    ("boolean", "True and False = False. So the answer is **False**.", "false"),
    ("boolean", "The answer is: TRUE", "true"),
    ("boolean", "So the answer is not True = False.", "false"),
    ("boolean", "False", "false"),
    ("yes_no", "Let's see.\n\nAnswer: Yes, because the steps cancel.", "yes"),
    ("yes_no", "no", "no"),
    ("yes_no", "So the answer is \\boxed{\\text{No}}.", "no"),
    ("choice", "The answer is (B).", "B"),
    ("choice", "The answer is B", "B"),
    ("choice", "the correct answer is option C, the red one", "C"),
    ("choice", "Options (A) and (C) are wrong, so it must be (D)", "D"),
    ("choice", "**Answer:** (a)", "A"),
    ("choice", "B)", "B"),
    ("choice", " c. ", "C"),
    ("number", "The fruits are: apple (1), plum (2). 1 + 2 = 3. So the answer is 3.", "3"),
    ("number", "The answer is 1,234.50 dollars", "1234.5"),
    ("number", "So the answer is −7.", "-7"),
    ("number", "So the answer is 2 + 5 = 7.", "7"),
    ("number", "I counted eight animals.", "8"),
    ("number", "The answer is twelve", "12"),
    ("number", "The answer is 007", "7"),
    ("number", "Answer: 4\nAnswer: 5", "5"),
    ("words", "So the answer is Amber, oak; and-so river.", "amber oak and-so river"),
    ("words", "The sorted list:\namber oak", "amber oak"),
    ("words", "Answer: 1. amber 2. oak", "amber oak"),
    ("words", "1. amber\n2. oak", "amber oak"),
    ("words", "So the answer is:\n- amber\n- oak\n\nI sorted them by letter.", "amber oak"),
    ("words", "The answer is amber, oak, and river.", "amber oak river"),
    ("number", "The answer is twenty-five.", "25"),
    ("number", "I counted ninety two of them.", "92"),
    ("boolean", "The answer is not True.", "false"),
    ("choice", "The answer is A because it is red", "A"),
    ("choice", "So the answer is B 01/02/2003", "B"),
    ("choice", "The answer is (B). I cannot see another.", "B"),
    ("yes_no", "So the answer is Yes. I do not end where I began.", "yes"),
    ("number", "There are 5, I do not count the dog.", "5"),
    ("boolean", "The answer is not (True)", "false"),
    ("boolean", "The answer is not True because it rains", "false"),
    ("words", "The answer is\n* amber\n* oak", "amber oak"),
    ("words", "* amber\n* oak", "amber oak"),
    ("words", "So the answer is:\nHere is the sorted list:\n- amber\n- oak", "amber oak"),
    ("brackets", "So the answer is ] ) }.", "] ) }"),
    ("brackets", "])}", "] ) }"),
    ("text", "The answer is  Blue   Whale.", "blue whale"),
]
NOT_FOUND = [
    ("boolean", "I do not know."),
    ("boolean", ""),
    ("yes_no", "Nothing is known about yesterday."),
    ("choice", "A good question! I cannot say."),
    ("choice", "The answer is All of them"),
    ("number", "There are several."),
    ("number", "version v2x"),
    ("number", "So the answer is 2 + 5 ="),
    ("number", "The answer is 2 + 5 = ?"),
    ("brackets", "I am not sure (sorry)."),
    ("words", "1 2 3"),
    ("words", "I do not know"),
    ("words", "So the answer is that I cannot sort these."),
    ("words", "Here is the list of words sorted"),
    ("text", "The answer is that I do not know"),
    ("boolean", "So the answer is False, not True."),
    ("boolean", "That comes to False and not False."),
    ("boolean", "I do not know whether it is True or False"),
    ("number", "There are apples.\nI don't know. 1 and 2"),
    ("choice", "I'm not sure (A)"),
    ("choice", "The answer is I do not know"),
    ("text", "   "),
]


@pytest.mark.parametrize(("kind", "output", "answer"), FOUND)
def test_an_answer_is_found_however_it_is_wrapped(kind: Kind, output: str, answer: str) -> None:
    assert extract(kind, output) == answer


@pytest.mark.parametrize(("kind", "output"), NOT_FOUND)
def test_what_is_no_answer_is_none_and_never_a_guess(kind: Kind, output: str) -> None:
    assert extract(kind, output) is None


def test_of_an_output_that_was_cut_off_only_a_told_answer_counts() -> None:
    cut_off = "There are 1 apple and 2 plums, so that is"
    assert extract("number", cut_off) == "2" and extract("number", cut_off, complete=False) is None
    assert extract("number", "So the answer is 3. Let me check that: 1 and", complete=False) == "3"


def test_the_longer_of_two_labels_is_read_where_one_is_in_the_other() -> None:
    labels = ("valid", "not valid")
    assert extract("labels", "So the answer is not valid.", labels) == "not valid"
    assert extract("labels", "So the answer is Valid", labels) == "valid"
    assert extract("labels", "So the answer is invalid", ("valid", "invalid")) == "invalid"
    assert extract("labels", "perhaps", labels) is None


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("So the answer is not valid.", "invalid"),
        ("The argument is not deductively valid.", "invalid"),
        ("It isn't a logically valid argument", "invalid"),
        ("So the answer is that it cannot be valid", "invalid"),
        ("So the answer is non-valid", "invalid"),
        ("So the answer is not invalid, it is valid", "valid"),
        ("The premises are not all true, so the argument is invalid.", "invalid"),
        ("The conclusion does not follow and it is invalid", "invalid"),
        ("There is no doubt that it is valid", "valid"),
        ("This does not help\nvalid", "valid"),
        ("So the answer is not clear whether valid", None),
        ("So the answer is not considered valid", None),
        ("So the answer is not only valid", None),
        ("So the answer is neither valid nor invalid", None),
    ],
)
def test_a_label_that_is_denied_is_never_read_as_it(output: str, answer: str | None) -> None:
    assert extract("labels", output, ("valid", "invalid")) == answer


def test_a_denied_label_of_more_than_two_is_none_and_one_of_yes_and_no_the_other() -> None:
    assert extract("labels", "So the answer is not neutral", ("positive", "neutral", "negative")) is None
    assert extract("yes_no", "So the answer is not yes") == "no"
    assert extract("yes_no", "So the answer is No, not yes.") == "no"
    assert extract("boolean", "So the answer is that it is not True") == "false"
    assert extract("boolean", "The expression isn't True.") == "false"


def test_the_last_answer_that_is_told_counts() -> None:
    assert extract("yes_no", "Is the answer: no? The answer is yes.") == "yes"
    assert extract("boolean", "The answer is unclear, but the answer is True.") == "true"


def test_an_answer_told_before_a_line_break_is_still_told() -> None:
    assert extract("choice", "So the answer is\n\n(C)") == "C"


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("boolean", "True"),
        ("yes_no", "No"),
        ("choice", "(B)"),
        ("number", "-12"),
        ("words", "a b"),
        ("brackets", "] )"),
    ],
)
def test_a_known_answer_is_found_in_the_sentence_that_tells_it(kind: Kind, answer: str) -> None:
    assert same(kind, extract(kind, f"First this. So the answer is {answer}."), answer)
    assert not same(kind, None, answer)


def test_words_of_a_refusal_may_be_an_answer() -> None:
    assert normal("words", "the unknown oak") == "the unknown oak"
    assert extract("labels", "The answer is cannot be determined", ("true", "cannot be determined")) == (
        "cannot be determined"
    )


def test_what_is_no_answer_of_its_kind_has_no_normal_form() -> None:
    assert normal("number", "many") is None
    assert normal("labels", "maybe", ("yes", "no")) is None
