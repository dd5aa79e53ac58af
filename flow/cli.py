"""The command line. Every command is a thin shell around a module of `flow`, imported when the command runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from flow.doctor import Check
    from flow.session import Session

app = typer.Typer(
    name="montessori",
    help="Tailor a teacher model's synthetic data to one student.",
    epilog="A first run: montessori init quickstart, montessori plan quickstart.yaml, montessori run quickstart.yaml",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

RecipePath = Annotated[Path, typer.Argument(help="the recipe, a YAML file", show_default=False)]
RunName = Annotated[
    str | None, typer.Argument(help="a run's name or its recipe; the latest run if left out", show_default=False)
]
StoreUri = Annotated[
    str | None,
    typer.Option("--store", help="a folder or s3://bucket/prefix; overrides the recipe's", show_default=False),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="override one value, such as dpo.beta=0.2; may be repeated", show_default=False),
]
PodPlace = Annotated[int, typer.Option("--pod", help="of several pods that share the shard: its place")]
Output = Annotated[str, typer.Option("-o", "--output", help="table or json")]


def main() -> NoReturn:
    """Runs the command line; a user's mistake is one clear line and the right exit code, never a traceback."""
    from stages.contract.errors import StageError

    try:
        code = app(standalone_mode=False)
    except StageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(int(error.code))
    except KeyboardInterrupt:
        sys.exit(130)
    except (PermissionError, NotADirectoryError, FileExistsError, IsADirectoryError) as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        sys.exit(64)
    except BrokenPipeError:  # `montessori … | head`
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # click's own usage errors
            print(f"error: {error.format_message()}", file=sys.stderr)
            print("montessori --help lists the commands", file=sys.stderr)
            sys.exit(64)
        if type(error).__name__ == "Abort":
            sys.exit(130)
        raise
    sys.exit(code if isinstance(code, int) else 0)


@app.command()
def init(
    recipe: Annotated[str, typer.Argument(help="a bundled recipe; see --list")] = "quickstart",
    target: Annotated[Path | None, typer.Option("--to", help="where to write it", show_default="./NAME.yaml")] = None,
    list_: Annotated[bool, typer.Option("--list", help="list the bundled recipes")] = False,
) -> None:
    """Copy a bundled recipe to a file of your own."""
    from flow.bundled import copy_recipe, listing

    if list_:
        table("bundled recipes", ("name", "about"), listing())
        return
    path = copy_recipe(recipe, target)
    print(f"wrote {path}; next: montessori plan {path}")


@app.command()
def plan(recipe: RecipePath, store: StoreUri = None, set_: Overrides = None, output: Output = "table") -> None:
    """Show what a run would do and cost, before anything is spent."""
    from flow.planned import planned, show

    found = planned(_open(recipe, store, set_, write=False))
    if is_json(output):
        print_json(found.as_json())
    else:
        show(found, table)


@app.command()
def run(
    recipe: RecipePath,
    store: StoreUri = None,
    set_: Overrides = None,
    until: Annotated[
        list[str] | None, typer.Option("--until", help="only this node and what it needs; may be repeated")
    ] = None,
    jobs: Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="shards to work on at once")] = None,
    to: Annotated[Path, typer.Option("--to", help="folder for the run's output")] = Path("runs"),
) -> int:
    """Run a recipe on this machine. Run it again to carry on after an interruption."""
    from flow.session import run_local

    return run_local(_open(recipe, store, set_, write=True), tuple(until or ()), jobs, to)


@app.command()
def status(run: RunName = None, store: StoreUri = None, output: Output = "table") -> None:
    """Show how far a run is."""
    from flow.inspect import status_lines

    session = _find(run, store)
    summary, rows = status_lines(session)
    if is_json(output):
        print_json(summary)
        return
    table(summary["headline"], ("node", "state", "shards", "time", "message"), rows)


@app.command()
def logs(
    node: Annotated[str, typer.Argument(help="the node, such as it1.influence", show_default=False)],
    run: Annotated[str | None, typer.Option("--run", help="the run; the latest if left out")] = None,
    store: StoreUri = None,
    shard: Annotated[int, typer.Option(help="the shard")] = 0,
    attempt: Annotated[int | None, typer.Option(help="the attempt; the latest if left out")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on printing")] = False,
    pod: PodPlace = 0,
) -> None:
    """Print what a node's shard printed; kept in the store, also after it died."""
    from flow.inspect import print_log

    print_log(_find(run, store), node, shard, attempt, follow, pod)


@app.command()
def rerun(
    node: Annotated[str, typer.Argument(help="the node to make again", show_default=False)],
    run: Annotated[str | None, typer.Option("--run", help="the run; the latest if left out")] = None,
    store: StoreUri = None,
    shards: Annotated[str | None, typer.Option(help="only these shards, such as 3,7")] = None,
    down: Annotated[bool, typer.Option("--down", help="also all that is made from it")] = False,
    to: Annotated[Path, typer.Option("--to", help="folder for the run's output")] = Path("runs"),
) -> int:
    """Forget what a node (or some of its shards) made, and carry the run on."""
    from flow.manage import forget
    from flow.resolve import Resolver
    from flow.session import run_local

    session = _find(run, store)
    resolver = Resolver(session.graph, session.store)
    resolver.look()
    count = forget(resolver, node, numbers(shards), down)
    print(f"removed {count} objects; running {session.graph.run}")
    return run_local(session, (), None, to)


@app.command()
def cancel(run: RunName = None, store: StoreUri = None) -> None:
    """Ask a run to stop; what is committed stays."""
    from flow.manage import cancel as ask

    print(ask(_find(run, store)))


@app.command()
def export(
    run: RunName = None,
    store: StoreUri = None,
    to: Annotated[Path, typer.Option("--to", help="folder to write RUN/ into")] = Path("runs"),
) -> None:
    """Write a run's dataset, models and report to a folder."""
    from flow.session import export_results

    print(f"wrote {export_results(_find(run, store), to)}")


@app.command()
def trace(
    row: Annotated[str, typer.Argument(help="a response_id or row number of the student's data", show_default=False)],
    run: Annotated[str | None, typer.Option("--run", help="the run; the latest if left out")] = None,
    store: StoreUri = None,
    output: Output = "table",
) -> None:
    """Show where a row of the student's training data comes from."""
    from rich.console import Console

    from flow.runstate import read_resolved
    from flow.trace import render, trace_row

    session = _find(run, store)
    found = trace_row(session.store, read_resolved(session.store, session.graph.run), row)
    if is_json(output):
        print_json(found)
    else:
        Console().print(render(found))


@app.command()
def report(
    run: RunName = None,
    store: StoreUri = None,
    to: Annotated[Path, typer.Option("--to", help="folder to write RUN/ into")] = Path("runs"),
) -> None:
    """Write a run's results and print where its report is."""
    from flow.session import export_results

    path = export_results(_find(run, store), to) / "report.html"
    print(path.absolute().as_uri())


@app.command()
def gc(
    store: StoreUri = None,
    yes: Annotated[bool, typer.Option("--yes", help="delete; without it nothing is touched")] = False,
    days: Annotated[float, typer.Option(help="spare artifacts finished more recently than this")] = 7.0,
    output: Output = "table",
) -> None:
    """Remove what no run needs: orphans of killed attempts, and artifacts of no run."""
    from flow.manage import collect, orphans

    opened = _store(store)
    found = orphans(opened, days)
    size = sum(entry.size for entry in found)
    if yes:
        collect(opened, found)
    if is_json(output):
        print_json({"objects": len(found), "bytes": size, "deleted": yes, "keys": [entry.key for entry in found]})
        return
    print(
        f"{'deleted' if yes else 'would delete'} {len(found)} objects, {size / 1e6:.1f} MB"
        + ("" if yes else "; --yes does it")
    )


@app.command()
def doctor(store: StoreUri = None, output: Output = "table") -> int:
    """Check this machine: store, models, engines, memory, GPUs."""
    from flow.doctor import checks

    return show_checks("this machine", checks(_store(store)), output)


def show_checks(title: str, found: list[Check], output: str) -> int:
    """Prints checks; returns 1 if one of them is an error."""
    if is_json(output):
        print_json([each.as_json() for each in found])
    else:
        marks = {"ok": "ok", "warning": "warning", "error": "ERROR"}
        table(title, ("check", "", "what was found"), [(c.name, marks[c.level], c.text) for c in found])
    return 1 if any(each.level == "error" for each in found) else 0


def _open(recipe: Path, store: str | None, overrides: list[str] | None, *, write: bool) -> Session:
    from flow.session import open_recipe

    return open_recipe(recipe, store, overrides or [], write=write)


def _find(run: str | None, store: str | None) -> Session:
    from flow.session import find_run

    return find_run(run, store)


def _store(store: str | None) -> Any:
    from flow.session import default_store

    return default_store(store)


def numbers(text: str | None) -> tuple[int, ...]:
    from stages.contract.errors import bad_settings

    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise bad_settings("shards are numbers with commas between", where=f"--shards {text}") from None


def is_json(output: str) -> bool:
    from stages.contract.errors import bad_settings

    if output not in ("table", "json"):
        raise bad_settings(f"unknown output {output!r}", where="-o", hint="table or json")
    return output == "json"


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, default=str))


def table(title: str, columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)
