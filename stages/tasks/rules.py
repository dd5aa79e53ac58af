"""Questions of Big-Bench-Hard types that are made by rule, with answers and rationales that are computed.

The types and their wording are those of Big-Bench-Hard (arXiv 2210.09261); the questions are our own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from stages.tasks.kinds import Kind

ENDING = "So the answer is {answer}."


@dataclass(frozen=True)
class Made:
    """One question with its answer and one way to it."""

    question: str
    answer: str
    rationale: str


@dataclass(frozen=True)
class Rule:
    """A type of question: `make` draws one."""

    kind: Kind
    category: str
    about: str
    make: Callable[[Random], Made]


def _made(question: str, steps: str, answer: str) -> Made:
    return Made(question, answer, f"{steps} {ENDING.format(answer=answer)}")


def boolean_expressions(random: Random) -> Made:
    """Two or three constants, some negated, joined by `and` (which binds closer) and `or`; now and then all negated."""
    terms = [_boolean_term(random) for _ in range(random.choice((2, 3)))]
    joined = [random.choice(("and", "or")) for _ in terms[1:]]
    text, simpler = terms[0][0], str(terms[0][1])
    sides = [[terms[0][1]]]  # operands of `and`, by operand of `or`
    for word, (term, value) in zip(joined, terms[1:], strict=True):
        text, simpler = f"{text} {word} {term}", f"{simpler} {word} {value}"
        if word == "or":
            sides.append([value])
        else:
            sides[-1].append(value)
    answer = any(all(side) for side in sides)
    steps = f"{text} = {simpler} = {answer}."
    if random.random() < 0.3:
        steps = f"{steps} not {answer} = {not answer}."
        text, answer = f"not ( {text} )", not answer
    return _made(f"{text} is", steps, str(answer))


def _boolean_term(random: Random) -> tuple[str, bool]:
    value, negated = random.random() < 0.5, random.random() < 0.5
    if not negated:
        return str(value), value
    return random.choice((f"not {value}", f"( not {value} )")), not value


_COUNTED = {
    "fruits": ("apple", "banana", "grape", "orange", "peach", "plum", "strawberry", "blackberry"),
    "vegetables": ("carrot", "cabbage", "onion", "potato", "yam", "lettuce head", "garlic", "cauliflower"),
    "musical instruments": ("flute", "violin", "drum", "piano", "trumpet", "clarinet", "accordion", "trombone"),
    "animals": ("cat", "dog", "duck", "frog", "mouse", "rabbit", "snail", "bear"),
    "objects": ("chair", "lamp", "table", "stove", "couch", "fridge", "toaster", "bed"),
}
_NUMBER_WORDS = ("zero", "one", "two", "three", "four")


def object_counting(random: Random) -> Made:
    """A list of things, some of another sort; how many of the one sort."""
    sort, other = random.sample(sorted(_COUNTED), 2)
    wanted = random.sample(_COUNTED[sort], random.randint(2, 4))
    others = random.sample(_COUNTED[other], random.randint(0, 2))
    counts = {name: random.choice((1, 1, 1, 2, 3)) for name in (*wanted, *others)}
    names = [*wanted, *others]
    random.shuffle(names)
    listed = [_some(name, counts[name]) for name in names]
    total = sum(counts[name] for name in wanted)
    sums = " + ".join(str(counts[name]) for name in names if name in wanted)
    given = ", ".join(f"{name} ({counts[name]})" for name in names if name in wanted)
    return _made(
        f"I have {_and(listed)}. How many {sort} do I have?", f"The {sort} are: {given}. {sums} = {total}.", str(total)
    )


def _some(name: str, count: int) -> str:
    if count == 1:
        return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
    plural = {"mouse": "mice", "peach": "peaches", "couch": "couches", "garlic": "garlics"}.get(name)
    if plural is None:
        berry = name.endswith("berry")
        plural = (
            f"{name[:-1]}ies"
            if berry
            else f"{name}es"
            if name.endswith(("o", "ch")) and name != "piano"
            else f"{name}s"
        )
    return f"{_NUMBER_WORDS[count]} {plural}"


def _and(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])}, and {parts[-1]}"


_SORTED = (
    "oak", "river", "stone", "cloud", "amber", "violin", "kettle", "maple", "lantern", "pepper", "garden", "falcon",
    "timber", "velvet", "copper", "island", "marble", "needle", "orchid", "puzzle", "quartz", "ribbon", "saddle",
    "tunnel", "umbrella", "valley", "window", "yellow", "zebra", "anchor", "basket", "candle", "dragon", "engine",
    "forest", "goblet", "hammer", "insect", "jacket", "kitten", "ladder", "magnet", "nickel", "oyster", "pillow",
)  # fmt: skip


def word_sorting(random: Random) -> Made:
    """Two to five words to be put in alphabetical order."""
    words = random.sample(_SORTED, random.randint(2, 5))
    ordered = " ".join(sorted(words))
    letters = ", ".join(f"{word} begins with {word[0]}" for word in words)
    return _made(
        f"Sort the following words alphabetically: List: {' '.join(words)}", f"{letters.capitalize()}.", ordered
    )


def navigate(random: Random) -> Made:
    """Steps forward and back along a line: is one back at the start?"""
    steps = [(random.choice(("forward", "backward")), random.randint(1, 6)) for _ in range(random.randint(1, 3))]
    place = sum(count if way == "forward" else -count for way, count in steps)
    if place and random.random() < 0.5:
        steps.append(("backward" if place > 0 else "forward", abs(place)))
        place = 0
    told = " ".join(f"Take {count} step{'s' if count > 1 else ''} {way}." for way, count in steps)
    sums = " ".join(f"{'+' if way == 'forward' else '-'} {count}" for way, count in steps)
    return _made(
        "If you follow these instructions, do you return to the starting point? Always face forward. "
        f"{told}\nOptions:\n- Yes\n- No",
        f"Forward counts up and backward counts down: 0 {sums} = {place}.",
        "No" if place else "Yes",
    )


def multistep_arithmetic_two(random: Random) -> Made:
    """Two brackets of two numbers each, joined by an operation."""
    one, two, three, four = (random.randint(-9, 9) for _ in range(4))
    first, second, joined = (random.choice("+-*") for _ in range(3))
    left, right = _value(one, first, two), _value(three, second, four)
    answer = _value(left, joined, right)
    text = f"(({one} {first} {two}) {joined} ({three} {second} {four})) ="
    steps = f"({one} {first} {two}) = {left}. ({three} {second} {four}) = {right}. {left} {joined} {right} = {answer}."
    return _made(text, steps, str(answer))


def _value(left: int, operation: str, right: int) -> int:
    return {"+": left + right, "-": left - right, "*": left * right}[operation]


_NAMES = ("Alice", "Ben", "Clara", "David", "Elena", "Frank", "Grace", "Hugo", "Irene", "Jack", "Karen", "Luis")


def web_of_lies(random: Random) -> Made:
    """A chain of people who each say whether the one before tells the truth."""
    people = random.sample(_NAMES, random.randint(2, 4))
    truth = random.random() < 0.5
    told = [f"{people[0]} {'tells the truth' if truth else 'lies'}."]
    steps = [f"{people[0]} {'tells the truth' if truth else 'lies'}."]
    for before, person in pairwise(people):
        says = random.random() < 0.5
        told.append(f"{person} says {before} {'tells the truth' if says else 'lies'}.")
        truth = says == truth
        steps.append(f"So {person} {'tells the truth' if truth else 'lies'}.")
    return _made(
        f"Question: {' '.join(told)} Does {people[-1]} tell the truth?", " ".join(steps), "Yes" if truth else "No"
    )


RULES: dict[str, Rule] = {
    "boolean_expressions": Rule(
        "boolean", "logical reasoning", "the value of an expression of True, False, and, or, not", boolean_expressions
    ),
    "object_counting": Rule(
        "number", "counting and arithmetic", "how many things of a sort somebody has", object_counting
    ),
    "word_sorting": Rule(
        "words", "language understanding", "putting a list of words in alphabetical order", word_sorting
    ),
    "navigate": Rule("yes_no", "logical reasoning", "whether some steps lead back to the starting point", navigate),
    "multistep_arithmetic_two": Rule(
        "number", "counting and arithmetic", "working out a sum of several steps", multistep_arithmetic_two
    ),
    "web_of_lies": Rule(
        "yes_no", "logical reasoning", "whether the last in a chain of speakers tells the truth", web_of_lies
    ),
}
