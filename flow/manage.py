"""Changing what a store holds: forgetting results on purpose, asking a run to stop, collecting garbage."""

from __future__ import annotations

from datetime import timedelta

from flow.resolve import Resolver
from flow.runstate import cancel_key, read_state, runs
from flow.session import Session
from stages.contract.clock import now, stamp
from stages.contract.errors import bad_settings
from stages.contract.manifest import manifest_key, read_manifest, shard_prefix
from stages.contract.store import Entry, Store


def forget(session: Session, node: str, shards: tuple[int, ...], down: bool) -> int:
    """Removes a node's artifact, or some of its shards, so that the next run makes it again.

    What is made from it runs again if its content comes out different, or in any case with `down`.

    Returns:
        The number of removed objects.
    """
    session.graph.node(node)
    resolver = Resolver(session.graph, session.store)
    resolver.look()
    if node not in resolver.resolved:
        return 0  # what it needs is not complete: there is nothing of it to forget
    removed = 0
    names = session.graph.downstream(node) if down else (node,)
    for name in names:
        if name in resolver.resolved:
            removed += _forget(session.store, resolver, name, shards if name == node else ())
    return removed


def _forget(store: Store, resolver: Resolver, name: str, shards: tuple[int, ...]) -> int:
    key = resolver.resolved[name].key
    if not shards:
        doomed = [entry.key for entry in store.list(f"{key}/")]
    else:
        count = resolver.layout(name).shards
        wrong = [shard for shard in shards if not 0 <= shard < count]
        if wrong:
            raise bad_settings(f"{name} has no shard {wrong[0]}", hint=f"it has 0 to {count - 1}")
        doomed = [manifest_key(key)]
        for shard in shards:
            doomed += [entry.key for entry in store.list(f"{shard_prefix(key, shard)}/")]
    # Manifests first: whatever is interrupted here leaves no manifest that lists missing files.
    store.delete([each for each in doomed if each == manifest_key(key)])
    store.delete([each for each in doomed if each.endswith("manifest.json")])
    store.delete(doomed)
    return len(doomed)


def cancel(session: Session) -> str:
    """Asks a run to stop and says what will happen."""
    run = session.graph.run
    state = read_state(session.store, run)
    if state is None or state.phase != "running":
        return f"{run} is not running"
    session.store.put(cancel_key(run), stamp().encode())
    return f"{run} stops within seconds; what is committed stays, and montessori run carries on"


def orphans(store: Store, days: float) -> list[Entry]:
    """What can be removed: data that no manifest lists beside a finished shard, and old artifacts of no run."""
    used = _used_artifacts(store)
    young = stamp(now() - timedelta(days=days))
    found: list[Entry] = []
    for prefix, entries in _artifacts(store).items():
        manifest = read_manifest(store, prefix)
        if manifest is None:
            continue  # it may be in the making
        if prefix not in used and manifest.finished < young:
            found += entries
            continue
        listed = {f"{prefix}/{file}" for file in _listed_files(store, prefix)}
        found += [
            entry
            for entry in entries
            if ("/attempt=" in entry.key or "/checkpoints/" in entry.key) and entry.key not in listed
        ]
    return found


def collect(store: Store, entries: list[Entry]) -> None:
    """Deletes orphans, manifests first."""
    store.delete([entry.key for entry in entries if entry.key.endswith("manifest.json")])
    store.delete([entry.key for entry in entries])


def _artifacts(store: Store) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {}
    for entry in store.list("artifacts/"):
        found.setdefault("/".join(entry.key.split("/")[:3]), []).append(entry)
    return found


def _listed_files(store: Store, prefix: str) -> set[str]:
    from stages.contract.artifact import Artifact

    return {file.key for file in Artifact(store, prefix).files()}


def _used_artifacts(store: Store) -> set[str]:
    used: set[str] = set()
    for run in runs(store):
        resolved = store.get_json(f"runs/{run}/resolved.json")
        if isinstance(resolved, dict):
            used.update(node["key"] for node in resolved["nodes"].values())
    return used
