"""From samples to examples, and the report that says what will be trained on before anything is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from gristmill.core.errors import InputError, Reject
from gristmill.core.records import Sample
from gristmill.models.renderer import Misplaced, Rendered, Renderer
from gristmill.models.template import Unwritable
from gristmill.train.objective import Objective
from gristmill.train.packing import Example

OPEN, CLOSE = "⟦", "⟧"
"""Around what the loss sees, in the report's rendered sample."""


def examples_of(sample: Sample, objective: Objective, renderer: Renderer) -> list[Example]:
    """A sample as its objective sees it. Raises Reject where it cannot use it."""
    if sample.form not in objective.forms:
        raise Reject(f"a {sample.form} sample", f"this objective learns from {', '.join(sorted(objective.forms))}")
    try:
        return objective.examples(sample, renderer)
    except (Unwritable, Misplaced) as error:
        raise Reject(error.message, error.hint) from error


def tokens_in(samples: Iterable[Sample], objective: Objective, renderer: Renderer) -> int:
    """Tokens that some samples would be trained on; those that would be dropped have none."""
    total = 0
    for sample in samples:
        try:
            total += sum(map(len, examples_of(sample, objective, renderer)))
        except Reject:
            continue
    return total


def marked_text(rendered: Rendered, renderer: Renderer) -> str:
    """A sample as the model reads it, with ⟦what the loss sees⟧ marked. Runs of tokens are decoded together."""
    runs = groupby(zip(rendered.ids, rendered.mask, strict=True), key=lambda pair: pair[1])
    pieces = ((seen, renderer.decode([token for token, _ in run], special=True)) for seen, run in runs)
    return "".join(f"{OPEN}{text}{CLOSE}" if seen else text for seen, text in pieces)


@dataclass
class Tally:
    """What the loss will see of one split, counted while samples become examples."""

    renderer: Renderer
    samples: int = 0
    examples: int = 0
    tokens: int = 0
    supervised: int = 0
    cut: int = 0  # samples of which something lies beyond the context
    answers: int = 0  # conversations of which an assistant's turn is trained
    stops: Counter[bool] = field(default_factory=Counter)  # conversations and texts, by whether they teach to stop
    kinds: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    shown: dict[str, str] = field(default_factory=dict)

    def add(self, sample: Sample, made: Sequence[Example]) -> None:
        sequences = [tokens for example in made for tokens in example.sequences]
        self.samples += 1
        self.examples += len(made)
        self.tokens += sum(map(len, sequences))
        self.supervised += sum(tokens.supervised for tokens in sequences)
        self.cut += any(tokens.left_out for tokens in sequences)
        self.kinds[f"{sample.form}/{sample.kind}"] += 1
        said = (*sample.messages, *sample.chosen, *sample.rejected)
        self.answers += any(message.role == "assistant" and message.train for message in said)
        ends = list(self.renderer.stop_ids) if said else [self.renderer.eos]
        taught = [bool(np.isin(tokens.ids[tokens.mask], ends).any()) for tokens in sequences]
        self.stops.update(taught if said else [any(taught)])  # a text's pieces have one end
        if sample.form not in self.shown:
            self._show(sample, made[0])

    @property
    def reasons(self) -> str:
        """Why samples were dropped, the most frequent reasons first."""
        return ", ".join(f"{reason} ({count})" for reason, count in self.dropped.most_common(5))

    def _show(self, sample: Sample, example: Example) -> None:
        texts = [
            marked_text(Rendered(tokens.ids.tolist(), tokens.mask.tolist(), ""), self.renderer)
            for tokens in example.sequences
        ]
        verdict = sample.label or ("" if sample.desirable is None else "good" if sample.desirable else "bad")
        names = ("chosen", "rejected") if len(texts) == 2 else ("",)
        said = [f"{name}:\n{text}" if name else text for name, text in zip(names, texts, strict=True)]
        self.shown[sample.form] = "\n\n".join([*said, *([f"→ {verdict}"] if verdict else [])])

    def as_dict(self) -> dict[str, Any]:
        return {
            "samples": self.samples,
            "kinds": dict(sorted(self.kinds.items())),
            "examples": self.examples,
            "tokens": self.tokens,
            "supervised": self.supervised,
            "share": round(self.supervised / max(1, self.tokens), 4),
            "cut": self.cut,
            "dropped": dict(sorted(self.dropped.items())),
            "shown": dict(sorted(self.shown.items())),
        }


def mask_report(train: Tally, validation: Tally, objective: Objective) -> dict[str, Any]:
    """What the loss will see: counts by form and kind, tokens, share, and one sample of each form as it is trained on.
    Raises InputError when there is nothing to learn."""
    if not train.samples or (objective.head == "tokens" and not train.supervised):
        raise InputError(
            "no sample to train on" + (f": {train.reasons}" if train.dropped else ""),
            "Samples whose mark `split` is missing or `train` are trained on, where a message or text is marked to be "
            "trained. Look at what the stage takes with: gristmill show RUN records",
        )
    held = validation.as_dict()
    return {
        **train.as_dict(),
        **(_stops(train) if objective.head == "tokens" else {}),
        "validation": {name: held[name] for name in ("samples", "tokens", "supervised", "dropped")},
    }


def _stops(train: Tally) -> dict[str, Any]:
    """Of the conversations and texts that write, how many teach to stop. Raises InputError where answers are taught
    and none of them does: such a model talks on for ever. Texts alone may be trained without their ends."""
    if train.answers and not train.stops[True]:
        raise InputError(
            "no sample teaches to stop: answers are trained, and never the token after one",
            "Mark whole answers `train: true` (spans leave their ends out), raise context, or set truncation: drop.",
        )
    return {
        "stop_supervised": not train.stops[False],
        "stops": {"taught": train.stops[True], "not": train.stops[False]},
    }


def endless(report: dict[str, Any]) -> str:
    """What a mask report says against a model's stopping; nothing, where every sample teaches it."""
    stops = report.get("stops", {})
    if not stops.get("not"):
        return ""
    return f"{stops['not']} of {sum(stops.values())} trained conversations and texts do not teach where to stop"
