"""A recipe opened against its store, and the things that commands do with the two."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from flow.graph import Graph, build
from flow.recipe import ENVIRONMENT_PREFIX, RecipeBase, check_recipe, merge, parse_set, read_yaml
from flow.runstate import read_recipe, read_resolved, runs, write_recipe
from flow.sources import check_models, files_here, settle_recipe
from flow.tasks import settle_prompts
from stages.contract.errors import ExitCode, StageError, bad_settings
from stages.contract.store import Store, open_store

DEFAULT_STORE = "file:.montessori"


@dataclass(frozen=True)
class Session:
    """A recipe, its store and its graph."""

    recipe: RecipeBase
    store: Store
    graph: Graph


def default_store(uri: str | None) -> Store:
    """The store that a command means: `--store`, else MONTESSORI__STORE, else `.montessori` in this folder."""
    return open_store(uri or os.environ.get(f"{ENVIRONMENT_PREFIX}STORE") or DEFAULT_STORE)


def open_recipe(path: Path, store: str | None, overrides: list[str], *, write: bool) -> Session:
    """Reads and checks a recipe as a whole and opens its store.

    Args:
        path: the YAML file.
        store: a store URI that overrides the recipe's.
        overrides: `KEY=VALUE` texts.
        write: copy local files of rows into the store and leave the recipe there, as a run does and a plan does not.

    Raises:
        StageError: BAD_SETTINGS naming every mistake.
    """
    values = parse_set(overrides)
    if store is not None:
        values = merge(values, {"store": store})
    data = read_yaml(path)
    recipe = check_recipe(data, values, where=str(path))
    check_models(recipe, str(path))
    recipe = settle_prompts(recipe, path)
    opened = open_store(recipe.store)
    named, recipe = recipe, settle_recipe(recipe, opened if write else None, str(path))
    graph = replace(build(recipe), files=files_here(named, recipe))
    if write:
        write_recipe(opened, recipe)
    return Session(recipe, opened, graph)


def find_run(run: str | None, store: str | None) -> Session:
    """A run that was started before: by name, by its recipe's path, or the latest one of the store."""
    if run is not None and (run.endswith((".yaml", ".yml")) or "/" in run):
        data = read_yaml(Path(run))
        named = os.environ.get(f"{ENVIRONMENT_PREFIX}STORE") or str(data.get("store", ""))
        opened = open_store(store or named or DEFAULT_STORE)
        name = str(data.get("name", ""))
    else:
        opened = default_store(store)
        name = run if run is not None else _latest(opened)
    recipe = read_recipe(opened, name)
    return Session(recipe, opened, build(recipe))


def _latest(store: Store) -> str:
    found = {name: _updated(store, name) for name in runs(store)}
    if not found:
        raise bad_settings("there is no run in this store", where=store.uri, hint="montessori run RECIPE starts one")
    return max(found, key=lambda name: found[name])


def _updated(store: Store, name: str) -> str:
    state = store.get_json(f"runs/{name}/state.json")
    return str(state.get("updated", "")) if isinstance(state, Mapping) else ""


def run_local(session: Session, until: tuple[str, ...], jobs: int | None, to: Path) -> int:
    """Runs on this machine with a screen, writes the output, and returns the exit code."""
    from rich.console import Console

    from flow.decide import Limits
    from flow.local import LocalRun
    from flow.screen import Screen, duration

    for name in until:
        session.graph.node(name)
    console = Console()
    to.mkdir(parents=True, exist_ok=True)  # a folder that cannot be written is said now, not when all is done
    if not os.access(to, os.W_OK | os.X_OK):
        raise bad_settings("this folder cannot be written to", where=f"--to {to}")
    settings = session.recipe.run
    run = LocalRun(session.graph, session.store, Limits(settings.retries), jobs or settings.jobs, wanted=until or None)
    with Screen(session.graph, console) as screen:
        run.on_change = screen.show
        decision = run.run()
    for failure in decision.failures:
        console.print(f"[red]{failure.node}[/red] failed (exit code {failure.code}):", highlight=False)
        console.print(f"  {failure.message}", markup=False, highlight=False, soft_wrap=True)
        where = f"--run {session.graph.run} --shard {failure.shard} --store {session.store.uri}"
        console.print(f"  montessori logs {failure.node} {where}", highlight=False, soft_wrap=True)
    if run.interrupted:
        console.print("interrupted; what is committed stays. The same command carries on.")
        return int(ExitCode.INTERRUPTED)
    if decision.failures:
        return decision.exit_code
    if until:
        return 0
    if len(run.cached) == len(session.graph.nodes):
        console.print(f"everything was cached: {len(run.cached)} of {len(session.graph.nodes)} nodes")
    path = export_results(session, to)
    spent = sum(times.seconds or 0 for name, times in run.times.items() if name not in run.cached)
    console.print(f"{path}/ holds the dataset, the models and report.html ({duration(spent)} of work)", highlight=False)
    return 0


def export_results(session: Session, to: Path) -> Path:
    """Writes the run's output to `to/RUN`; a run without a report yet is a StageError."""
    from flow.export import export_run

    resolved = read_resolved(session.store, session.graph.run)
    missing = [name for name in resolved["outputs"].values() if name not in resolved["nodes"]]
    if missing:
        raise StageError(
            f"the run is not finished: {', '.join(missing)} is missing",
            code=ExitCode.BAD_SETTINGS,
            where=session.graph.run,
            hint="montessori status shows how far it is",
        )
    return export_run(session.store, resolved, to / session.graph.run)
