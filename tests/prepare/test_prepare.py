"""The whole stage on small sources: what is kept, what is dropped and why, how it is split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from stages.contract.artifact import Artifact
from stages.contract.canonical import sha256
from stages.contract.errors import ExitCode, StageError
from stages.contract.fingerprint import fingerprint
from stages.contract.store import Store
from stages.contract.tables import write_parquet
from stages.prepare.clean import clean_text, same_instruction
from stages.prepare.settings import SPEC, PrepareSettings, Source
from tests.support import make_task, run_stage, stage_process, write_task

SEEDS = [{"instruction": f"Name {n} rivers.", "response": f"{n} rivers"} for n in range(2, 8)]
REFERENCE = [{"instruction": f"Explain topic {n}.", "response": f"Topic {n} is this."} for n in range(40)]


def jsonl(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def reference(tmp_path: Path) -> str:
    return jsonl(tmp_path / "reference.jsonl", REFERENCE)


def prepare(store: Store, seeds: Any, reference: Any, **settings: Any) -> Artifact:
    named = {"seeds": seeds, "reference": reference}
    sources = {name: {"uri": each} if isinstance(each, str) else each for name, each in named.items()}
    return run_stage(store, "prepare", {**sources, **settings})


def dropped(artifact: Artifact) -> list[tuple[str, int, str]]:
    return [(row["source"], row["line"], row["reason"]) for row in artifact.table("dropped").to_pylist()]


def test_the_bundled_rows_need_no_settings(file_store: Store) -> None:
    found = run_stage(file_store, "prepare", {})
    assert found.table("seeds").num_rows >= 175
    assert dropped(found) == []
    probe, heldout = found.table("probe").num_rows, found.table("heldout").num_rows
    assert probe > 0 and heldout > 0
    assert found.manifest.figures["kept"]["probe"] == probe


def test_texts_are_cleaned_and_duplicates_dropped_whatever_their_case_and_spacing(
    file_store: Store, tmp_path: Path, reference: str
) -> None:
    rows = [
        {"instruction": "  Name a cafe\u0301.\r\nOr two.\x07 ", "response": None},
        {"instruction": "name  a café.\nor two.", "response": "another answer"},
    ]
    found = prepare(file_store, jsonl(tmp_path / "seeds.jsonl", rows), reference)
    (kept,) = found.table("seeds").to_pylist()
    assert kept["instruction"] == "Name a café.\nOr two." and kept["response"] is None
    assert dropped(found) == [("seeds", 2, "duplicate")]
    assert found.manifest.figures["dropped"] == {"seeds": {"duplicate": 1}, "reference": {}}


def test_other_field_names_and_an_input_field(file_store: Store, tmp_path: Path, reference: str) -> None:
    rows = [
        {"task": "Translate.", "context": "Guten Tag", "answer": "Hello"},
        {"task": "Sing.", "context": ""},
    ]
    fields = {"instruction": "task", "input": "context", "response": "answer"}
    source = {"uri": jsonl(tmp_path / "seeds.jsonl", rows), "fields": fields}
    kept = prepare(file_store, source, reference).table("seeds").to_pylist()
    assert [(row["instruction"], row["response"]) for row in kept] == [
        ("Translate.\n\nGuten Tag", "Hello"),
        ("Sing.", None),
    ]


def test_parquet_gives_the_same_rows_as_json_lines(file_store: Store, tmp_path: Path, reference: str) -> None:
    write_parquet(pa.Table.from_pylist(SEEDS), tmp_path / "seeds.parquet")
    plain = prepare(file_store, jsonl(tmp_path / "seeds.jsonl", SEEDS), reference)
    table = prepare(file_store, str(tmp_path / "seeds.parquet"), reference)
    assert plain.key != table.key
    assert plain.manifest.digest == table.manifest.digest


def test_a_source_in_the_runs_own_store(file_store: Store, tmp_path: Path, reference: str) -> None:
    path = Path(jsonl(tmp_path / "seeds.jsonl", SEEDS))
    mark = sha256(path.read_bytes())
    file_store.put_file(f"inputs/{mark}/seeds.jsonl", path)
    source = {"uri": f"store:inputs/{mark}/seeds.jsonl", "digest": mark}
    assert prepare(file_store, source, reference).table("seeds").num_rows == len(SEEDS)


def test_a_dataset_by_hub_id(
    file_store: Store, tmp_path: Path, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # `datasets` takes a folder of that name before it asks the hub: the same call, without a network.
    (tmp_path / "someone" / "seeds").mkdir(parents=True)
    jsonl(tmp_path / "someone" / "seeds" / "train.jsonl", [{**row, "other": 1} for row in SEEDS])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    found = prepare(file_store, {"uri": "hf:someone/seeds", "limit": 4}, reference)
    assert found.table("seeds").column("instruction").to_pylist() == [row["instruction"] for row in SEEDS[:4]]
    with pytest.raises(StageError, match="nothere") as caught:
        prepare(file_store, {"uri": "hf:someone/seeds", "split": "nothere"}, reference)
    assert caught.value.code == ExitCode.BAD_SETTINGS


def test_a_dataset_that_is_a_script_is_refused_with_what_to_do(
    file_store: Store, tmp_path: Path, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "someone" / "script").mkdir(parents=True)
    (tmp_path / "someone" / "script" / "script.py").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StageError, match="scripts are no longer supported") as caught:
        prepare(file_store, {"uri": "hf:someone/script"}, reference)
    assert caught.value.code == ExitCode.BAD_SETTINGS
    assert "hf:someone/script" in str(caught.value) and "name the file" in str(caught.value)


def test_the_split_puts_every_row_on_one_side_and_added_rows_move_none(file_store: Store, tmp_path: Path) -> None:
    few = prepare(file_store, "builtin:seeds", jsonl(tmp_path / "few.jsonl", REFERENCE[:30]))
    many = prepare(file_store, "builtin:seeds", jsonl(tmp_path / "many.jsonl", REFERENCE[::-1]))

    def sides(artifact: Artifact) -> tuple[set[str], set[str]]:
        probe, heldout = (artifact.table(name).column("ref_id").to_pylist() for name in ("probe", "heldout"))
        return set(probe), set(heldout)

    assert sum(map(len, sides(many))) == len(REFERENCE) and not set.intersection(*sides(many))
    assert sides(few)[0] < sides(many)[0] and sides(few)[1] < sides(many)[1]


BAD_ROWS = [
    (
        '{"instruction": "a", "respons": "b"}',
        "no_field",
        "no field 'response'; the row has 'instruction', 'respons'",
    ),
    ('{"instruction": "a", "response": 7}', "not_text", "field 'response' is number, not text"),
    ('{"instruction": " ", "response": "b"}', "empty", "field 'instruction' has no text"),
    ('{"instruction": "a", "response": ""}', "empty", "field 'response' has no text"),
    ('{"instruction": "a", "response": "b"', "not_json", "not JSON: Expecting ',' delimiter at column 37"),
    ('["a", "b"]', "not_an_object", "a JSON list, not an object with fields"),
    (
        '{"instruction": "a", "response": "\\ud800"}',
        "not_utf8",
        "field 'response' holds half of a surrogate pair",
    ),
]


@pytest.mark.parametrize(("line", "reason", "words"), BAD_ROWS, ids=[words for _, _, words in BAD_ROWS])
def test_an_unusable_row_is_refused_by_file_and_line_or_dropped(
    file_store: Store, tmp_path: Path, line: str, reason: str, words: str
) -> None:
    path = tmp_path / "reference.jsonl"
    lines = [json.dumps(row) for row in REFERENCE]
    path.write_text("\n".join([lines[0], "", line, *lines[1:]]) + "\n")
    with pytest.raises(StageError) as caught:
        prepare(file_store, "builtin:seeds", str(path))
    assert (caught.value.code, caught.value.where) == (ExitCode.BAD_DATA, f"{path} line 3")
    assert caught.value.message == words
    found = prepare(file_store, "builtin:seeds", str(path), on_bad_row="drop")
    assert dropped(found) == [("reference", 3, reason)]
    assert found.table("probe").num_rows + found.table("heldout").num_rows == len(REFERENCE)


def test_broken_utf8_is_named_by_line_and_byte(file_store: Store, tmp_path: Path, reference: str) -> None:
    path = tmp_path / "seeds.jsonl"
    good = b'{"instruction": "Good."}\n'
    path.write_bytes(good + b'{"instruction": "Caf\xe9."}\n')
    with pytest.raises(StageError) as caught:
        prepare(file_store, str(path), reference)
    assert caught.value.where == f"{path} line 2"
    assert caught.value.message == f"byte 0xe9 at offset {len(good) + 20} is not UTF-8"


def test_a_byte_order_mark_is_no_error(file_store: Store, tmp_path: Path, reference: str) -> None:
    path = tmp_path / "seeds.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"instruction": "Good."}\n')
    assert prepare(file_store, str(path), reference).table("seeds").column("instruction").to_pylist() == ["Good."]


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_seed_file_ends_with_code_65_and_one_clear_line(
    file_store: Store, tmp_path: Path, reference: str, content: str
) -> None:
    (tmp_path / "seeds.jsonl").write_text(content)
    sources = {"seeds": {"uri": str(tmp_path / "seeds.jsonl")}, "reference": {"uri": reference}}
    ended = stage_process(write_task(file_store, make_task("prepare", sources)))
    assert ended.returncode == ExitCode.BAD_DATA
    said = ended.stdout + ended.stderr
    assert "the seeds are empty: no row in the file" in said and "Traceback" not in said


def test_rows_shared_between_seeds_and_reference_are_refused_by_name_or_dropped(
    file_store: Store, tmp_path: Path, reference: str
) -> None:
    shared = {"instruction": "explain  TOPIC 3.", "response": "another"}
    seeds = jsonl(tmp_path / "seeds.jsonl", [*SEEDS, shared])
    with pytest.raises(StageError, match=r"1 of 40 reference rows are also seeds.*line 4 is seed line 7") as caught:
        prepare(file_store, seeds, reference)
    assert caught.value.code == ExitCode.BAD_DATA and "prepare.overlap: drop" in str(caught.value)
    found = prepare(file_store, seeds, reference, overlap="drop")
    assert dropped(found) == [("seeds", 7, "in_reference")]
    assert found.table("seeds").num_rows == len(SEEDS)


def test_seeds_that_are_reference_rows_can_be_kept_on_purpose_and_are_counted_by_half(
    file_store: Store, tmp_path: Path
) -> None:
    rows = jsonl(tmp_path / "rows.jsonl", REFERENCE)
    found = prepare(file_store, rows, rows, overlap="keep")
    halves = {name: found.table(name).num_rows for name in ("probe", "heldout")}
    assert found.manifest.figures["seeds_in_reference"] == halves
    assert found.table("seeds").num_rows == sum(halves.values())


def test_what_becomes_of_the_overlap_is_in_the_fingerprint() -> None:
    found = {each: fingerprint(SPEC, PrepareSettings(overlap=each), {}) for each in ("refuse", "drop", "keep")}
    assert len(set(found.values())) == 3


def test_a_reference_of_one_row_cannot_be_split(file_store: Store, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="both sides need some"):
        prepare(file_store, "builtin:seeds", jsonl(tmp_path / "one.jsonl", REFERENCE[:1]))


def test_a_file_that_changed_since_the_recipe_was_resolved_is_refused(
    file_store: Store, tmp_path: Path, reference: str
) -> None:
    source = {"uri": jsonl(tmp_path / "seeds.jsonl", SEEDS), "digest": "0" * 64}
    with pytest.raises(StageError, match="and the recipe says 000000000000"):
        prepare(file_store, source, reference)


def test_a_response_field_that_no_seed_has_is_a_misspelt_one(file_store: Store, tmp_path: Path, reference: str) -> None:
    source = {"uri": jsonl(tmp_path / "seeds.jsonl", SEEDS), "fields": {"response": "anwser"}}
    with pytest.raises(StageError, match="no row has text in the field 'anwser'"):
        prepare(file_store, source, reference)


@pytest.mark.parametrize(
    ("uri", "words"),
    [("missing.jsonl", "there is no such file"), ("store:inputs/none.jsonl", "there is no such object")],
)
def test_a_source_that_is_not_there_is_a_mistake_in_the_settings(
    file_store: Store, reference: str, uri: str, words: str
) -> None:
    with pytest.raises(StageError, match=words) as caught:
        prepare(file_store, uri, reference)
    assert caught.value.code == ExitCode.BAD_SETTINGS


def test_a_damaged_parquet_file_is_named(file_store: Store, tmp_path: Path, reference: str) -> None:
    path = tmp_path / "seeds.parquet"
    path.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(StageError, match="not a readable Parquet file") as caught:
        prepare(file_store, str(path), reference)
    assert caught.value.where == str(path)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"uri": "builtin:sedes"}, "there is builtin:seeds, builtin:reference, builtin:turns"),
        ({"uri": "seeds.csv"}, "expected a name ending in .jsonl"),
        ({"uri": "seeds.jsonl", "revision": "main"}, "revision is for hf: datasets only"),
        ({"uri": "hf:org/name", "digest": "0" * 64}, "pinned by revision"),
    ],
)
def test_a_source_that_cannot_be_meant_is_refused_before_anything_runs(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Source.model_validate(values)


def test_cleaning_keeps_what_a_text_needs() -> None:
    assert clean_text("a\tb\r\n\r\nc\u200d\U0001f600\x00") == "a\tb\n\nc\u200d\U0001f600"
    assert same_instruction(" Ｎame\n a  RIVER ") == "name a river"
