"""The program `montessori`: flow's commands, those that a cluster adds, and `-n` on those that both know.

Every command is a thin shell; what a cluster needs is imported when a command names one, so that `--help` stays quick.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from flow import cli
from flow.cli import Output, Overrides, PodPlace, RecipePath, RunName, StoreUri, app

Namespace = Annotated[
    str | None,
    typer.Option("-n", "--namespace", help="of the cluster that KUBECONFIG means", show_default=False),
]
Named = Annotated[str | None, typer.Option("--run", help="the run; the latest if left out")]
To = Annotated[Path, typer.Option("--to", help="folder to write RUN/ into")]


def main() -> NoReturn:
    """Runs the command line; see `flow.cli.main`."""
    cli.main()


def _instead(command: Callable[..., Any]) -> Callable[..., Any]:
    """Puts a command in the place of flow's command of the same name; a new one comes last."""
    place = next(
        (
            number
            for number, each in enumerate(app.registered_commands)
            if each.callback and each.callback.__name__ == command.__name__
        ),
        None,
    )
    app.command()(command)
    if place is not None:
        app.registered_commands[place] = app.registered_commands.pop()
    return command


@_instead
def plan(
    recipe: RecipePath,
    store: StoreUri = None,
    set_: Overrides = None,
    output: Output = "table",
    namespace: Namespace = None,
) -> None:
    """Show what a run would do and cost, before anything is spent."""
    if namespace is not None:
        from k8s.submit import use_cluster

        store = use_cluster(namespace, store)
    cli.plan(recipe, store, set_, output)


@_instead
def status(run: RunName = None, store: StoreUri = None, output: Output = "table", namespace: Namespace = None) -> None:
    """Show how far a run is."""
    if namespace is None:
        cli.status(run, store, output)
        return
    from k8s import access, follow

    found = access.find(access.connect(namespace), run)
    if cli.is_json(output):
        cli.print_json({"run": found["metadata"]["name"], **access.status_of(found)})
        return
    cli.table(follow.headline(found), follow.COLUMNS, follow.rows(found))
    for line in follow.troubles(found):
        print(line)


@_instead
def logs(
    node: Annotated[str, typer.Argument(help="the node, such as it1.influence", show_default=False)],
    run: Named = None,
    store: StoreUri = None,
    shard: Annotated[int, typer.Option(help="the shard")] = 0,
    attempt: Annotated[int | None, typer.Option(help="the attempt; the latest if left out")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on printing")] = False,
    pod: PodPlace = 0,
    namespace: Namespace = None,
) -> None:
    """Print what a node's shard printed; kept in the store, also after it died."""
    if namespace is None:
        cli.logs(node, run, store, shard, attempt, follow, pod)
        return
    from k8s import access
    from k8s.follow import print_log

    print_log(access.connect(namespace), node, run, store, shard, attempt, follow, pod)


@_instead
def rerun(
    node: Annotated[str, typer.Argument(help="the node to make again", show_default=False)],
    run: Named = None,
    store: StoreUri = None,
    shards: Annotated[str | None, typer.Option(help="only these shards, such as 3,7")] = None,
    down: Annotated[bool, typer.Option("--down", help="also all that is made from it")] = False,
    to: Annotated[Path, typer.Option("--to", help="folder for the run's output")] = Path("runs"),
    namespace: Namespace = None,
) -> int:
    """Forget what a node (or some of its shards) made, and carry the run on."""
    if namespace is None:
        return cli.rerun(node, run, store, shards, down, to)
    from k8s import access

    client = access.connect(namespace)
    name = access.find(client, run)["metadata"]["name"]
    print(access.rerun(client, name, node, cli.numbers(shards), down))
    return 0


@_instead
def cancel(run: RunName = None, store: StoreUri = None, namespace: Namespace = None) -> None:
    """Ask a run to stop; what is committed stays."""
    if namespace is None:
        cli.cancel(run, store)
        return
    from k8s import access

    client = access.connect(namespace)
    print(access.cancel(client, access.find(client, run)["metadata"]["name"]))


@_instead
def export(run: RunName = None, store: StoreUri = None, to: To = Path("runs"), namespace: Namespace = None) -> None:
    """Write a run's dataset, models and report to a folder."""
    cli.export(*_in_store(run, store, namespace), to)


@_instead
def trace(
    row: Annotated[str, typer.Argument(help="a response_id or row number of the student's data", show_default=False)],
    run: Named = None,
    store: StoreUri = None,
    output: Output = "table",
    namespace: Namespace = None,
) -> None:
    """Show where a row of the student's training data comes from."""
    cli.trace(row, *_in_store(run, store, namespace), output)


@_instead
def report(run: RunName = None, store: StoreUri = None, to: To = Path("runs"), namespace: Namespace = None) -> None:
    """Write a run's results and print where its report is."""
    cli.report(*_in_store(run, store, namespace), to)


@_instead
def doctor(store: StoreUri = None, output: Output = "table", namespace: Namespace = None) -> int:
    """Check this machine, or with -n a cluster: store, models, engines, memory, GPUs; rights, controller."""
    if namespace is None:
        return cli.doctor(store, output)
    from k8s.doctor import checks

    return cli.show_checks("the cluster", checks(namespace, store), output)


@_instead
def submit(
    recipe: RecipePath,
    namespace: Namespace = None,
    store: StoreUri = None,
    set_: Overrides = None,
) -> None:
    """Run a recipe on a cluster. Submit it again to change it, or to carry it on after a failure."""
    from k8s.submit import submit_recipe

    print(submit_recipe(recipe, namespace, store, set_ or []))


@_instead
def watch(run: RunName = None, namespace: Namespace = None) -> int:
    """Print what happens to a run on a cluster until it is over; the exit code is the run's."""
    from k8s import access
    from k8s.follow import watch as follow_run

    client = access.connect(namespace)
    return follow_run(client, access.find(client, run)["metadata"]["name"])


def _in_store(run: str | None, store: str | None, namespace: str | None) -> tuple[str | None, str | None]:
    """The run's name and its store; of a run on a cluster the store that its status names."""
    if namespace is None:
        return run, store
    from k8s.follow import place

    return place(namespace, run, store)


if __name__ == "__main__":
    main()
