"""The page's trainings: how each went, what its loss saw, what it needed, what the model said on the way.

Everything is read from the run's `training/<stage>/`, so that a training taken over from another run is shown too, and
one that has not come to its end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import orjson

from gristmill.core.events import read_events
from gristmill.core.records import Checkpoint
from gristmill.runs.figures import counted
from gristmill.runs.folder import TRAINING, Output, RunFolder
from gristmill.runs.report import charts
from gristmill.runs.report.sheet import grid, section

Rows = list[dict[str, Any]]
Line = list[tuple[float, float]]

HALF = 420
"""Width of a chart beside another one."""

POINTS = 600
"""Of a line, at most."""

PACE = {
    "tokens_per_second": "tokens per second",
    "mfu": "share of the measured peak",
    "memory": "memory, MiB",
    "cuda_memory": "memory on the device, MiB",
    "gpu_percent": "GPU, % of the time",
    "gpu_watts": "GPU, watts",
}
_OWN = {
    *PACE,
    *("step", "time", "tokens", "supervised", "loss", "eval_loss", "lr", "grad_norm", "seconds", "eval_seconds"),
    *("best", "cpu_percent", "gpu_memory"),
}

OPEN, CLOSE = "⟦", "⟧"
"""Around what the loss sees, in a mask report."""

PARTS = ("weights", "gradients", "optimizer", "activations", "head")


def trainings(folder: RunFolder, outputs: Mapping[str, Output]) -> Iterable[str]:
    """A section for each stage that trained, or told of steps in another way."""
    told = _told(folder.path / "events.ndjson")
    stages = {path.name for path in folder.path.glob(f"{TRAINING}/*") if path.is_dir()} | told.keys()
    for stage in sorted(stages):
        place = folder.path / TRAINING / stage
        made = outputs[stage].only(Checkpoint) if stage in outputs else ()
        rows = list(read_events(place / "metrics.ndjson")) or told.get(stage, [])
        parts = (
            _loss(rows),
            _beside(rows),
            _kept(made),
            _seen(_read(place / "mask_report.json")),
            _machine(_read(place / "plan.json"), _read(place / "machine.json")),
            _spoken(list(read_events(place / "samples.ndjson"))),
        )
        yield section(f"Training: {stage}", "".join(parts))


def _told(events: Path) -> dict[str, Rows]:
    """Steps by stage as events tell them: of a stage that keeps no files of its own."""
    found: dict[str, Rows] = {}
    for event in read_events(events):
        if event["event"] == "metric" and "step" in event:
            plain = {name: value for name, value in event.items() if name not in ("event", "stage")}
            found.setdefault(event["stage"], []).append(plain)
    return found


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(path.read_bytes()) if path.exists() else {}
    return found


def _line(rows: Rows, name: str) -> Line:
    line = [(float(row["step"]), float(row[name])) for row in rows if name in row]
    return line[:: max(1, len(line) // POINTS)]


def _loss(rows: Rows) -> str:
    named = {"training loss": _line(rows, "loss"), "validation loss": _line(rows, "eval_loss")}
    return charts.curves({name: line for name, line in named.items() if line}, x_name="step", y_name="")


def _beside(rows: Rows) -> str:
    """Learning rate, gradient norm, the objective's own metrics, speed and memory: two to a line."""
    names = dict.fromkeys(name for row in rows for name, value in row.items() if not isinstance(value, str))
    metrics = [name for name in names if name not in _OWN and not name.startswith("eval_")]
    drawn = [
        {"learning rate": _line(rows, "lr")},
        {"gradient norm": _line(rows, "grad_norm")},
        *({m: _line(rows, m), f"{m}, validation": _line(rows, f"eval_{m}")} for m in metrics),
        *({said: _line(rows, name)} for name, said in PACE.items()),
    ]
    shown = [{name: line for name, line in each.items() if len(line) > 1} for each in drawn]
    parts = [charts.curves(each, x_name="step", y_name="", across=HALF) for each in shown if each]
    return f"<div class=charts>{''.join(parts)}</div>" if parts else ""


def _kept(made: Iterable[Checkpoint]) -> str:
    rows = []
    for each in made:
        told = [f"{each.metrics[name]:.4f}" if name in each.metrics else "" for name in ("train_loss", "eval_loss")]
        rows.append([str(each.marks.get("folder", "")).rpartition("/")[2], str(each.step), *told, each.manifest[:12]])
    table = grid(["weights", "step", "training loss", "validation loss", "manifest"], rows)
    return f"<h3>Checkpoints</h3>{table}" if table else ""


def _seen(report: dict[str, Any]) -> str:
    """What the loss saw, with one sample of each form as it was trained on."""
    if not report:
        return ""
    held = report["validation"]
    rows = [
        ["training", f"{report['samples']:,}", f"{report['tokens']:,}", f"{report['supervised']:,}"],
        ["validation", f"{held['samples']:,}", f"{held['tokens']:,}", f"{held['supervised']:,}"],
    ]
    told = [f"{report['share']:.1%} of the tokens are trained on."]
    told += [f"{count} dropped: {reason}." for reason, count in report["dropped"].items()]
    told += _stops(report.get("stops"))
    shown = "".join(f"<pre class=prose>{_marked(text)}</pre>" for text in report["shown"].values())
    table = grid(["samples for", "samples", "tokens", "trained on"], rows)
    return f"<h3>What the loss sees</h3>{table}<p>{escape(' '.join(told))}</p>{shown}"


def _stops(stops: dict[str, int] | None) -> list[str]:
    """Whether a model that writes is taught to stop; a score head is not."""
    if stops is None:
        return []
    every = stops["taught"] + stops["not"]
    return [f"{stops['taught']:,} of {every:,} conversations and texts teach where to stop."]


def _marked(text: str) -> str:
    """⟦What the loss sees⟧ in colour. What is not closed is shown as it stands."""
    return re.sub(f"{OPEN}([^{OPEN}{CLOSE}]*){CLOSE}", r"<mark>\1</mark>", escape(text))


def _machine(plan: dict[str, Any], machine: dict[str, Any]) -> str:
    if not plan and not machine:
        return ""
    told = []
    if machine:
        several = f"{machine['processes']} processes of " if machine["processes"] > 1 else ""
        told.append(
            f"{machine['device']}; {several}{counted(machine['threads'], 'thread')}, {machine['dtype']}. Its peak: "
            f"{machine['peak_tflops']:g} TFLOP/s, {machine['peak_measured']}."
        )
    table = ""
    if plan:
        rows = [[name, _mib(plan[name])] for name in PARTS]
        rows += [["planned peak", _mib(plan["peak"])], ["free before", _mib(plan["available"])]]
        table = grid(["memory plan", "MiB"], rows)
        recomputed = ", activations computed twice" if plan["checkpointing"] else ""
        told.append(f"{plan['trained']:,} of {plan['parameters']:,} parameters; passes of {plan['forward']} tokens")
        told[-1] += f"{recomputed}."
    return f"<h3>What it ran on</h3><p>{escape(' '.join(told))}</p>{table}"


def _mib(size: float) -> str:
    return f"{size / 2**20:,.1f}"


def _spoken(said: Rows) -> str:
    """Answers by step, one table a prompt."""
    parts = []
    for prompt in dict.fromkeys(row["prompt"] for row in said):
        rows = [
            f"<tr><td>step {row['step']}</td><td>{escape(row['text'].strip() or '(nothing)')}"
            f"{'' if row['finished'] else ' …'}</td></tr>"
            for row in said
            if row["prompt"] == prompt
        ]
        parts.append(f"<p><b>{escape(prompt)}</b></p><div class='scroll spoken'><table>{''.join(rows)}</table></div>")
    return f"<h3>What it answered on the way</h3>{''.join(parts)}" if parts else ""
