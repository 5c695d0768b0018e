"""A run's state as a picture for the terminal: what it is at, what holds it back, what it has cost, what is left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gristmill.runs.figures import amount, money, span

COLUMNS = (
    (100, ("in", "out", "dropped", "calls", "tokens", "cost", "each")),
    (76, ("in", "out", "dropped", "cost")),
    (44, ("out", "cost")),
    (0, ()),
)
"""What fits on a terminal of so many columns, beside a stage's name and its progress."""

WIDE = 76
"""Columns from which on the progress is a bar."""

BESIDES = 12
"""Lines of the picture that are no stages: on a low terminal only the stages around the running one are drawn."""

STYLES = {"running": "cyan", "finished": "green", "failed": "red", "interrupted": "red", "paused": "yellow"}

State = dict[str, Any]


class Picture:
    """Draws itself as wide as the console is."""

    def __init__(self, state: State) -> None:
        self.state = state

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        state = self.state
        yield _head(state)
        room = options.height or (console.height if console.is_terminal else None)
        yield _funnel(_around(state, room), options.max_width)
        for name, said in _facts(state):
            yield Text.assemble((f"{name:<6} ", "bold"), said)


def _head(state: State) -> Text:
    style = STYLES.get(state["state"], "")
    took = f", {span(state['seconds'])}"
    return Text.assemble((state["name"], "bold"), f" ({state['id']}) ", (state["state"], style), took)


def _around(state: State, room: int | None) -> list[State]:
    """The stages that fit, the one that runs among them."""
    stages: list[State] = state["stages"]
    most = max(3, (room or 1000) - BESIDES)
    at = next((i for i, stage in enumerate(stages) if stage["name"] == state["stage"]), 0)
    first = max(0, min(at - most // 2, len(stages) - most))
    return stages[first : first + most]


def _funnel(stages: list[State], width: int) -> Table:
    wide = width >= WIDE
    names = next(names for least, names in COLUMNS if width >= least)
    rows = [(stage, _cells(stage)) for stage in stages]
    shown = [name for name in names if any(cells[name] for _, cells in rows)]
    table = Table(box=None, padding=(0, 2 if wide else 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("stage", overflow="ellipsis", no_wrap=True, max_width=28 if wide else 12)
    for name in shown:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("progress" if wide else "", no_wrap=True)
    table.add_column("", no_wrap=True, overflow="ellipsis")
    for stage, cells in rows:
        bar, words = _progress(stage, wide=wide)
        style = "dim" if stage["state"] == "waiting" else ""
        table.add_row(stage["name"], *(cells[name] for name in shown), bar, words, style=style)
    return table


def _cells(stage: State) -> dict[str, str]:
    spent = stage["spent"]
    dropped = dropped_of(stage)
    return {
        "in": amount(stage["total"]) if stage["total"] else "",
        "out": "" if stage["given"] is None else amount(stage["given"]),
        "dropped": amount(dropped) if dropped else "",
        "calls": amount(spent["calls"]) if spent["calls"] else "",
        "tokens": amount(spent["tokens"]) if spent["tokens"] else "",
        "cost": money(spent["usd"]) if spent["usd"] else "",
        "each": money(spent["usd_per_record"]) if spent["usd_per_record"] else "",
    }


def dropped_of(stage: State) -> int:
    """Records that went in and brought nothing, for whatever reason; while a stage runs, those that failed."""
    failed = stage["failed"]
    lost = failed if isinstance(failed, int) else sum(failed.values())
    return int(sum(stage["rejected"].values()) + lost + stage["unreachable"])


def _progress(stage: State, *, wide: bool) -> tuple[ProgressBar | str, str]:
    if stage["state"] == "stopped":
        return stage["state"], f"{amount(stage['done'])}/{amount(stage['total'])}"
    if stage["state"] != "running":
        return stage["state"], "" if stage["seconds"] is None else span(stage["seconds"])
    share = stage["done"] / stage["total"] if stage["total"] else 0.0
    done = f"{amount(stage['done'])}/{amount(stage['total'])}"
    if not wide:
        return f"{share:.0%}", done
    note = ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in stage["note"].items() if v)
    return ProgressBar(
        total=1.0, completed=share, width=14, complete_style="cyan", finished_style="cyan"
    ), f"{share:.0%}  {done}  {note}".rstrip()


def _facts(state: State) -> Iterator[tuple[str, str]]:
    """Everything below the table: one short fact a line."""
    for line in state["lines"]:
        yield "model", line_words(line)
    if spent := spent_words(state):
        yield "spent", spent
    if rate := state["rate"]:
        yield "rate", f"{amount(rate['answers'])} answers/s, {amount(rate['tokens'])} tokens/s"
    if left := left_words(state):
        yield "left", left
    for warning in state.get("warnings", ()):
        yield "heed", warning
    if state["error"]:
        yield "ended", state["error"]
    if state["hint"]:
        yield "", state["hint"]


def line_words(line: State) -> str:
    """What goes on at one provider, and why no more."""
    who = ", ".join(line["roles"]) or line["model"]
    waiting = f", {amount(line['waiting'])} waiting" if line["waiting"] else ""
    down = f"; down: {line['down']}" if line.get("down") else ""
    if (batches := line.get("batches")) is not None:
        noun = "batch" if batches == 1 else "batches"
        return f"{who}: {amount(line['in_flight'])} under way in {batches} {noun}{waiting}{down}"
    return f"{who}: {line['in_flight']} of {line['limit']} in flight{waiting} (limit: {line['why']}){down}"


def spent_words(state: State) -> str:
    """What was paid, and of how much; nothing where nothing was asked."""
    spent, budget = state["spent"], state["budget"]
    parts = []
    for name, show in (("usd", money), ("calls", _named("calls")), ("tokens", _named("tokens")), ("seconds", span)):
        limit = budget.get(name)
        if limit:
            parts.append(f"{show(limit['used'])} of {show(limit['limit'])}")
        elif name != "seconds" and spent[name]:
            parts.append(show(spent[name]))
    if spent["tokens_cached"]:
        parts.append(f"{amount(spent['tokens_cached'])} tokens from the provider's cache")
    if spent["unanswered"]:
        parts.append(f"{amount(spent['unanswered'])} calls unanswered but charged")
    if spent["usd_per_sample"]:
        parts.append(f"{money(spent['usd_per_sample'])} a sample")
    return ", ".join(parts)


def _named(what: str) -> Any:
    return lambda number: f"{amount(number)} {what}"


def left_words(state: State) -> str:
    stage = next((s for s in state["stages"] if s["state"] == "running" and s["left"] is not None), None)
    parts = [f"{stage['name']} about {span(stage['left'])}"] if stage else []
    if state["left"] is not None and (stage is None or state["left"] > stage["left"]):
        parts.append(f"the run about {span(state['left'])}")
    return ", ".join(parts)
