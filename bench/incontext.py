"""In-context scoring in our order against the plain order: seconds and prompts a second, with the same answers.

    python -m bench.incontext [--candidates 24] [--questions 20]

Each candidate is the one example before every preference question. Ours sends a candidate's requests side by side with
vLLM's prefix cache on, so that the example is computed once; the plain order is a loop over the questions, candidates
within, without a cache; two more ways take one of the two away. Candidates and questions are made by rule. An engine
that caches and one that does not each have a process of their own; loading is not counted. Answers may differ where
rounding decides between two tokens: how many do is printed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

from bench.machine import describe, save
from stages.models.settings import installed_folder
from stages.tasks.rules import RULES, Made

TASKS = ("boolean_expressions", "object_counting", "word_sorting")
OURS, PLAIN = ("example first", True), ("question by question", False)
WAYS = (OURS, ("question by question", True), ("example first", False), PLAIN)
_TOKENS = 8
_BEGUN = "So the answer is"


def drawn(task: str, count: int, seed: str) -> list[Made]:
    """`count` different questions of a task."""
    random, found = Random(f"{seed}/{task}"), dict[str, Made]()
    while len(found) < count:
        made = RULES[task].make(random)
        found.setdefault(made.question, made)
    return list(found.values())


def measured(caching: bool, candidates: int, questions: int) -> list[dict[str, Any]]:
    """Both orders in one engine: seconds, prompt tokens, and the answers by (candidate, question)."""
    from stages.generation.engines.vllm import VllmEngine
    from stages.generation.prompts import templated
    from stages.generation.request import Message, Request
    from stages.generation.settings import EngineSettings, SamplingSettings

    model: Path = installed_folder("smollm2")
    engine = VllmEngine(EngineSettings(max_model_len=1024, prefix_caching=caching), model)
    make = templated(model)
    sampling = SamplingSettings(temperature=0.0, top_p=1.0, max_tokens=_TOKENS)

    def request(shot: Made, question: Made) -> Request:
        messages: list[Message] = [
            {"role": "user", "content": shot.question},
            {"role": "assistant", "content": shot.rationale},
            {"role": "user", "content": question.question},
        ]
        return Request(make(messages, _BEGUN), 0, sampling, stop=("\n", "."))

    pairs = [
        ((task, one, other), request(shot, question))
        for task in TASKS
        for one, shot in enumerate(drawn(task, candidates, "candidate"))
        for other, question in enumerate(drawn(task, questions, "question"))
    ]
    orders = {OURS[0]: pairs, PLAIN[0]: sorted(pairs, key=lambda pair: (pair[0][0], pair[0][2], pair[0][1]))}
    engine.generate([pairs[0][1]], lambda: None)  # what is done once is not counted
    found = []
    for order, listed in orders.items():
        engine._llm.reset_prefix_cache()
        started = time.perf_counter()
        completions = engine.generate([each for _, each in listed], lambda: None)
        seconds = time.perf_counter() - started
        answers = {name: completion.text for (name, _), completion in zip(listed, completions, strict=True)}
        tokens = sum(completion.prompt_tokens for completion in completions)
        found.append({"order": order, "caching": caching, "seconds": seconds, "tokens": tokens, "answers": answers})
    return found


def _agreement(one: dict[Any, str], other: dict[Any, str]) -> float:
    return sum(one[name] == other[name] for name in one) / len(one)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and keep the figures in bench/results/."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=24, help="of each of the three tasks")
    parser.add_argument("--questions", type=int, default=20, help="of each task's preference set")
    options = parser.parse_args(arguments)
    found: dict[tuple[str, bool], dict[str, Any]] = {}
    for caching in (True, False):
        with get_context("spawn").Pool(1) as pool:
            for each in pool.apply(measured, (caching, options.candidates, options.questions)):
                found[each["order"], each["caching"]] = each
    reference = found[PLAIN]
    count = len(reference["answers"])
    print(f"{count} prompts of {reference['tokens'] / count:.0f} tokens on average")
    print(f"{'order':<22}{'prefix cache':>13}{'seconds':>9}{'prompts/s':>11}{'times plain':>13}{'same answers':>14}")
    rows = []
    for way in WAYS:
        each = found[way]
        row = {
            "order": way[0],
            "caching": way[1],
            "seconds": round(each["seconds"], 2),
            "prompts_per_second": round(count / each["seconds"], 1),
            "times_plain": round(reference["seconds"] / each["seconds"], 2),
            "same_answers": round(_agreement(each["answers"], reference["answers"]), 4),
        }
        rows.append(row)
        print(
            f"{way[0]:<22}{'on' if way[1] else 'off':>13}{row['seconds']:>9.1f}{row['prompts_per_second']:>11.1f}"
            f"{row['times_plain']:>13.2f}{row['same_answers']:>14.1%}"
        )
    line = {"machine": describe(), "prompts": count, "tokens": reference["tokens"], "ways": rows}
    print(json.dumps(line))
    save("incontext", str(count), line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
