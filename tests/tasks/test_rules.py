"""Questions made by rule: their answers, worked out another way."""

from __future__ import annotations

import re
from random import Random

import pytest

from stages.tasks.kinds import extract, same
from stages.tasks.rules import RULES


def drawn(name: str, count: int = 200) -> list:
    random = Random(name)
    return [RULES[name].make(random) for _ in range(count)]


@pytest.mark.parametrize("name", RULES)
def test_the_rationale_ends_with_the_answer_and_answers_vary(name: str) -> None:
    made = drawn(name)
    assert len({each.answer for each in made}) >= 2
    for each in made:
        assert same(RULES[name].kind, extract(RULES[name].kind, each.rationale), each.answer), each


@pytest.mark.parametrize("name", RULES)
def test_the_same_random_numbers_give_the_same_questions(name: str) -> None:
    assert drawn(name, 20) == drawn(name, 20)


def test_boolean_expressions_are_worth_what_python_says() -> None:
    for each in drawn("boolean_expressions"):
        assert str(eval(each.question.removesuffix(" is"))) == each.answer


def test_arithmetic_is_what_python_says() -> None:
    for each in drawn("multistep_arithmetic_two"):
        assert str(eval(each.question.removesuffix(" ="))) == each.answer


def test_sorted_words_are_sorted() -> None:
    for each in drawn("word_sorting"):
        assert each.answer.split() == sorted(each.question.partition("List: ")[2].split())


def test_navigating_comes_back_exactly_if_steps_cancel() -> None:
    for each in drawn("navigate"):
        steps = re.findall(r"Take (\d+) steps? (forward|backward)", each.question)
        place = sum(int(count) if way == "forward" else -int(count) for count, way in steps)
        assert each.answer == ("Yes" if place == 0 else "No")


def test_objects_of_the_sort_are_counted() -> None:
    for each in drawn("object_counting"):
        counts = [int(number) for number in re.findall(r"\((\d)\)", each.rationale)]
        assert str(sum(counts)) == each.answer
        numbers = {"a": 1, "an": 1, "two": 2, "three": 3}
        listed = re.findall(r"\b(an?|two|three)\b ", each.question.partition("I have ")[2].partition(". How")[0])
        assert sum(numbers[each] for each in listed) >= int(each.answer)


def test_lies_are_followed_person_by_person() -> None:
    for each in drawn("web_of_lies"):
        first, *others = re.findall(
            r"(\w+) (?:(tells the truth|lies)\.|says (\w+) (tells the truth|lies))", each.question
        )
        truth = {first[0]: first[1] == "tells the truth"}
        for person, _, about, said in others:
            truth[person] = truth[about] == (said == "tells the truth")
        assert each.answer == ("Yes" if truth[others[-1][0]] else "No")
