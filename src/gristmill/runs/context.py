"""What a stage may reach while it runs: `core.stage.StepContext` and `PassContext`, made real."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from gristmill.core.ask import Model
from gristmill.core.errors import ConfigError
from gristmill.core.events import EventLog
from gristmill.core.prompt import Prompt
from gristmill.core.records import Checkpoint, Record, digest_of
from gristmill.llm.client import Client
from gristmill.llm.spec import LocalSpec, RemoteSpec
from gristmill.models.weights import Weights, locate
from gristmill.runs.folder import Counts, Output, RunFolder
from gristmill.runs.plan import Node, Plan
from gristmill.runs.workspace import Workspace

R = TypeVar("R", bound=Record)


class Records:
    """Records of the finished stages by id, loaded when first asked for."""

    def __init__(self) -> None:
        self.outputs: dict[str, Output] = {}
        self._loaded: set[str] = set()
        self._by_id: dict[str, Record] = {}
        self._lock = threading.Lock()

    def add(self, name: str, output: Output) -> None:
        self.outputs[name] = output

    def get(self, record_id: str) -> Record | None:
        with self._lock:
            for name in [n for n in self.outputs if n not in self._loaded]:
                for record in self.outputs[name]:
                    self._by_id.setdefault(record.id, record)
                self._loaded.add(name)
            return self._by_id.get(record_id)


@dataclass
class Current:
    """The run in progress: what all its stages share."""

    plan: Plan
    workspace: Workspace
    folder: RunFolder
    client: Client
    events: EventLog
    stop: threading.Event
    deadline: float | None  # monotonic seconds
    records: Records = field(default_factory=Records)
    _weights: dict[str, Weights] = field(default_factory=dict)

    def stopping(self) -> bool:
        late = self.deadline is not None and time.monotonic() > self.deadline
        if late or (not self.stop.is_set() and self.folder.stop_file.exists()):
            self.stop.set()
        return self.stop.is_set()

    def weights(self, role: str) -> Weights:
        """Where a role's weights lie; for `from: stage`, what that stage trained in this run."""
        if role not in self._weights:
            self._weights[role] = self._find_weights(role)
        return self._weights[role]

    def _find_weights(self, role: str) -> Weights:
        spec = self.plan.recipe.models[role]
        if isinstance(spec, RemoteSpec):
            raise ConfigError(f"`{role}` is a model behind an address; weights on this machine are needed here")
        if isinstance(spec, LocalSpec):
            return locate(spec.model, base=self.plan.recipe.base, hasher=self.workspace.store.file_hash)
        trained = [r for r in self.records.outputs[spec.from_] if isinstance(r, Checkpoint)]
        if len(trained) != 1:
            raise ConfigError(f"stage {spec.from_} gave {len(trained)} checkpoints; `{role}` needs exactly one")
        folder = self.workspace.root / str(trained[0].marks["folder"])
        return locate(str(folder.resolve()), base=self.plan.recipe.base, hasher=self.workspace.store.file_hash)


class Context:
    """One stage's view of the run."""

    def __init__(self, current: Current, node: Node, counts: Counts, folder: Path) -> None:
        self._current = current
        self._node = node
        self._counts = counts
        self._last_event = 0.0
        self.stage = node.entry
        self.seed = current.plan.recipe.seed
        self.base = current.plan.recipe.base
        self.folder = folder
        self.run_folder = current.folder.path
        self.cache = current.workspace.cache
        self.show: Callable[..., None] = lambda **_: None  # set by the executor: draws progress

    def rng(self, record: Record, *salt: object) -> random.Random:
        return random.Random(digest_of([self.seed, self.stage, record.id, [str(s) for s in salt]]))

    def ancestor(self, record: Record, kind: type[R]) -> R | None:
        left = deque(record.parents)
        seen: set[str] = set()
        while left:
            parent = self._current.records.get(left.popleft())
            if isinstance(parent, kind):
                return parent
            if parent is not None and parent.id not in seen:
                seen.add(parent.id)
                left.extend(parent.parents)
        return None

    def model(self, role: str, *, quantization: str | None = None) -> Model:
        current = self._current
        spec = current.plan.recipe.models[role]
        weights = None if isinstance(spec, RemoteSpec) else current.weights(role)
        return current.client.model(role, spec, stage=self._node.name, weights=weights, quantization=quantization)

    def prompt(self, name: str) -> Prompt:
        return self._node.prompts[name]

    def prompt_of(self, record: Record) -> Prompt | None:
        wanted = record.origin.prompt if record.origin else None
        prompts = (p for node in self._current.plan.nodes for p in node.prompts.values())
        return next((p for p in prompts if p.ref == wanted), None)

    def count(self, **amounts: float) -> None:
        for name, amount in amounts.items():
            self._counts.more[name] = self._counts.more.get(name, 0) + amount

    def weights(self, role: str) -> Weights:
        return self._current.weights(role)

    def stopping(self) -> bool:
        return self._current.stopping()

    def progress(self, done: float, total: float, **values: float | str) -> None:
        self.show(done=done, total=total, **values)
        if time.monotonic() - self._last_event > 1:  # the file is for `status`; the screen hears every step
            self._last_event = time.monotonic()
            self._emit("progress", done=done, total=total, **values)

    def metric(self, **values: float | int | str) -> None:
        self._emit("metric", **values)

    def _emit(self, event: str, **values: Any) -> None:
        self._current.events.emit(event, stage=self._node.name, **values)
