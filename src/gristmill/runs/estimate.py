"""What a run will take: calls, tokens, dollars, hours, samples and training steps, from what a few records took.

Every figure is a range: the middle 95 % of what comes out when the tried records are drawn again and again (a
bootstrap), carried through all stages together. Time runs from the width that a model's line has to the width at which
it was tried. What nobody can know yet (a model that is not trained, a price that nobody has said) is named instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from gristmill.core.errors import InputError
from gristmill.core.files import atomic
from gristmill.core.records import Sample
from gristmill.llm.prices import FREE, price_of, table_version
from gristmill.llm.spec import LocalSpec, ModelSpec, RemoteSpec
from gristmill.models.weights import locate
from gristmill.runs.canary import Call, Trial
from gristmill.runs.plan import Node, Plan
from gristmill.runs.status import estimate_path
from gristmill.runs.workspace import Workspace

DRAWS = 400
LOWEST, HIGHEST = 2.5, 97.5
"""Percentiles of the draws between which a figure is said to lie."""

READ = 2000
"""Samples whose tokens are counted for the steps of a training, at most."""

Draws = npt.NDArray[np.float64]
Range = list[float]
"""The lowest and the highest value that is likely."""


@dataclass
class Figures:
    """What a stage, or all of them, will still take: draws of each sum."""

    calls: Draws = field(default_factory=lambda: np.zeros(DRAWS))
    tokens_in: Draws = field(default_factory=lambda: np.zeros(DRAWS))
    tokens_out: Draws = field(default_factory=lambda: np.zeros(DRAWS))
    usd: Draws = field(default_factory=lambda: np.zeros(DRAWS))
    fast: Draws = field(default_factory=lambda: np.zeros(DRAWS))  # seconds
    slow: Draws = field(default_factory=lambda: np.zeros(DRAWS))

    def add(self, other: Figures) -> None:
        for name, values in vars(other).items():
            setattr(self, name, getattr(self, name) + values)

    def ranges(self) -> dict[str, Range]:
        sums = {name: _range(getattr(self, name)) for name in ("calls", "tokens_in", "tokens_out", "usd")}
        return {**sums, "seconds": [_range(self.fast)[0], _range(self.slow)[1]]}


def estimate(plan: Plan, workspace: Workspace, run: str, trials: Sequence[Trial], *, records: int) -> dict[str, Any]:
    """Work it out and keep it for the run."""
    found = _Estimator(plan, workspace, trials).run()
    spent = workspace.store.spent(run)
    used = {"calls": spent.calls, "tokens": spent.tokens_in + spent.tokens_out, "usd": spent.usd}
    made = {"run": run, "made": time.strftime("%Y-%m-%d %H:%M"), "canary": records, "spent": used, **found}
    with atomic(estimate_path(workspace, run)) as file:
        file.write(orjson.dumps(made, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY))
    return made


class _Estimator:
    """Carries draws of every stage's output through the plan, in its order."""

    def __init__(self, plan: Plan, workspace: Workspace, trials: Sequence[Trial]) -> None:
        self.plan = plan
        self.workspace = workspace
        self.trials = {trial.node.name: trial for trial in trials}
        self.rng = np.random.default_rng(0)
        self.out: dict[str, Draws] = {}  # what is known of how many records each stage gives
        self.total = Figures()
        self.figures: dict[str, Figures] = {}  # of each stage of the first round, whole
        repeat = plan.recipe.repeat
        self.rounds = self.rng.integers(1, repeat.times + 1, DRAWS) if repeat else np.zeros(DRAWS)
        self.unpriced: set[str] = set()
        self.untimed: set[str] = set()

    def run(self) -> dict[str, Any]:
        stages = {}
        for name, trial in self.trials.items():
            said = {"entry": trial.node.entry, "kind": trial.node.kind, "how": trial.how}
            stages[name] = said | ({"why": trial.why} if trial.why else {}) | self._stage(trial)
        samples = [n for n, t in self.trials.items() if n in self.out and _gives_samples(t.node)]
        return {
            "stages": stages,
            "total": self.total.ranges(),
            "samples": _range(self.out[samples[-1]]) if samples else None,
            "steps": {name: line["steps"] for name, line in stages.items() if "steps" in line},
            "unpriced": sorted(self.unpriced),
            "untimed": sorted(self.untimed),
            "prices": table_version(),
        }

    def _stage(self, trial: Trial) -> dict[str, Any]:
        """One line of the estimate; nothing where a stage before it is not known."""
        node = trial.node
        if any(need not in self.out for need in node.needs):
            return {}
        taken = np.sum([self.out[need] for need in node.needs], axis=0) if node.needs else np.zeros(DRAWS)
        if trial.how == "left":
            return {"records": _range(taken), **self._training(trial, taken)}
        if trial.how == "again":
            said, figures = self._again(trial)
        elif trial.how == "tried":
            said, figures = self._tried(trial, taken)
        else:
            said, figures = self._free(trial, taken)
        if node.round == 1:  # what of it is done already, another round has to do
            self.figures[node.name] = self._tried(replace(trial, kept=0), taken)[1] if trial.tried else figures
        self.total.add(figures)
        given = {"given": _range(self.out[node.name]), **said}
        return {"records": _range(taken), **given} if node.needs else given

    def _again(self, trial: Trial) -> tuple[dict[str, Any], Figures]:
        """A later round: as the first, where there are so many. Between one and all of them each number is as likely as
        another: nobody knows when the target is met."""
        node = trial.node
        first = ".".join(filter(None, (node.entry.partition(".")[0], node.stage.part)))
        runs = self.rounds >= node.round
        figures = Figures()
        for what, values in vars(self.figures[first]).items():
            setattr(figures, what, values * runs)
        self.out[node.name] = self.out[first] * runs
        return figures.ranges() if node.roles else {"seconds": _range(figures.fast)}, figures

    def _free(self, trial: Trial, taken: Draws) -> tuple[dict[str, Any], Figures]:
        """A stage that asks nobody gives, of more records, so many more; and takes so much longer."""
        share = np.ones(DRAWS) if trial.exact else taken / max(1, trial.taken)
        self.out[trial.node.name] = trial.given * share
        seconds = trial.seconds * share
        return {"seconds": _range(seconds)}, Figures(fast=seconds, slow=seconds)

    def _tried(self, trial: Trial, taken: Draws) -> tuple[dict[str, Any], Figures]:
        rows = trial.tried
        if not rows:  # all of them were done before anyone looked what they took
            self.out[trial.node.name] = taken * trial.given / max(1, trial.taken)
            return {"kept": trial.kept}, Figures()
        all_of_them = trial.exact and len(rows) >= trial.taken
        every = np.tile(np.arange(len(rows)), (DRAWS, 1))
        drawn = max(1, len(rows) - 1)  # one fewer: as many as there are would make the range too narrow
        picks = every if all_of_them else self.rng.integers(0, len(rows), (DRAWS, drawn))
        left = np.maximum(taken - trial.kept, 0.0)

        def mean(values: list[float]) -> Draws:
            means: Draws = np.array(values, float)[picks].mean(axis=1)
            return means

        self.out[trial.node.name] = taken * mean([row.given for row in rows])
        figures = Figures()
        for role in dict.fromkeys(trial.node.roles):
            calls = [[call for call in row.calls if call.role == role] for row in rows]
            if any(calls):
                self._role(trial, role, calls, lambda values: mean(values) * left, figures)
        known = figures.ranges()
        for name, gone in (("usd", self.unpriced), ("seconds", self.untimed)):
            if gone & set(trial.node.roles):
                del known[name]
        return {"kept": trial.kept, "tried": len(rows), **known}, figures

    def _role(
        self, trial: Trial, role: str, calls: list[list[Call]], scaled: Callable[[list[float]], Draws], out: Figures
    ) -> None:
        """Add what one role's calls come to. Roles of a stage work side by side: the slowest decides its time."""
        spec = self.plan.recipe.models[role]
        price = price_of(spec)
        if price is None:
            self.unpriced.add(role)
        cost = (price or FREE).cost
        number = scaled([len(row) for row in calls])
        tokens_in = scaled([sum(call.usage.input for call in row) for row in calls])
        tokens_out = scaled([sum(call.usage.output for call in row) for row in calls])
        out.calls += number
        out.tokens_in += tokens_in
        out.tokens_out += tokens_out
        out.usd += scaled([sum(cost(call.usage) for call in row) / 1e9 for row in calls])
        seconds = [call.seconds for row in calls for call in row if call.seconds is not None]
        if not seconds or (isinstance(spec, RemoteSpec) and spec.batch is not None):
            self.untimed.add(role)  # all answers lay in the store, or come when the provider pleases
            return
        slots = _slots(trial, role, spec)
        waits = number * float(np.mean(seconds))
        least = np.maximum(number / _a_second(spec, "rpm"), (tokens_in + tokens_out) / _a_second(spec, "tpm"))
        out.fast = np.maximum(out.fast, np.maximum(waits / slots, least))
        out.slow = np.maximum(out.slow, np.maximum(waits / min(slots, len(calls)), least))

    def _training(self, trial: Trial, taken: Draws) -> dict[str, Any]:
        """The steps of a training, by the tokens of the samples that were made so far."""
        steps_for = getattr(trial.node.config, "steps_for", None)
        if not trial.node.stage.artifacts or steps_for is None:
            return {}
        outputs = [output for need in trial.node.needs if (output := self.trials[need].output)]
        made = [r for output in outputs for r in islice(output.only(Sample), READ)]
        taught = [s for s in made if s.marks.get("split", "train") == "train"]
        each = self._tokens(trial.node, taught)
        if not taught or each is None:
            return {}
        samples = taken * len(taught) / len(made)
        low, high = _range(samples)
        return {"samples": [low, high], "steps": [steps_for(low * each), steps_for(high * each)]}

    def _tokens(self, node: Node, samples: list[Sample]) -> float | None:
        """Tokens of a sample as the model to be trained reads it; None where its files are not at hand, or where these
        few samples are not enough to settle what is learned (a classifier's classes)."""
        from gristmill.models.renderer import Renderer
        from gristmill.train.config import TrainConfig
        from gristmill.train.examples import tokens_in
        from gristmill.train.objective import objective_of

        specs = [self.plan.recipe.models[role] for role in node.roles]
        config = node.config
        if not samples or len(specs) != 1 or not isinstance(specs[0], LocalSpec) or not isinstance(config, TrainConfig):
            return None
        try:
            objective = objective_of(config.settled(samples))
        except InputError:
            return None
        weights = locate(specs[0].model, base=self.plan.recipe.base, hasher=self.workspace.store.file_hash)
        return tokens_in(samples, objective, Renderer.load(weights)) / len(samples)


def _gives_samples(node: Node) -> bool:
    return Sample in node.config.given(node.stage.gives)


def _slots(trial: Trial, role: str, spec: ModelSpec) -> int:
    """How many calls a line bears at once: as it was at the end of the canary, or as the recipe says."""
    seen = [line.limit for line in trial.lines if role in line.roles]
    return max(1, spec.concurrency or max(seen, default=1))


def _a_second(spec: ModelSpec, name: str) -> float:
    """A limit of so many a minute."""
    return (getattr(spec, name, None) or float("inf")) / 60


def _range(draws: Draws) -> Range:
    low, high = np.percentile(draws, (LOWEST, HIGHEST))
    return [round(float(low), 6), round(float(high), 6)]
