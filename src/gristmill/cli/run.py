"""`gristmill run`: run a recipe, or go on with a run that ended early."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gristmill.cli.options import HERE, Json, LogLevel, RecipeFile, Sets, WorkspaceFolder, open_workspace, print_json
from gristmill.core.errors import StoreError
from gristmill.core.logs import LEVEL, Level

if TYPE_CHECKING:
    from gristmill.runs.execute import Outcome
    from gristmill.runs.plan import Plan
    from gristmill.runs.workspace import Workspace


def register(app: typer.Typer) -> None:
    app.command()(run)


def run(
    recipe: RecipeFile,
    name: Annotated[str | None, typer.Option(help="Call the run by this name.")] = None,
    sets: Sets = None,
    workspace: WorkspaceFolder = HERE,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    log_level: LogLevel = "info",
    json: Json = False,
) -> None:
    """Run a recipe. The same command goes on where a run ended; a finished run is shown."""
    from gristmill.runs.plan import make_plan

    plan = make_plan(recipe, sets)
    if plan.recipe.sweep is not None and not (quiet or json):
        typer.echo("one run, with the recipe's own values; `gristmill sweep` runs its trials", err=True)
    carry_out(plan, open_workspace(workspace), name=name, quiet=quiet, json=json, log=log_level)


def carry_out(
    plan: Plan,
    workspace: Workspace,
    *,
    name: str | None = None,
    quiet: bool,
    json: bool,
    log: Level,
    retry: bool = False,
) -> None:
    """Run a plan in the foreground: signals, progress, and how it ended in words or JSON and by the exit code."""
    from gristmill.cli.display import make_display
    from gristmill.runs.execute import execute

    os.environ[LEVEL] = log  # child processes hear it too
    stop = threading.Event()
    catch_signals(stop)
    with make_display(plan, workspace, quiet=quiet or json) as display:
        outcome = execute(plan, workspace, name=name, listeners=(display,), stop=stop, retry=retry)
    if json:
        print_json(_as_json(outcome))
        raise typer.Exit(outcome.error.exit_code if outcome.error else 4 * (outcome.state == "incomplete"))
    _tell(outcome, workspace)
    if outcome.error:
        raise outcome.error
    if outcome.state == "incomplete":
        raise typer.Exit(4)


def catch_signals(stop: threading.Event) -> None:
    """Once: stop at the next safe place. Twice: stop at once (nothing is lost: what was answered is on disk). The run
    may be stopping already, by `gristmill stop` or its budget of time: that is nobody's first signal."""
    asked = threading.Event()

    def handler(_signal: int, _frame: object) -> None:
        if asked.is_set():
            os._exit(130)
        asked.set()
        stop.set()
        sys.stderr.write("\nstopping after the answers under way; once more to stop at once\n")

    signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGTERM, handler)


def _as_json(outcome: Outcome) -> dict[str, Any]:
    return {"run": outcome.folder.name, "folder": str(outcome.folder), **outcome.summary, "state": outcome.state}


def _tell(outcome: Outcome, workspace: Workspace) -> None:
    from gristmill.cli.tables import exam_table, funnel_table, stopped_words
    from gristmill.llm.budget import KILLED
    from gristmill.runs.folder import RunFolder
    from gristmill.runs.unfinished import unfinished

    folder = RunFolder(outcome.folder)
    readable = not isinstance(outcome.error, StoreError)  # else what is in the store cannot be told
    left = unfinished(folder, workspace.store) if readable else None
    ledger = workspace.store.spent_by_stage(folder.path.name) if readable else {}
    typer.echo(funnel_table(folder, left, ledger.get((KILLED, ""))))
    exam = exam_table(folder)
    if exam:
        typer.echo(f"\n{exam}")
    for why, stages in _skipped(outcome.summary.get("skipped", {})).items():
        typer.echo(f"\nnot needed: {', '.join(stages)} ({why})")
    if outcome.state == "shown":
        typer.echo("\nThis run was finished before; nothing was done again.")
    if outcome.summary.get("dead_letters"):
        typer.echo(f"\n{_lost(outcome.summary['funnel'].values(), folder.path.name)}")
    if left is not None:
        typer.echo(f"\n{stopped_words(left)}")
    if outcome.error is None and outcome.summary.get("hint"):
        typer.echo(f"\n{outcome.summary['hint']}")
    typer.echo(f"\nrun     {outcome.folder}\nreport  {outcome.folder / 'report.html'}")


def _skipped(stages: dict[str, str]) -> dict[str, list[str]]:
    """Stages of rounds that were not needed, by the reason."""
    found: dict[str, list[str]] = {}
    for stage, why in stages.items():
        found.setdefault(why, []).append(stage)
    return found


def _lost(funnel: Iterable[dict[str, Any]], run: str) -> str:
    """What became of records that a model, or a stage's code, could not do anything with, and what asks again."""
    from gristmill.runs.figures import counted

    counts = list(funnel)
    failed = sum(sum(count["failed"].values()) for count in counts)
    unasked = sum(count["unreachable"] for count in counts)
    why = f"`gristmill show {run} rejects` says why"
    if not failed:
        return f"{counted(unasked, 'record')} could not be asked: {why}, the same command asks again."
    if not unasked:
        return f"{counted(failed, 'record')} failed: {why}, `gristmill retry {run}` asks again."
    return (
        f"{counted(failed, 'record')} failed and {unasked} could not be asked: {why}, `gristmill retry {run}` asks "
        f"again for all, the same `gristmill run` for the {unasked} alone."
    )
