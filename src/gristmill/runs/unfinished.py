"""The stage at which a run stands: what became of its records so far. Its table of rejects is written when all of them
are through; until then the event that began it says where their outcomes are kept in the store, and the log has the
words of those that could not be asked, which are kept nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import orjson

from gristmill.core.events import Event, read_events
from gristmill.core.store import Store
from gristmill.runs.feed import outcome_keys
from gristmill.runs.folder import Counts, Inputs, RunFolder
from gristmill.runs.tables import Group, Row


class Lost(NamedTuple):
    """A record that goes no further: where it stands in its group, and what a table of rejects says of it."""

    at: int
    status: str
    reason: str
    detail: str
    key: str


@dataclass(frozen=True)
class Unfinished:
    """A stage that was begun and is not done."""

    stage: str
    total: int
    key: str | None  # of a step's outcomes; a pass keeps none, and an event of an earlier version names none
    inputs: Inputs
    folder: RunFolder
    store: Store

    @property
    def counts(self) -> Counts:
        """Its line of the funnel."""
        return self._line[0]

    @property
    def done(self) -> int:
        """How many of its records are done."""
        return self._line[1]

    @cached_property
    def _line(self) -> tuple[Counts, int]:
        counts, done = Counts(taken=self.total), 0
        for _, kept, lost in self._looked():
            done += kept
            for one in lost:
                counts.drop(one.status, one.reason)
        ledger = self.store.spent_by_stage(self.folder.path.name)
        paid = [spent for (name, _), spent in ledger.items() if name == self.stage]
        for what in ("calls", "tokens_in", "tokens_out", "usd") if paid else ():
            counts.more[what] = sum(getattr(spent, what) for spent in paid)
        return counts, done

    def rejects(self) -> Iterator[Row]:
        """Rows as a finished stage's `Output.rejects` gives them."""
        for group, _, lost in self._looked():
            rows = group.rows([one.at for one in lost]) if lost else []
            for row, one in zip(rows, lost, strict=True):
                yield {**row, "status": one.status, "reason": one.reason, "detail": one.detail, "key": one.key}

    def _looked(self) -> Iterator[tuple[Group, int, list[Lost]]]:
        """Of each group how many are done, and what was lost."""
        if self.key is None:
            return
        unasked = self._unasked()
        for group in self.inputs.groups():
            keys = outcome_keys(self.key, group)
            kept = self.store.kept(keys)
            outcomes = self.store.results([key for key, status in kept.items() if status != "given"])
            ids = group.column("id") if unasked else []
            lost = []
            for at, key in enumerate(keys):
                if key in outcomes:
                    outcome = orjson.loads(outcomes[key])
                    reason, detail = outcome.get("reject") or outcome["failure"]
                    lost.append(Lost(at, str(kept[key]), reason, detail, key))
                elif key not in kept and unasked and ids[at] in unasked:
                    lost.append(Lost(at, "unreachable", *unasked[ids[at]], key))
            yield group, len(kept), lost

    def _unasked(self) -> dict[str, tuple[str, str]]:
        """Record id -> reason and words, of all attempts: what was answered since is kept by now."""
        lines = read_events(self.folder.path / "log.ndjson")
        mine = (line for line in lines if line["event"] == "unreachable" and line.get("stage") == self.stage)
        return {line["row"]: (line["reason"], line["detail"]) for line in mine}


def unfinished(folder: RunFolder, store: Store) -> Unfinished | None:
    """The stage that the last attempt began and did not end; None where there is none."""
    begun: Event | None = None
    for event in read_events(folder.path / "events.ndjson"):
        if event["event"] in ("run.started", "stage.finished"):
            begun = None
        elif event["event"] == "stage.started":
            begun = event
    if begun is None:
        return None
    outputs, needs, key = folder.outputs(), begun.get("needs", ()), begun.get("key")
    if any(need not in outputs for need in needs):  # one of them is being made again at this moment
        needs, key = (), None
    return Unfinished(begun["stage"], begun["records"], key, Inputs([outputs[need] for need in needs]), folder, store)
