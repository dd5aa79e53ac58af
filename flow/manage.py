"""Changing what a store holds: forgetting results on purpose, asking a run to stop, collecting garbage."""

from __future__ import annotations

from datetime import timedelta

from flow.resolve import Resolver
from flow.runstate import STALE_S, cancel_key, read_state, runs
from flow.session import Session
from stages.contract.clock import now, stamp
from stages.contract.errors import ExitCode, StageError, bad_settings
from stages.contract.manifest import manifest_key, read_manifest, shard_prefix
from stages.contract.store import Entry, Store


def forget(resolver: Resolver, node: str, shards: tuple[int, ...], down: bool) -> int:
    """Removes a node's artifact, or some of its shards, so that the next run makes it again.

    What is made from it runs again if its content comes out different, or in any case with `down`. The resolver, which
    has looked, remembers what is gone: use a new one afterwards.

    Returns:
        The number of removed objects.
    """
    resolver.graph.node(node)
    if node not in resolver.resolved:
        return 0  # what it needs is not complete: there is nothing of it to forget
    removed = 0
    names = resolver.graph.downstream(node) if down else (node,)
    for name in names:
        if name in resolver.resolved:
            removed += _forget(resolver.store, resolver, name, shards if name == node else ())
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
    if state is not None and state.namespace:
        raise bad_settings(
            f"{run} is run by the controller in the namespace {state.namespace}",
            where=session.store.uri,
            hint=f"montessori cancel {run} -n {state.namespace}",
        )
    if state is None or state.phase != "running" or state.age_s() > STALE_S:
        return f"{run} is not running"
    session.store.put(cancel_key(run), stamp().encode())
    return f"{run} stops within seconds; what is committed stays, and montessori run carries on"


def orphans(store: Store, days: float) -> list[Entry]:
    """What can be removed: data that no manifest lists beside a finished shard, and old artifacts of no run.

    An artifact that was never finished goes once no run that was looked after within `days` has a task for it.
    """
    used = _used_artifacts(store)
    young = stamp(now() - timedelta(days=days))
    begun = _begun_artifacts(store, young)
    found: list[Entry] = []
    for prefix, entries in _artifacts(store).items():
        try:
            manifest = read_manifest(store, prefix)
            if manifest is None:
                found += [] if prefix in begun else entries
            elif prefix not in used and manifest.finished < young:
                found += entries
            else:
                found += _unlisted(store, prefix, entries)
        except StageError as error:
            if error.code != ExitCode.BAD_DATA:
                raise
            continue  # damaged: the next run that needs it says so and makes it again
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


def _unlisted(store: Store, prefix: str, entries: list[Entry]) -> list[Entry]:
    """Data and checkpoints of attempts beside a finished artifact's own files."""
    from stages.contract.artifact import Artifact

    listed = {f"{prefix}/{file.key}" for file in Artifact(store, prefix).files()}
    return [
        entry
        for entry in entries
        if ("/attempt=" in entry.key or "/checkpoints/" in entry.key) and entry.key not in listed
    ]


def _begun_artifacts(store: Store, young: str) -> set[str]:
    """Outputs of the tasks of every run that was looked after since `young`."""
    begun: set[str] = set()
    for run in runs(store):
        state = read_state(store, run)
        if state is not None and state.updated < young:
            continue
        for key, _ in store.list(f"runs/{run}/tasks/"):
            task = store.get_json(key)
            if isinstance(task, dict):
                begun.add(str(task.get("output")))
    return begun


def _used_artifacts(store: Store) -> set[str]:
    used: set[str] = set()
    for run in runs(store):
        resolved = store.get_json(f"runs/{run}/resolved.json")
        if isinstance(resolved, dict):
            used.update(node["key"] for node in resolved["nodes"].values())
    return used
