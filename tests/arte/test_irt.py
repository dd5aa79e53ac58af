"""Item responses: the fit recovers what answers were simulated with; the preference set is its most telling items."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import norm, spearmanr

from stages.contract.artifact import Artifact
from stages.contract.errors import ExitCode, StageError
from stages.contract.store import Store
from stages.irt.model import _SPREAD_B, _SPREAD_LOG_A, fit
from tests.arte.inputs import answered, tasks
from tests.support import run_stage


def simulated(persons: int, items: int, seed: int = 0) -> tuple[Any, Any, Any, Any]:
    """(a [I], b [I], θ [P], right [P, I])"""
    generator = np.random.default_rng(seed)
    a, b = np.exp(generator.normal(0, 0.5, items)), generator.normal(0, 1, items)
    theta = generator.normal(0, 1, persons)
    return a, b, theta, generator.random((persons, items)) < expit(a * (theta[:, None] - b))


def test_known_parameters_are_recovered_from_simulated_answers() -> None:
    a, b, theta, right = simulated(persons=3000, items=30)
    found = fit(right)
    assert found.converged
    assert np.sqrt(np.mean((found.discrimination - a) ** 2)) < 0.15
    assert np.sqrt(np.mean((found.difficulty - b) ** 2)) < 0.15
    assert np.corrcoef(found.abilities, theta)[0, 1] > 0.9


def test_the_order_of_discriminations_shows_with_few_persons_too() -> None:
    a, _, _, right = simulated(persons=200, items=40)
    assert spearmanr(fit(right).discrimination, a).statistic > 0.6


def posterior_of(right: Any, log_a: Any, b: Any) -> float:
    """Log posterior of item parameters up to a constant by the model's formula, abilities summed out plainly."""
    theta = np.linspace(-6, 6, 241)
    weight = norm.pdf(theta) / norm.pdf(theta).sum()
    chance = expit(np.exp(log_a) * (theta[:, None] - b))
    likelihood = [(weight * np.prod(np.where(answers, chance, 1 - chance), axis=1)).sum() for answers in right]
    priors = norm.logpdf(log_a, 0, _SPREAD_LOG_A).sum() + norm.logpdf(b, 0, _SPREAD_B).sum()
    return float(np.log(likelihood).sum() + priors)


def test_no_neighbour_of_the_fit_explains_the_answers_better() -> None:
    _, _, _, right = simulated(persons=60, items=8)
    found = fit(right)
    at = np.stack([np.log(found.discrimination), found.difficulty])
    best = posterior_of(right, *at)
    for place in np.ndindex(*at.shape):
        for step in (-0.05, 0.05):
            moved = at.copy()
            moved[place] += step
            assert posterior_of(right, *moved) < best


def test_the_order_of_persons_changes_no_estimate() -> None:
    _, _, _, right = simulated(persons=60, items=8)
    found, again = fit(right), fit(right[::-1])
    assert np.allclose(found.discrimination, again.discrimination, atol=1e-2)
    assert np.allclose(found.abilities, again.abilities[::-1], atol=1e-2)


def test_an_item_that_everybody_answers_alike_has_no_estimate_and_moves_no_other() -> None:
    _, _, _, right = simulated(persons=100, items=6)
    with_alike = np.column_stack([right, np.ones(100, bool), np.zeros(100, bool)])
    found, without = fit(with_alike), fit(right)
    assert np.isnan(found.discrimination[6:]).all() and np.isnan(found.difficulty[6:]).all()
    assert np.allclose(found.discrimination[:6], without.discrimination)


def test_one_person_or_answers_that_are_all_alike_are_no_crash() -> None:
    assert np.isnan(fit(np.ones((4, 3), bool)).discrimination).all()
    assert np.isfinite(fit(np.array([[True, False]])).abilities).all()
    with pytest.raises(ValueError, match="nothing to fit"):
        fit(np.zeros((0, 3), bool))


def perfectly_separated() -> Any:
    return np.array([[True] * 5] * 3 + [[False] * 5] * 3)


def test_items_that_separate_perfectly_stay_finite() -> None:
    found = fit(perfectly_separated())
    assert np.isfinite(found.discrimination).all() and found.discrimination.max() < 20


def chosen(store: Store, **settings: Any) -> Artifact:
    """Three persons a model; question 4 tells the models apart, 5 is right for all, 6 wrong for all, the rest mixed."""

    def good(item: str, shots: int) -> bool | None:
        number = int(item[-2:])
        return {4: True, 5: True, 6: False}.get(number, (number + shots) % 2 == 0)

    def bad(item: str, shots: int) -> bool | None:
        number = int(item[-2:])
        return {4: False, 5: True, 6: None}.get(number, (number + shots) % 3 == 0)

    answers = {
        f"answers.{name}": answered(store, right, role="validation", shots=(0, 1, 2))
        for name, right in (("good", good), ("bad", bad))
    }
    return run_stage(store, "irt", settings, {"tasks": tasks(store), **answers})


def test_the_most_telling_questions_come_first_and_alike_ones_only_fill_up(file_store: Store) -> None:
    made = chosen(file_store, size=5)
    rows = {row["item_id"]: row for row in made.table().to_pylist() if row["task"] == "even"}
    assert len(rows) == 6
    telling = [name for name, row in rows.items() if row["discrimination"] is not None]
    assert "even-validation-05" not in telling and "even-validation-06" not in telling and len(telling) == 4
    assert max(telling, key=lambda name: rows[name]["discrimination"]) == "even-validation-04"
    assert [name for name, row in rows.items() if row["filler"]] == ["even-validation-06"]
    figures = made.manifest.figures["tasks"]["even"]
    assert figures == {
        "questions": 6, "persons": 6, "chosen": 5, "short": 0, "fillers": 1, "alike": 2, "all_right": 1, "all_wrong": 1,
        "unparsed": 3, "answers": 36, "converged": True, "one_answer": None,
    }  # fmt: skip
    persons = made.table("persons").to_pylist()
    assert {(each["model"], each["shots"]) for each in persons} == {(m, s) for m in ("good", "bad") for s in (0, 1, 2)}
    by_model = {each["model"]: each["ability"] for each in persons if each["task"] == "even" and each["shots"] == 0}
    assert by_model["good"] > by_model["bad"]


def test_a_set_smaller_than_asked_for_is_a_figure(file_store: Store) -> None:
    figures = chosen(file_store, size=40, fill=False).manifest.figures["tasks"]["sum"]
    assert (figures["chosen"], figures["short"], figures["fillers"]) == (4, 36, 0)


def test_a_set_smaller_than_the_gate_stops_the_run(file_store: Store) -> None:
    with pytest.raises(StageError, match=r"the preference set of even has 4 questions, and 5 are asked for") as caught:
        chosen(file_store, fill=False, least=5)
    assert caught.value.code == ExitCode.GATE


def test_a_set_of_one_class_of_answers_is_a_figure(file_store: Store) -> None:
    odd_alone = lambda item, shots: int(item[-2:]) % 2 == 0 or shots > 1  # noqa: E731
    answers = {"answers.one": answered(file_store, odd_alone, role="validation", shots=(0, 1, 2))}
    found = run_stage(file_store, "irt", {"fill": False}, {"tasks": tasks(file_store), **answers})
    figures = found.manifest.figures["tasks"]
    assert (figures["even"]["one_answer"], figures["sum"]["one_answer"]) == ("No", None)


def test_a_task_whose_answers_never_parse_has_fillers_alone_and_says_so(file_store: Store) -> None:
    answers = {"answers.one": answered(file_store, lambda *_: None, role="validation", shots=(0, 1))}
    figures = run_stage(file_store, "irt", {}, {"tasks": tasks(file_store), **answers}).manifest.figures["tasks"]["sum"]
    assert (figures["unparsed"], figures["answers"]) == (12, 12)
    assert figures["fillers"] == figures["chosen"] == figures["all_wrong"] == 6
    with pytest.raises(StageError, match="6 of 6 questions are answered alike by all") as caught:
        run_stage(file_store, "irt", {"fill": False}, {"tasks": tasks(file_store), **answers})
    assert caught.value.code == ExitCode.GATE


def test_models_that_answered_other_questions_are_named(file_store: Store) -> None:
    answers = {
        "answers.one": answered(file_store, lambda *_: True, role="validation", shots=(0,)),
        "answers.two": answered(file_store, lambda *_: True, role="test", shots=(0,)),
    }
    with pytest.raises(StageError, match="two answered other questions of even"):
        run_stage(file_store, "irt", {}, {"tasks": tasks(file_store), **answers})
