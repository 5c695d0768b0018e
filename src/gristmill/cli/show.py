"""`gristmill show`: look into a run: its funnel, its records, what was dropped and why, where anything came from."""

from __future__ import annotations

from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gristmill.cli.options import HERE, Json, Run, WorkspaceFolder, open_run, print_json, short, table
from gristmill.core.errors import InputError

if TYPE_CHECKING:
    from gristmill.core.store import Store
    from gristmill.runs.folder import Output, RunFolder


class What(StrEnum):
    funnel = "funnel"
    records = "records"
    rejects = "rejects"
    lineage = "lineage"
    report = "report"
    log = "log"


def register(app: typer.Typer) -> None:
    app.command()(show)


def show(
    run: Run = "latest",
    what: Annotated[What, typer.Argument(help="What to look at.")] = What.funnel,
    record: Annotated[str | None, typer.Argument(help="For lineage and log: a record's id, or its beginning.")] = None,
    stage: Annotated[str | None, typer.Option(help="Only this stage.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 20,
    workspace: WorkspaceFolder = HERE,
    json: Json = False,
) -> None:
    """Show what a run made, dropped, and where it came from.

    Its funnel and exam, records, rejects, the lineage of one record, where its report lies, or what was unusual.
    """
    place, folder = open_run(workspace, run)
    if what is What.lineage:
        if record is None:
            raise typer.BadParameter("give a record's id: gristmill show RUN lineage ID")
        from gristmill.runs.lineage import lineage_json

        _lineage(lineage_json(folder, place.store, record), json)
    elif what is What.records:
        _records(folder, stage, limit, json)
    elif what is What.rejects:
        _rejects(folder, place.store, stage, limit, json)
    elif what is What.report:
        _report(folder, json)
    elif what is What.log:
        _log(folder, stage, record, limit, json)
    else:
        _funnel(folder, place.store, json)


def _report(folder: RunFolder, json: bool) -> None:
    place = folder.path / "report.html"
    if not place.exists():
        raise InputError(f"run {folder.path.name} has no report yet", "It is written when the run ends.")
    if json:
        print_json({"report": str(place)})
    else:
        typer.echo(place)


def _outputs(folder: RunFolder, stage: str | None) -> dict[str, Output]:
    outputs = folder.outputs()
    if stage is not None and stage not in outputs:
        raise InputError(f"no finished stage is called {stage}", f"Finished: {', '.join(outputs) or 'none'}.")
    return outputs if stage is None else {stage: outputs[stage]}


def _funnel(folder: RunFolder, store: Store, json: bool) -> None:
    from gristmill.cli.tables import exam_table, funnel_lines, funnel_table, stopped_words
    from gristmill.llm.budget import KILLED
    from gristmill.runs.unfinished import unfinished

    left = unfinished(folder, store)
    if json:
        print_json(funnel_lines(folder, left))
        return
    typer.echo(f"{folder.manifest['name']} ({folder.path.name})\n")
    typer.echo(funnel_table(folder, left, store.spent_by_stage(folder.path.name).get((KILLED, ""))))
    exam = exam_table(folder)
    typer.echo(f"\n{exam}" if exam else "")
    if error := folder.summary.get("error"):
        typer.echo(f"{folder.summary['state']}: {error}\n")
    if left is not None and not folder.running():
        typer.echo(stopped_words(left))


def _records(folder: RunFolder, stage: str | None, limit: int, json: bool) -> None:
    from gristmill.runs.figures import counted
    from gristmill.runs.lineage import describe

    outputs = _outputs(folder, stage)
    if not outputs:
        raise InputError(f"run {folder.path.name} has not finished a stage", "See `gristmill status`.")
    name, output = list(outputs.items())[-1]
    found = list(islice(output, limit))
    if json:
        print_json([{"id": r.id, "type": r.type, **r.model_dump(mode="json")} for r in found])
        return
    typer.echo(f"{name}: {counted(output.count, 'record')}" + (f", the first {limit}" if output.count > limit else ""))
    for record in found:
        typer.echo(f"  {describe(record)}")


def _rejects(folder: RunFolder, store: Store, stage: str | None, limit: int, json: bool) -> None:
    """Of finished stages, and of the one at which the run stands."""
    from gristmill.cli.tables import again_words
    from gristmill.runs.unfinished import unfinished

    left = unfinished(folder, store)
    under_way = left is not None and stage == left.stage
    found: dict[str, Any] = {} if under_way else dict(_outputs(folder, stage))
    if left is not None and stage in (None, left.stage):
        found[left.stage] = left
    rows: list[dict[str, Any]] = [{"stage": name, **row} for name, made in found.items() for row in made.rejects()]
    if json:
        print_json(rows[:limit])
        return
    keys = ("stage", "id", "status", "reason", "detail")
    typer.echo(table(list(keys), [[short(row[k]) for k in keys] for row in rows[:limit]]) if rows else "no rejects")
    if len(rows) > limit:
        typer.echo(f"… and {len(rows) - limit} more (--limit)")
    if rows:
        typer.echo(f"\n{again_words((row['status'] for row in rows), folder.path.name)}")


def _log(folder: RunFolder, stage: str | None, row: str | None, limit: int, json: bool) -> None:
    """The last lines, of one row (the beginning of its id will do) or of all."""
    from collections import deque

    from gristmill.core.events import read_events

    wanted = (
        line
        for line in read_events(folder.path / "log.ndjson")
        if (stage is None or line.get("stage") == stage) and str(line.get("row", "")).startswith(row or "")
    )
    found = list(deque(wanted, maxlen=limit))
    if json:
        print_json(found)
        return
    for line in found:
        data = " ".join(f"{k}={_brief(k, v)}" for k, v in line.items() if k not in ("time", "level", "event", "run"))
        typer.echo(f"{line['time'][:19].replace('T', ' ')} {line['level']:<5} {line['event']}  {data}")
    if not found:
        typer.echo("nothing unusual happened")


def _brief(name: str, value: object) -> str:
    """As much of a value as tells it apart."""
    return str(value)[:12] if name == "request" else f"{value:.3g}" if isinstance(value, float) else short(value)


def _lineage(data: dict[str, Any], json: bool) -> None:
    if json:
        print_json(data)
        return
    _branch(data["back"], 0)
    for title, lines in (("made from it", data["on"]), ("taught by", data["taught_by"])):
        if lines:
            typer.echo(f"\n{title}")
            for line in lines[:20]:
                typer.echo(f"  {line}")
    if data["exam"]:
        typer.echo("\nexam questions about it")
        for task in data["exam"][:20]:
            scores = ", ".join(f"{arm} {'right' if v == 1 else 'wrong'}" for arm, v in task["scores"].items())
            typer.echo(f"  {task['id']} {task['question']} ({' / '.join(task['answers'])}) {scores}")


def _branch(link: dict[str, Any], depth: int) -> None:
    pad = "  " * depth
    typer.echo(f"{pad}{link['summary']}  [{link['stage']}]")
    origin = link["origin"]
    if origin:
        typer.echo(f"{pad}  prompt {origin['prompt'] or '-'}, model {origin['model'] or '-'}")
    for quote in link["quotes"]:
        pages = f" p. {quote['pages'][0]}" if quote["pages"] else ""
        typer.echo(f"{pad}  “{short(quote['text'])}” {quote['path']}{pages} [{quote['start']}:{quote['end']}]")
    for parent in link["parents"]:
        _branch(parent, depth + 1)
