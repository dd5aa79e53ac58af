"""Pairs of questions and of rationales by score.

A question's score is the mean of its rationales'. A question pair is one of a task's top quarter against one of its
bottom quarter, under the prompt that the better one was drafted with; a rationale pair is the best against the worst of
a question, under the naive prompt. Equal scores make no pair, nor do equal texts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

from stages.contract.canonical import content_id
from stages.curate.split import first_side
from stages.generation.seeds import random_for
from stages.preferences.settings import PreferencesSettings

Row = dict[str, Any]
_Side = tuple[str, str, float]  # output, id, score


@dataclass
class Made:
    """The pairs, and why a task (question pairs) or a question (rationale pairs) has none, by kind of pair."""

    rows: list[Row] = field(default_factory=list)
    without: dict[str, Counter[str]] = field(default_factory=lambda: {"question": Counter(), "rationale": Counter()})


def build(rationales: Sequence[Row], questions: Sequence[Row], settings: PreferencesSettings) -> Made:
    """All pairs, split once by prompt into train and held-out ones.

    Args:
        rationales: scored ones: instruction_id, response_id, task, prompt, output, score.
        questions: instruction_id, task, prompt_id, prompt, output.
    """
    made = Made()
    of_question: defaultdict[str, list[Row]] = defaultdict(list)
    for row in sorted(rationales, key=lambda row: str(row["response_id"])):
        of_question[row["instruction_id"]].append(row)
    of_task: defaultdict[str, list[Row]] = defaultdict(list)
    for question in sorted(questions, key=lambda row: str(row["instruction_id"])):
        of_task[question["task"]].append(question)
    for task, some in sorted(of_task.items()):
        if settings.optimise != "rationales":
            made.rows += _question_pairs(task, some, of_question, settings, made.without["question"])
        if settings.optimise != "questions":
            made.rows += _rationale_pairs(some, of_question, settings, made.without["rationale"])
    heldout = first_side([row["prompt_id"] for row in made.rows], seed=settings.seed, share=settings.heldout_share)
    for row in made.rows:
        row["split"] = "heldout" if row["prompt_id"] in heldout else "train"
    return made


def _question_pairs(
    task: str,
    questions: Sequence[Row],
    of_question: Mapping[str, list[Row]],
    settings: PreferencesSettings,
    why: Counter[str],
) -> list[Row]:
    scores = {
        name: mean(row["score"] for row in of_question[name])
        for name in (each["instruction_id"] for each in questions)
        if name in of_question
    }
    ranked = sorted(
        (each for each in questions if each["instruction_id"] in scores),
        key=lambda each: (-scores[each["instruction_id"]], each["instruction_id"]),
    )
    if len(ranked) < 2:
        why["fewer_than_two_scored"] += 1
        return []
    size = max(1, int(len(ranked) * settings.quarter))
    possible = [
        (better, worse)
        for better in ranked[:size]
        for worse in ranked[-size:]
        if scores[better["instruction_id"]] > scores[worse["instruction_id"]] and better["output"] != worse["output"]
    ]
    if not possible:
        why["all_alike"] += 1
        return []
    count = min(settings.question_pairs, len(possible))
    drawn = random_for("question pairs", settings.seed, task).sample(possible, count)

    def side(question: Row) -> _Side:
        return question["output"], question["instruction_id"], scores[question["instruction_id"]]

    return [
        _pair("question", task, better["prompt_id"], better["prompt"], side(better), side(worse))
        for better, worse in drawn
    ]


def _rationale_pairs(
    questions: Sequence[Row], of_question: Mapping[str, list[Row]], settings: PreferencesSettings, why: Counter[str]
) -> list[Row]:
    def side(row: Row) -> _Side:
        return row["output"], row["response_id"], row["score"]

    found = []
    for question in questions:
        name = question["instruction_id"]
        rows = of_question.get(name, [])
        if len(rows) < 2:
            why["fewer_than_two_scored"] += 1
            continue
        best = max(rows, key=lambda row: row["score"])
        worst = min(rows, key=lambda row: row["score"])
        if best["score"] == worst["score"]:
            why["all_alike"] += 1
        elif best["output"] == worst["output"]:
            why["same_output"] += 1
        else:
            found.append(_pair("rationale", question["task"], name, best["prompt"], side(best), side(worst)))
    found.sort(key=lambda row: (-row["gap"], row["pair_id"]))
    why["over_rationale_pairs"] += max(0, len(found) - settings.rationale_pairs)
    return found[: settings.rationale_pairs]


def _pair(kind: str, task: str, prompt_id: str, prompt: str, chosen: _Side, rejected: _Side) -> Row:
    return {
        "pair_id": content_id("pair", chosen[1], rejected[1]),
        "kind": kind,
        "task": task,
        "prompt_id": prompt_id,
        "prompt": prompt,
        "chosen": chosen[0],
        "rejected": rejected[0],
        "chosen_id": chosen[1],
        "rejected_id": rejected[1],
        "chosen_score": chosen[2],
        "rejected_score": rejected[2],
        "gap": chosen[2] - rejected[2],
        "gap_stderr": None,
    }
