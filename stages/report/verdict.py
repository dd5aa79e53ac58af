"""The run's result in words, no stronger than its intervals allow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from stages.report.amounts import said
from stages.report.words import fixed, percent, plural, signed

Tone = Literal["good", "bad", "open"]
WEAK_RELIABILITY = 0.5


@dataclass(frozen=True)
class Finding:
    """One sentence of the verdict; `tone` says whether it speaks for the method, against it, or neither."""

    tone: Tone
    text: str


def verdict(numbers: Mapping[str, Mapping[str, Any]], main: str, baseline: str) -> list[Finding]:
    """The findings out of the sections' numbers, most important first; what was not measured is not mentioned."""
    found = [
        _test_seeds(numbers.get("filtered", {})),
        _unequal(numbers.get("training", {})),
        _students(numbers.get("students", {}), main, baseline),
        _students(numbers.get("students", {}), main, "base"),
        *_accuracies(numbers.get("tasks", {}), main, baseline),
        _influence(numbers.get("influence", {})),
        _reliability(numbers.get("reliability", {})),
    ]
    findings = [finding for finding in found if finding is not None]
    return findings or [
        Finding("open", "This run compared nothing: there is no result to speak of, only data and models.")
    ]


def _test_seeds(numbers: Mapping[str, Any]) -> Finding | None:
    """First of all, since it takes the others' ground away."""
    heldout = numbers.get("seeds_in_reference", {}).get("heldout")
    if not heldout:
        return None
    return Finding(
        "bad",
        f"The teacher was shown {plural(heldout, 'held-out row')} as seeds, on purpose (prepare.overlap: keep): "
        "results on held-out rows say how well a student learns the test, not how well it generalises.",
    )


def _unequal(numbers: Mapping[str, Any]) -> Finding | None:
    """Before the students, whose differences are not those of equal amounts then."""
    text = said(numbers.get("unequal", {}))
    return Finding("bad", text) if text else None


def _students(numbers: Mapping[str, Any], main: str, other: str) -> Finding | None:
    each = next((d for d in numbers.get("differences", ()) if (d["first"], d["second"]) == (main, other)), None)
    if each is None:
        return None
    than = "the untrained one" if other == "base" else f"one trained on the {other} data"
    by = f"{fixed(abs(each['value']), 4)} nats per token"
    interval = f"95 % interval of the difference {signed(each['low'])} to {signed(each['high'])}"
    if each["low"] <= 0 <= each["high"]:
        return Finding(
            "open",
            f"The student of the {main} data cannot be told from {than} on held-out rows: they differ by {by}, and the "
            f"interval includes 0 ({signed(each['low'])} to {signed(each['high'])}).",
        )
    better = each["value"] < 0
    return Finding(
        "good" if better else "bad",
        f"On held-out rows the student of the {main} data is {'better' if better else 'worse'} than {than}, by {by} "
        f"({interval}).",
    )


def _accuracies(numbers: Mapping[str, Any], main: str, baseline: str) -> list[Finding]:
    """ARTE's students on the tasks' test questions, for each number of examples."""
    found = []
    for each in numbers.get("differences", ()):
        if each["first"] != main or each["second"] not in (baseline, "base"):
            continue
        than = "the untrained one" if each["second"] == "base" else f"one trained on the {each['second']} data"
        value, low, high = (signed(100 * each[name]) for name in ("value", "low", "high"))
        told = f"after {plural(each['shots'], 'example')} ({value} points, 95 % interval {low} to {high})"
        if each["low"] <= 0 <= each["high"]:
            text = f"The student of the {main} data cannot be told from {than} by its right answers {told}."
            found.append(Finding("open", text))
        else:
            better = each["value"] > 0
            answers = f"{'more' if better else 'fewer'} right answers"
            text = f"The student of the {main} data gives {answers} than {than} {told}."
            found.append(Finding("good" if better else "bad", text))
    return found


def _influence(numbers: Mapping[str, Any]) -> Finding | None:
    moved = numbers.get("difference")
    if moved is None:
        return None
    before, after = (numbers["data"][numbers[each]] for each in ("before", "after"))
    shares = f"{percent(before['helpful'])} of rows helped before and {percent(after['helpful'])} after"
    interval = f"{signed(moved['low'])} to {signed(moved['high'])}"
    if moved["low"] <= 0 <= moved["high"]:
        return Finding(
            "open",
            f"Training the teacher did not measurably change the influence of its data: the mean moved by "
            f"{signed(moved['value'])}, and the interval includes 0 ({interval}); {shares}.",
        )
    rose = moved["value"] > 0
    return Finding(
        "good" if rose else "bad",
        f"After its training the teacher's data have {'more' if rose else 'less'} influence: the mean moved by "
        f"{signed(moved['value'])} (95 % interval {interval}); {shares}.",
    )


def _reliability(numbers: Mapping[str, Any]) -> Finding | None:
    if "within_prompt" not in numbers:
        return None
    value = numbers["within_prompt"]
    if value is None:
        why = f": {numbers['unknown']}" if numbers.get("unknown") else ""
        return Finding("open", f"How reliable the scores behind the preference pairs are is unknown{why}.")
    if value < WEAK_RELIABILITY:
        return Finding(
            "open",
            f"The pairs rest on scores whose reliability within a prompt is {fixed(value, 2)}: more of their spread is "
            "chance than a property of the instruction. More responses an instruction would raise it.",
        )
    return Finding("good", f"The scores behind the pairs have a reliability of {fixed(value, 2)} within a prompt.")
