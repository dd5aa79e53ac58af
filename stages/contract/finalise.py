"""Completing an artifact whose shards are all published. It needs no library that reads rows: sequencers do it too."""

from __future__ import annotations

import random

from stages.contract.canonical import sha256
from stages.contract.clock import stamp
from stages.contract.ledger import add_ledgers
from stages.contract.manifest import (
    Layout,
    Manifest,
    ShardEntry,
    ShardManifest,
    content_digest,
    decode,
    encode,
    manifest_key,
    read_manifest,
    shard_key,
)
from stages.contract.store import Store
from stages.contract.task import Task


def finalise(store: Store, task: Task, layout: Layout) -> Manifest | None:
    """Writes the artifact's manifest if every shard is published; None while some are missing.

    Whoever finishes last does this, and a sequencer does it where that process died in between: conditional
    PUT makes all of them agree.
    """
    done = read_manifest(store, task.output)
    if done is not None:
        return done
    # Mostly some are missing. Asked for in a random order, one of them is found soon; read in order, n shards that end
    # one after the other would ask for n²/2 manifests.
    order = random.sample(range(layout.shards), layout.shards)
    if any(store.size(shard_key(task.output, shard)) is None for shard in order):
        return None
    prefix = f"{task.output}/"
    shards: list[ShardManifest] = []
    entries: list[ShardEntry] = []
    for shard in range(layout.shards):
        key = shard_key(task.output, shard)
        data = store.get_or_none(key)
        if data is None:
            return None
        shards.append(decode(ShardManifest, data, f"{store.uri}/{key}"))
        entries.append(ShardEntry(shard=shard, key=key.removeprefix(prefix), sha256=sha256(data)))
    files = [file for shard in shards for file in shard.files]
    tables: dict[str, int] = {}
    for file in files:
        if file.table is not None:
            tables[file.table] = tables.get(file.table, 0) + file.rows
    manifest = Manifest(
        stage=task.stage,
        fingerprint=task.fingerprint,
        digest=content_digest(files),
        shards=tuple(entries),
        tables=tables,
        ledger=add_ledgers(each.ledger for each in shards),
        figures=shards[0].figures if layout.shards == 1 else {},
        run=task.run,
        node=task.node,
        settings=task.settings,
        inputs={name: each.model_dump(mode="json") for name, each in task.inputs.items()},
        finished=stamp(),
    )
    store.put_if_absent(manifest_key(task.output), encode(manifest))
    return read_manifest(store, task.output)
