"""What a stage may reach while it runs: `core.stage.StepContext` and `PassContext`, made real."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from gristmill.core.ask import Model
from gristmill.core.errors import ConfigError
from gristmill.core.events import EventLog
from gristmill.core.logs import log
from gristmill.core.prompt import Prompt
from gristmill.core.records import Checkpoint, Record, digest_of
from gristmill.core.stage import Earlier
from gristmill.llm.client import Client
from gristmill.llm.spec import LocalSpec, RemoteSpec, fallback_of
from gristmill.models.weights import Weights, locate
from gristmill.runs.ancestors import Records
from gristmill.runs.earlier import earlier_runs
from gristmill.runs.folder import Counts, RunFolder
from gristmill.runs.plan import Node, Plan
from gristmill.runs.workspace import Workspace

R = TypeVar("R", bound=Record)


@dataclass
class Current:
    """The run in progress: what all its stages share."""

    plan: Plan
    workspace: Workspace
    folder: RunFolder
    client: Client
    events: EventLog
    stop: threading.Event
    winding_up: bool = False  # a stage failed: what is under way is ended, nothing more is asked
    records: Records = field(default_factory=Records)
    reader: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "reader"))
    """One thread that reads: each that does has a connection to the store of its own, with a cache."""
    _weights: dict[tuple[str, str], Weights] = field(default_factory=dict)

    async def close(self) -> None:
        """Let go of engines, connections and the reader: of each, whatever becomes of the others."""
        async with AsyncExitStack() as ends:
            ends.callback(self.reader.shutdown)
            ends.push_async_callback(self.client.close)

    def stopping(self) -> bool:
        """Look whether a person, or the budget of time, asks to stop."""
        if not self.stop.is_set() and (self.client.budget.out_of_time() or self.folder.stop_file.exists()):
            self.stop.set()
        return self.stop.is_set()

    def weights(self, role: str, node: Node) -> Weights:
        """Where a role's weights lie for a stage; for `from: stage`, what that stage trained in this run: of several
        rounds the last that came before."""
        if (role, node.name) not in self._weights:
            self._weights[role, node.name] = self._find_weights(role, node)
        return self._weights[role, node.name]

    def _find_weights(self, role: str, node: Node) -> Weights:
        spec = self.plan.recipe.models[role]
        if isinstance(spec, RemoteSpec):
            raise ConfigError(f"`{role}` is a model behind an address; weights on this machine are needed here")
        if isinstance(spec, LocalSpec):
            return locate(spec.model, base=self.plan.recipe.base, hasher=self.workspace.store.file_hash)
        rounds = [self.records.outputs[name] for name in node.waits if name.partition(".")[0] == spec.from_]
        trained = next((found for output in reversed(rounds) if (found := list(output.only(Checkpoint)))), [])
        if len(trained) != 1:
            raise ConfigError(f"stage {spec.from_} gave {len(trained)} checkpoints; `{role}` needs exactly one")
        folder = self.workspace.root / str(trained[0].marks["folder"])
        return locate(str(folder.resolve()), base=self.plan.recipe.base, hasher=self.workspace.store.file_hash)


SHOWN_EVERY, KEPT_EVERY = 0.2, 1.0
"""Seconds between two events of progress, for listeners and in the file."""


class Meter:
    """Says how far a stage is, as often as anyone looks and no oftener."""

    def __init__(self, current: Current, stage: str) -> None:
        self.current = current
        self.stage = stage
        self._shown = self._kept = 0.0

    def __call__(self, done: float, total: float, values: Mapping[str, float | str], *, last: bool = False) -> None:
        now = time.monotonic()
        if now - self._shown < SHOWN_EVERY and not last:
            return
        self._shown = now
        client, events = self.current.client, self.current.events
        spent = {"calls": client.budget.calls, "tokens": client.budget.tokens, "usd": client.budget.usd}
        said = {"stage": self.stage, "done": done, "total": total, "spent": spent}
        data = {**said, "lines": [asdict(line) for line in client.lines()], **values}
        if last or now - self._kept >= KEPT_EVERY:
            self._kept = now
            events.emit("progress", **data)
            return
        for listener in events.listeners:
            listener({"time": round(time.time(), 3), "event": "progress", **data})


class Context:
    """One stage's view of the run."""

    def __init__(self, current: Current, node: Node, counts: Counts, folder: Path) -> None:
        self._current = current
        self._node = node
        self._counts = counts
        self._models: dict[tuple[str, str | None], Model] = {}
        self._prompts: dict[frozenset[tuple[str, str | None]], tuple[Prompt, ...]] = {}
        self.meter = Meter(current, node.name)
        self.stage = node.entry
        self.seed = current.plan.recipe.seed
        self.base = current.plan.recipe.base
        self.folder = folder
        self.run_folder = current.folder.path
        self.cache = current.workspace.cache

    def rng(self, record: Record, *salt: object) -> random.Random:
        return random.Random(digest_of([self.seed, self.stage, record.id, [str(s) for s in salt]]))

    def ancestor(self, record: Record, kind: type[R]) -> R | None:
        return next(self._above(record, kind), None)

    def ancestors(self, record: Record, kind: type[R]) -> list[R]:
        return list(self._above(record, kind))

    def _above(self, record: Record, kind: type[R]) -> Iterator[R]:
        left = deque(record.parents)
        seen: set[str] = set()
        while left:
            parent = self._current.records.get(left.popleft())
            if parent is not None and parent.id not in seen:
                seen.add(parent.id)
                if isinstance(parent, kind):
                    yield parent
                left.extend(parent.parents)

    def model(self, role: str, *, quantization: str | None = None) -> Model:
        current = self._current
        spec = current.plan.recipe.models[role]
        weights = None if isinstance(spec, RemoteSpec) else current.weights(role, self._node)
        others = [(name, current.plan.recipe.models[name]) for name in fallback_of(spec)]
        fallback = [(n, s, None if isinstance(s, RemoteSpec) else current.weights(n, self._node)) for n, s in others]
        return current.client.model(
            role,
            spec,
            stage=self._node.name,
            weights=weights,
            quantization=quantization,
            fallback=fallback,
            seed=self._node.seed(self.seed),
        )

    def prompt(self, name: str) -> Prompt:
        return self._node.prompts[name]

    def prompts_of(self, record: Record) -> tuple[Prompt, ...]:
        origins = [each.origin for each in (record, *self._above(record, Record)) if each.origin]
        made = frozenset((origin.stage, origin.prompt) for origin in origins)
        if made not in self._prompts:
            self._prompts[made] = tuple(self._prompts_in(made))
        return self._prompts[made]

    def _prompts_in(self, made: Set[tuple[str, str | None]]) -> dict[Prompt, None]:
        """Each once. A prompt that an origin names counts in whatever stage: harvested samples are of another."""
        stages, refs = {stage for stage, _ in made}, {ref for _, ref in made}
        prompts = [(node.entry, prompt) for node in self._current.plan.nodes for prompt in node.prompts.values()]
        return dict.fromkeys(prompt for entry, prompt in prompts if entry in stages or prompt.ref in refs)

    def count(self, **amounts: float) -> None:
        for name, amount in amounts.items():
            self._counts.more[name] = self._counts.more.get(name, 0) + amount

    def weights(self, role: str) -> Weights:
        return self._current.weights(role, self._node)

    def calls(self, keys: Sequence[str]) -> list[dict[str, Any]]:
        return self._current.workspace.store.calls(keys)

    def earlier(self, runs: Sequence[str] | None) -> list[Earlier]:
        return earlier_runs(self._current.workspace, self._current.folder, runs)

    def stopping(self) -> bool:
        return self._current.stopping()

    def progress(self, done: float, total: float, **values: float | str) -> None:
        self.meter(done, total, values)

    def metric(self, **values: float | int | str) -> None:
        self._current.events.emit("metric", stage=self._node.name, **values)

    def warn(self, message: str) -> None:
        self._current.events.emit("warning", stage=self._node.name, message=message)
        log("warning", message=message)
