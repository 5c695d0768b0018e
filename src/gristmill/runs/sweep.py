"""A sweep: one run for each trial, and what came of them side by side.

A trial is a run like any other: its folder is named by all that decides its results, so that the same trial of another
sweep, or a run of its own with the same values, is that run; what two trials have in common is done once; and a sweep
that was killed finds its finished trials and goes on with the one under way. `sweeps/NAME-…/sweep.json` and
`sweep.html` are written after every trial, from the runs: they can be deleted.

The recipe's budget holds over the whole sweep: each trial has what those before it left.
"""

from __future__ import annotations

import shlex
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any

import orjson

from gristmill.core.errors import ConfigError, GristmillError, ProviderError, StoreError
from gristmill.core.events import Listener
from gristmill.core.files import atomic
from gristmill.core.records import Checkpoint, Report, digest_of
from gristmill.runs.execute import execute, seconds_used
from gristmill.runs.folder import RunFolder
from gristmill.runs.identity import identify
from gristmill.runs.measures import metrics_of
from gristmill.runs.plan import Plan, plan_recipe
from gristmill.runs.recipe import validate
from gristmill.runs.report.sweep import sweep_page
from gristmill.runs.search import Sweep, Values, corners, listed, proposals, written
from gristmill.runs.source import Problem, RecipeError
from gristmill.runs.workspace import Workspace

STOPS = ("paused", "cancelled")
"""States of a trial that end the sweep: it goes on when the same command is given again."""


@dataclass(frozen=True)
class Trial:
    """What is to be run."""

    number: int
    values: Values
    plan: Plan
    folder: RunFolder


@dataclass(frozen=True)
class Line:
    """How a trial went. `value` is the sweep's metric; None where it came to none."""

    number: int
    values: Values
    run: str
    state: str  # finished | incomplete | failed | paused | cancelled
    value: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    spent: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    exit: int = 0


def sweep_of(plan: Plan) -> Sweep:
    """The sweep that a recipe asks for. ConfigError where there is none, or nothing measures what it compares."""
    if plan.recipe.sweep is None:
        raise ConfigError(
            "the recipe has no `sweep:`",
            "Say what to try: --sweep stages.tune.learning_rate=1e-3,2e-3 --set sweep.metric=tune.train_loss "
            "--set sweep.goal=min, or the same in the recipe.",
        )
    _check_metric(plan, plan.recipe.sweep)
    return plan.recipe.sweep


def trial_plans(plan: Plan) -> list[tuple[Values, Plan]]:
    """The plan of every trial; where they depend on each other, of some that hold every end of what may be tried.
    RecipeError with the problems of all, each once."""
    sweep = sweep_of(plan)
    values = listed(sweep, _seed(plan)) or corners(sweep)
    found: list[tuple[Values, Plan]] = []
    problems: dict[Any, None] = {}
    for one in values:
        try:
            found.append((one, trial_plan(plan, one)))
        except RecipeError as error:
            problems |= dict.fromkeys(error.problems)
    if problems:
        raise RecipeError(list(problems))
    return found


def trial_plan(plan: Plan, values: Values) -> Plan:
    return plan_recipe(validate(plan.recipe.source.trial(values)))


def _seed(plan: Plan) -> int:
    sweep = plan.recipe.sweep
    return plan.recipe.seed if sweep is None or sweep.seed is None else sweep.seed


class Sweeping:
    """One sweep in its workspace. Run each of `trials()` before the next is asked for; `ended` says why there is none
    more though there should be."""

    def __init__(
        self, plan: Plan, workspace: Workspace, *, name: str | None = None, command: Sequence[str] = ()
    ) -> None:
        self.sweep = sweep_of(plan)
        found = trial_plans(plan)  # what is wrong with any is said before the first
        self.count = self.sweep.samples if self.sweep.by == "optuna" else len(found)
        self.plan = plan
        self.workspace = workspace
        self.name = name or plan.recipe.name
        self.command = tuple(command)
        workspace.check_name(self._called(0))
        key = digest_of([self.sweep.model_dump(mode="json"), identify(plan, workspace).fingerprint])
        self.folder = workspace.root / "sweeps" / f"{self.name}-{key[:8]}"
        self.lines: list[Line] = []
        self.ended: GristmillError | None = None

    def trials(self) -> Iterator[Trial]:
        """One after another, until there are no more or one stops them all."""
        proposed = proposals(self.sweep, _seed(self.plan))
        values = next(proposed, None)
        while values is not None:
            plan = trial_plan(self.plan, values)
            yield Trial(len(self.lines) + 1, values, plan, identify(plan, self.workspace).folder)
            if self.ended is not None:
                return
            try:
                values = proposed.send(self.lines[-1].value)
            except StopIteration:
                return

    def run(self, trial: Trial, *, listeners: tuple[Listener, ...] = (), stop: threading.Event | None = None) -> Line:
        """A trial, run or found. One that fails is a line that says so; what stops the sweep is in `ended`."""
        begun = (trial.folder.path / "manifest.json").exists()  # and may have a name of its own
        called = None if begun else self._called(trial.number)
        run = trial.folder.path.name
        beside = [name for name in dict.fromkeys(line.run for line in self.lines) if name != run]
        error: GristmillError | None
        try:
            outcome = execute(trial.plan, self.workspace, name=called, listeners=listeners, stop=stop, beside=beside)
            state, error = outcome.state.replace("shown", "finished"), outcome.error
        except StoreError:
            raise
        except GristmillError as broken:
            state, error = "failed", broken
        if state in STOPS:
            self.ended = error
        if state == "incomplete":
            error = ProviderError("some records could not be asked", "The same command asks for them alone.")
        self.lines.append(self._line(trial, state, error))
        self._check_known()
        self.write()
        return self.lines[-1]

    @property
    def best(self) -> Line | None:
        """The first of those that none is better than."""
        sign = -1 if self.sweep.goal == "max" else 1
        measured = [line for line in self.lines if line.value is not None and isfinite(line.value)]
        return min(measured, key=lambda line: sign * (line.value or 0.0), default=None)

    @property
    def failed(self) -> list[Line]:
        """Trials that did not come to their end, though the sweep went on."""
        return [line for line in self.lines if line.state in ("failed", "incomplete")]

    def as_json(self) -> dict[str, Any]:
        best = self.best
        return {
            "name": self.name,
            "recipe": self.plan.recipe.name,
            "folder": str(self.folder),
            "sweep": self.sweep.model_dump(mode="json", by_alias=True),
            "trials": [asdict(line) for line in self.lines],
            "best": best and best.number,
            "command": best and self.command_of(best),
        }

    def command_of(self, line: Line) -> str:
        """What runs, or shows, a trial by itself."""
        sets = [part for key, value in line.values.items() for part in ("--set", f"{key}={written(value)}")]
        return shlex.join([*self.command, *sets])

    def write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic(self.folder / "sweep.json") as file:
            file.write(orjson.dumps(self.as_json(), option=orjson.OPT_INDENT_2))
        with atomic(self.folder / "sweep.html", "w") as file:
            file.write(sweep_page(self.as_json()))

    def _called(self, number: int) -> str:
        return f"sweep-{self.name}-{number:02d}"

    def _line(self, trial: Trial, state: str, error: GristmillError | None) -> Line:
        folder = trial.folder
        metrics = metrics_of(folder)
        return Line(
            trial.number,
            trial.values,
            folder.path.name,
            state,
            metrics.get(self.sweep.metric) if state in ("finished", "incomplete") else None,
            metrics,
            round(seconds_used(folder), 3),
            folder.summary.get("spent", {}),
            error.message if error else None,
            error.exit_code if error else 0,
        )

    def _check_known(self) -> None:
        """The first trial that comes to its end shows what is measured."""
        line = self.lines[-1]
        if line.state == "finished" and all(other.value is None for other in self.lines):
            known = ", ".join(line.metrics) or "nothing"
            raise ConfigError(
                f"the run {line.run} has no `{self.sweep.metric}`", f"It has: {known}. Set sweep.metric to one of them."
            )


def _check_metric(plan: Plan, sweep: Sweep) -> None:
    """Whether any stage can measure what is compared, as far as that is known before one has run."""
    measuring = {node.entry for node in plan.nodes if {Checkpoint, Report} & set(node.config.given(node.stage.gives))}
    stage = next((name for name in measuring if sweep.metric.startswith(f"{name}.")), None)
    known = _exam_metrics(plan, stage) if stage else []
    if stage is None:
        said = f"no stage of this recipe measures `{sweep.metric}`"
        names = ", ".join(sorted(measuring))
        hint = f"Name it stage.metric. Stages that measure: {names}." if names else "Add one that trains or examines."
    elif known and sweep.metric not in known:
        said, hint = f"{stage} will not measure `{sweep.metric}`", f"It will measure {', '.join(known)}."
    else:
        return
    raise RecipeError([Problem(plan.recipe.source.place(("sweep", "metric")), said, hint)])


def _exam_metrics(plan: Plan, stage: str) -> list[str]:
    """What an exam will measure; empty for a stage whose metrics only a run shows."""
    from gristmill.evaluate.exam import arm_name
    from gristmill.evaluate.report import Arm, ExamData
    from gristmill.evaluate.stages import ExamConfig

    config = plan.recipe.stages[stage]
    if not isinstance(config, ExamConfig):
        return []
    arms = [arm_name(role, open_book=False) for role in config.models]
    arms += [arm_name(role, open_book=True) for role in config.readers]
    of_arms = [name for name, info in Arm.model_fields.items() if info.annotation in (int, float)]
    plain = [name for name, info in ExamData.model_fields.items() if info.annotation in (int, float)]
    return [f"{stage}.{name}" for name in (*(f"{arm}.{field}" for arm in arms for field in of_arms), *plain)]
