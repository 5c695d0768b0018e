"""Runs side by side: where their recipes differ, what went through them, how their data sets differ and why, what they
learned and cost.

Any runs of a workspace, of one recipe or of several: stages are matched by name, exam questions by their words. All of
it is read from the runs' folders.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from gristmill.core.errors import ConfigError
from gristmill.core.records import Episode, Report, Score, Task, canonical, digest_of
from gristmill.evaluate.stats import Pairs, difference, sign_test
from gristmill.runs.folder import Output, RunFolder
from gristmill.runs.measures import Curve, curves_of, metrics_of
from gristmill.runs.recipe import Loaded, load_recipe
from gristmill.runs.source import RecipeError
from gristmill.runs.versions import versions

Right = dict[str, dict[str, bool]]
"""Arm -> question -> whether it was answered right."""

_LATER_ROUND = re.compile(r"\.\d+/")  # of `repeat`: its stages have the prompts of the first


def compare(folders: Sequence[RunFolder], root: Path) -> dict[str, Any]:
    """Plain data: lists have a value for each run, in the order given."""
    if len({folder.path for folder in folders}) < 2:
        raise ConfigError("a comparison takes two runs, or more", "Name them by id or by name: `gristmill status`.")
    return {
        "runs": [_run(folder, folders) for folder in folders],
        "differs": _differences(folders),
        "funnel": _funnel(folders),
        "data": versions(folders, [called(folder, folders) for folder in folders]),
        "metrics": _aligned([_metrics(folder, root) for folder in folders]),
        "exams": _exams(folders),
    }


def overlays(folders: Sequence[RunFolder], root: Path) -> dict[str, dict[str, Curve]]:
    """Stage and curve -> run -> points, for the losses of all trainings."""
    curves = [curves_of(folder, root) for folder in folders]
    stages = dict.fromkeys(stage for of_run in curves for stage in of_run)
    found: dict[str, dict[str, Curve]] = {}
    for stage in stages:
        for name, words in (("loss", "training loss"), ("eval_loss", "validation loss")):
            lines = {
                called(folder, folders): of_run[stage][name]
                for folder, of_run in zip(folders, curves, strict=True)
                if name in of_run.get(stage, {})
            }
            if lines:
                found[f"{stage}: {words}"] = lines
    return found


def called(folder: RunFolder, among: Sequence[RunFolder]) -> str:
    """A run's name, or its id where two have the same name."""
    names = [str(other.manifest["name"]) for other in among]
    name = str(folder.manifest["name"])
    return name if names.count(name) == 1 else folder.path.name


def _run(folder: RunFolder, among: Sequence[RunFolder]) -> dict[str, Any]:
    manifest, summary = folder.manifest, folder.summary
    spent = summary.get("spent", {})
    return {
        "name": called(folder, among),
        "id": folder.path.name,
        "recipe": manifest["recipe"],
        "started": manifest["started"],
        "state": summary.get("state", "running" if folder.running() else "stopped"),
        "calls": spent.get("calls", 0),
        "tokens": spent.get("tokens_in", 0) + spent.get("tokens_out", 0),
        "usd": spent.get("usd", 0.0),
    }


def _differences(folders: Sequence[RunFolder]) -> dict[str, list[Any]]:
    """Every key of the resolved recipes, and every model, prompt, input and version behind them, that is not the same
    in all. A default counts as what it stands for."""
    told = _aligned([dict(_depends_on(folder)) for folder in folders])
    return {key: values for key, values in told.items() if len({canonical(value) for value in values}) > 1}


def _depends_on(folder: RunFolder) -> Iterator[tuple[str, Any]]:
    manifest = folder.manifest
    try:
        yield from _flat(_resolved(load_recipe(folder.path / "recipe.yaml", base=Path(manifest["base"]))))
    except RecipeError as error:
        raise ConfigError(f"the recipe of run {folder.path.name} cannot be read: {error.message}") from error
    for part in ("models", "prompts", "inputs"):
        named = ((name, value) for name, value in manifest[part].items() if not _LATER_ROUND.search(name))
        yield from ((f"{part} used: {name}", value) for name, value in named)
    last = manifest["attempts"][-1]
    yield from ((f"made with: {name}", last.get(name)) for name in ("gristmill", "git", "python"))
    yield from ((f"made with: {name}", version) for name, version in last["packages"].items())


def _resolved(recipe: Loaded) -> dict[str, Any]:
    """A recipe with its defaults filled in; of what is not installed here, as it was written."""
    data = {key: value for key, value in recipe.source.data.items() if key not in ("name", "description", "sweep")}
    data |= {"seed": recipe.seed, "budget": recipe.budget.model_dump()}
    for section, typed in (("models", recipe.models), ("stages", recipe.stages)):
        whole = {name: spec.model_dump(mode="json", by_alias=True) for name, spec in typed.items()}
        data[section] = {**(data.get(section) or {}), **whole}
    return data


def _flat(value: Any, where: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, (*where, key))
    elif where:
        yield ".".join(where), value


def _aligned(told: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Key -> its value in each; None where it has none. In the order in which keys are first met."""
    keys = dict.fromkeys(key for of_run in told for key in of_run)
    return {key: [of_run.get(key) for of_run in told] for key in keys}


def _funnel(folders: Sequence[RunFolder]) -> dict[str, list[Any]]:
    return _aligned([{name: output.meta["counts"] for name, output in folder.outputs().items()} for folder in folders])


def _metrics(folder: RunFolder, root: Path) -> dict[str, float]:
    """All that was measured, and how fast each training went: the middle of its steps' rates."""
    found = metrics_of(folder)
    for stage, lines in curves_of(folder, root).items():
        if rates := lines.get("tokens_per_second"):
            found[f"{stage}.tokens_per_second"] = median(rate for _, rate in rates)
    return found


def _exams(folders: Sequence[RunFolder]) -> dict[str, dict[str, Any]]:
    """Every exam that any run holds: its arms with their intervals, and each later run's arms against the first's."""
    reports = [dict(_reports(folder)) for folder in folders]
    found = {}
    for stage in dict.fromkeys(stage for of_run in reports for stage in of_run):
        sat = [_right(folder, stage) for folder in folders]
        found[stage] = {
            "arms": _aligned([of_run.get(stage, {}) for of_run in reports]),
            "paired": [
                {"arm": arm, "run": called(folder, folders), "against": called(folders[0], folders), **paired}
                for folder, theirs in zip(folders[1:], sat[1:], strict=True)
                for arm in theirs
                if (paired := _paired(theirs[arm], sat[0].get(arm, {})))
            ],
        }
    return found


def _reports(folder: RunFolder) -> Iterator[tuple[str, dict[str, Any]]]:
    """Exam -> arm -> how many were right, with the interval."""
    for stage, output in folder.outputs().items():
        for report in output.only(Report):
            arms = report.data.get("arms")
            if isinstance(arms, dict):
                keys = ("right", "n", "accuracy", "low", "high")
                shares = {arm: share for arm, share in arms.items() if isinstance(share, dict)}
                yield stage, {arm: {key: share.get(key) for key in keys} for arm, share in shares.items()}


def _right(folder: RunFolder, stage: str) -> Right:
    """How each question of an exam was answered, from the records of the stage's own answers."""
    answers: Output | None = folder.outputs().get(f"{stage}.answer")
    if answers is None:
        return {}
    questions: dict[str, str] = {}
    sat: dict[str, tuple[str, str]] = {}
    right: Right = {}
    for record in answers:
        if isinstance(record, Task):
            questions[record.id] = digest_of([record.question, record.answers])
        elif isinstance(record, Episode):
            sat[record.id] = record.arm, record.parents[0]
        elif isinstance(record, Score):
            arm, task = sat[record.parents[0]]
            right.setdefault(arm, {})[questions[task]] = record.value == 1.0
    return right


def _paired(these: dict[str, bool], those: dict[str, bool]) -> dict[str, Any] | None:
    """The difference in accuracy over the questions that both sat, with Newcombe's interval and the exact sign test;
    None where they sat none together."""
    both = these.keys() & those.keys()
    if not both:
        return None
    cells = [(these[question], those[question]) for question in both]
    pairs = Pairs(*(cells.count(cell) for cell in ((True, True), (True, False), (False, True), (False, False))))
    low, high = difference(pairs)
    return {
        "n": len(both),
        "others": len(these.keys() ^ those.keys()),  # questions that only one of them sat
        "difference": (pairs.first - pairs.second) / len(both),
        "low": low,
        "high": high,
        "only_this": pairs.first,
        "only_that": pairs.second,
        "p": sign_test(pairs.first, pairs.second),
    }
