"""An artifact that is not what was published is noticed before anything is made of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.contract.artifact import Artifact
from stages.contract.errors import ExitCode, StageError
from stages.contract.finalise import finalise
from stages.contract.ledger import Ledger
from stages.contract.manifest import Layout, Manifest, ShardManifest, encode, intact, manifest_key, shard_key
from stages.contract.store import FileStore, Store
from stages.contract.tables import read_parquet, write_parquet
from tests.contract.builders import LINES, WHOLE, lines, numbers, products
from tests.support import artifact_input, make_task, publish, run_stage


def refused(action: Callable[[], object]) -> str:
    """The message of an action that meets a broken artifact."""
    with pytest.raises(StageError) as caught:
        action()
    assert caught.value.code is ExitCode.BAD_DATA
    return str(caught.value)


def flip(store: Store, key: str) -> None:
    data = bytearray(store.get(key))
    data[len(data) // 2] ^= 1
    store.put(key, bytes(data))


def truncate(store: Store, key: str) -> None:
    store.put(key, store.get(key)[:-1])


def remove(store: Store, key: str) -> None:
    store.delete([key])


DAMAGE = {"a flipped bit": flip, "a missing byte": truncate, "a missing file": remove}


def test_an_artifact_reads_back_in_order(store: Store) -> None:
    artifact = lines(store, 30, shards=3)
    assert artifact.table().to_pylist() == products(30)
    assert artifact.manifest.tables == {"rows": 30}
    assert (artifact.manifest.ledger.rows_in, artifact.manifest.ledger.rows_kept) == (30, 30)
    assert [each.shard for each in artifact.shards()] == [0, 1, 2]
    assert intact(store, artifact.key, artifact.manifest)


@pytest.mark.parametrize("rows", [(0, 30), (0, 1), (4, 5), (3, 17), (29, 30), (7, 7)], ids=str)
def test_some_rows_are_read_without_the_files_of_the_others(file_store: Store, rows: tuple[int, int]) -> None:
    artifact = lines(file_store, 30, shards=3)
    start, stop = rows
    place = 0
    for file in artifact.files():
        if (place + file.rows <= start or stop <= place) and start < stop:
            remove(file_store, f"{artifact.key}/{file.key}")
        place += file.rows
    found = artifact.table(columns=("product", "number"), rows=range(*rows))
    assert found.to_pylist() == [
        {name: row[name] for name in ("product", "number")} for row in products(30)[start:stop]
    ]


def test_of_a_large_file_only_the_groups_of_some_rows_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[list[int]] = []
    whole = pq.ParquetFile.read_row_groups

    def watched(file: pq.ParquetFile, groups: list[int], *arguments: Any, **named: Any) -> pa.Table:
        read.append(groups)
        return whole(file, groups, *arguments, **named)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", watched)
    write_parquet(pa.table({"number": range(200_000)}), tmp_path / "rows.parquet")
    found = read_parquet(tmp_path / "rows.parquet", rows=range(131_000, 131_100))
    assert found["number"].to_pylist() == list(range(131_000, 131_100)) and read == [[7, 8]]


def test_a_folder_reads_back_with_its_sub_folders(store: Store, tmp_path: Path) -> None:
    artifact = run_stage(store, WHOLE, {"word": "river"})
    folder = artifact.folder(tmp_path / "cache")
    assert (folder / "word.txt").read_text() == "river"
    assert (folder / "deep" / "long.bin").read_bytes() == b"river" * 10_000
    assert artifact.table().to_pylist() == [{"word": "river"}]
    assert artifact.manifest.figures == {"letters": 5}
    assert artifact.folder(tmp_path / "cache") == folder


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_rows_are_noticed_before_use(damage: Callable[[Store, str], None], store: Store) -> None:
    artifact = lines(store, 8)
    key = f"{artifact.key}/{artifact.files()[1].key}"
    damage(store, key)
    assert key in refused(artifact.table)
    assert key in refused(lambda: run_stage(store, LINES, {}, {"rows": artifact_input(artifact)}))
    assert intact(store, artifact.key, artifact.manifest) is (damage is flip)


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_folder_is_noticed_before_use(
    damage: Callable[[Store, str], None], store: Store, tmp_path: Path
) -> None:
    artifact = run_stage(store, WHOLE, {})
    key = next(f"{artifact.key}/{each.key}" for each in artifact.files() if each.name == "deep/long.bin")
    damage(store, key)
    assert key in refused(lambda: artifact.folder(tmp_path / "cache"))
    assert not list((tmp_path / "cache").glob("artifacts/*"))


@pytest.mark.parametrize("damage", [flip, truncate, remove])
def test_a_damaged_shard_manifest_is_noticed(damage: Callable[[Store, str], None], store: Store) -> None:
    artifact = lines(store, 8, shards=2)
    damage(store, shard_key(artifact.key, 1))
    assert shard_key(artifact.key, 1) in refused(artifact.table)


@pytest.mark.parametrize("damage", [truncate, remove])
def test_a_damaged_manifest_is_noticed(damage: Callable[[Store, str], None], store: Store) -> None:
    artifact = lines(store, 8)
    damage(store, manifest_key(artifact.key))
    assert manifest_key(artifact.key) in refused(lambda: Artifact(store, artifact.key))


def test_a_manifest_that_lost_a_shard_is_noticed(store: Store) -> None:
    artifact = lines(store, 8, shards=2)
    changed = json.loads(store.get(manifest_key(artifact.key)))
    changed["shards"] = changed["shards"][:1]
    store.put(manifest_key(artifact.key), json.dumps(changed).encode())
    assert "changed after publication" in refused(Artifact(store, artifact.key, artifact.manifest.digest).table)


def test_another_artifact_in_the_place_of_the_one_meant_is_noticed(store: Store) -> None:
    first, second = lines(store, 8), lines(store, 9)
    for entry in list(store.list(f"{first.key}/")):
        store.delete([entry.key])
    for entry in list(store.list(f"{second.key}/")):
        store.put(entry.key.replace(second.key, first.key), store.get(entry.key))
    message = refused(lambda: Artifact(store, first.key, first.manifest.digest))
    assert "not what the task was written for" in message and first.key in message


def test_an_incomplete_artifact_is_not_read(store: Store) -> None:
    assert "not complete" in refused(lambda: Artifact(store, "artifacts/prepare/0123"))


def test_a_table_or_folder_that_is_not_there_is_named(file_store: Store, tmp_path: Path) -> None:
    artifact = lines(file_store, 4)
    assert "no table 'dropped'" in refused(lambda: artifact.table("dropped"))
    assert "no folder" in refused(lambda: artifact.folder(tmp_path))


def test_a_table_of_no_rows_keeps_its_columns(file_store: Store) -> None:
    schema = pa.schema([("id", pa.string())])
    empty = publish(file_store, "curate", tables={"rows": schema.empty_table()})
    assert Artifact(file_store, empty.key).table().schema == schema


def test_a_local_store_is_read_in_place(file_store: Store, tmp_path: Path) -> None:
    folder = run_stage(file_store, WHOLE, {}).folder(tmp_path / "cache")
    assert isinstance(file_store, FileStore) and folder.is_relative_to(file_store.root)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("fault", ["flipped", "removed", "a folder of it removed"])
def test_a_downloaded_copy_that_went_bad_is_downloaded_again(fault: str, s3_store: Store, tmp_path: Path) -> None:
    artifact = run_stage(s3_store, WHOLE, {})
    folder = artifact.folder(tmp_path / "cache")
    if fault == "flipped":
        (folder / "deep" / "long.bin").write_bytes(b"jello" * 10_000)
    elif fault == "removed":
        (folder / "word.txt").unlink()
    else:
        shutil.rmtree(folder / "deep")
    untouched = (folder / "word.txt").stat().st_mtime_ns if fault == "flipped" else None
    assert artifact.folder(tmp_path / "cache") == folder
    assert (folder / "deep" / "long.bin").read_bytes() == b"hello" * 10_000
    assert (folder / "word.txt").read_text() == "hello"
    assert untouched is None or (folder / "word.txt").stat().st_mtime_ns == untouched
    assert [each.name for each in folder.parent.iterdir()] == [folder.name]


def test_a_copy_left_half_downloaded_is_not_used(s3_store: Store, tmp_path: Path) -> None:
    artifact = run_stage(s3_store, WHOLE, {})
    partial = tmp_path / "cache" / "artifacts" / ".partial-killed"
    partial.mkdir(parents=True)
    (partial / "word.txt").write_text("hel")
    assert (artifact.folder(tmp_path / "cache") / "word.txt").read_text() == "hello"


def test_equal_content_has_one_digest_however_it_was_made(file_store: Store) -> None:
    rows = numbers(file_store, 50)
    digests = set()
    for shards, chunk_rows in ((1, 50), (1, 7), (3, 4), (8, 1), (9, 40)):
        store = FileStore(file_store.local_path(f"other/{shards}-{chunk_rows}") or Path())
        shutil.copytree(file_store.local_path(rows.key) or "", store.local_path(rows.key) or "")
        artifact = run_stage(store, LINES, {"chunk_rows": chunk_rows}, {"rows": rows}, shards=shards)
        assert artifact.table().to_pylist() == products(50)
        digests.add(artifact.manifest.digest)
    assert len(digests) == 1


def test_other_content_has_another_digest(file_store: Store) -> None:
    made = [lines(file_store, 8), lines(file_store, 9), lines(file_store, 8, times=3)]
    made += [run_stage(file_store, WHOLE, {"word": word}) for word in ("a", "b")]
    assert len({each.manifest.digest for each in made}) == 5


class Counting(FileStore):
    """A folder that counts how often it is asked for a manifest of a shard."""

    asked = 0

    def get_or_none(self, key: str) -> bytes | None:
        self.asked += "/shard-" in key and key.endswith("/manifest.json")
        return super().get_or_none(key)

    def size(self, key: str) -> int | None:
        self.asked += "/shard-" in key and key.endswith("/manifest.json")
        return super().size(key)


def test_shards_that_end_in_order_do_not_each_read_all_before_them(tmp_path: Path) -> None:
    store, shards = Counting(tmp_path), 64
    task = make_task(LINES, {"chunk_rows": 1}, {"rows": numbers(store, shards)}, shards=shards)
    layout = Layout(shards=shards, chunk_rows=1)
    for shard in range(shards):
        store.put_if_absent(
            shard_key(task.output, shard), encode(ShardManifest(shard=shard, attempt=1, files=(), ledger=Ledger()))
        )
        finalise(store, task, layout)
    assert len(Manifest.model_validate_json(store.get(manifest_key(task.output))).shards) == shards
    # n log n on average, which is 307; reading in order asks 2,080 times.
    assert store.asked < 1000
