"""From samples to examples, and the report that says what will be trained on before anything is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gristmill.core.errors import InputError, Reject
from gristmill.core.records import Sample
from gristmill.core.stage import Dropped
from gristmill.models.renderer import Rendered, Renderer
from gristmill.train.objective import Objective
from gristmill.train.packing import Example

OPEN, CLOSE = "⟦", "⟧"
"""Around what the loss sees, in the report's rendered sample."""


@dataclass
class Examples:
    """The samples that are used, their examples, and what was dropped."""

    samples: list[Sample] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    sized: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example."""
        return np.array([len(e) for e in self.examples], np.int64)

    @cached_property
    def sizes(self) -> NDArray[np.float64]:
        """What each example counts in the mean (`Objective.size`)."""
        return np.array(self.sized, np.float64)

    @property
    def tokens(self) -> int:
        return int(self.lengths.sum())

    @property
    def supervised(self) -> int:
        return sum(e.supervised for e in self.examples)


def encode(samples: Iterable[Sample], objective: Objective, renderer: Renderer) -> Examples:
    """Each sample as its objective sees it; what it cannot use is dropped with the reason."""
    out = Examples()
    for sample in samples:
        try:
            if sample.form not in objective.forms:
                raise Reject(f"a {sample.form} sample", f"this objective learns from {', '.join(objective.forms)}")
            made = objective.examples(sample, renderer)
        except Reject as reject:
            out.dropped.append(Dropped(sample, reject.reason, reject.detail))
            continue
        out.samples.append(sample)
        out.examples += made
        out.sized += [objective.size(example) for example in made]
    out.examples = list(objective.beside(out.examples))
    return out


def marked_text(rendered: Rendered, renderer: Renderer) -> str:
    """A sample as the model reads it, with ⟦what the loss sees⟧ marked. Runs of tokens are decoded together."""
    runs = groupby(zip(rendered.ids, rendered.mask, strict=True), key=lambda pair: pair[1])
    pieces = ((seen, renderer.decode([token for token, _ in run], special=True)) for seen, run in runs)
    return "".join(f"{OPEN}{text}{CLOSE}" if seen else text for seen, text in pieces)


def mask_report(train: Examples, validation: Examples, objective: Objective, renderer: Renderer) -> dict[str, Any]:
    """What the loss will see: counts by form and kind, tokens, share, and one sample of each form as it is trained on.
    Raises InputError when there is nothing to learn."""
    if not train.samples:
        reasons = Counter(dropped.reason for dropped in train.dropped)
        raise InputError(
            "no sample to train on" + (f" (dropped: {dict(reasons)})" if reasons else ""),
            "Samples whose mark `split` is missing or `train` are trained on, where a message or text is marked to be "
            "trained. Look at what the stage takes with: gristmill show RUN records",
        )
    kinds = Counter(f"{sample.form}/{sample.kind}" for sample in train.samples)
    first = {sample.form: sample for sample in reversed(train.samples)}
    return {
        "samples": len(train.samples),
        "kinds": dict(sorted(kinds.items())),
        "tokens": train.tokens,
        "supervised": train.supervised,
        "share": round(train.supervised / train.tokens, 4),
        "stop_supervised": all(
            any(
                int(t) in renderer.stop_ids
                for e in objective.examples(s, renderer)
                for q in e.sequences
                for t in q.ids[q.mask]
            )
            for s in train.samples
            if s.form == "chat" and any(m.train is True for m in s.messages)
        ),
        "dropped": dict(Counter(dropped.reason for dropped in train.dropped)),
        "validation": {"samples": len(validation.samples), "supervised": validation.supervised},
        "shown": {form: _shown(objective.examples(s, renderer)[0], renderer) for form, s in sorted(first.items())},
    }


def _shown(example: Example, renderer: Renderer) -> str:
    texts = (
        marked_text(Rendered(tokens.ids.tolist(), tokens.mask.tolist(), ""), renderer) for tokens in example.sequences
    )
    return "\n\n".join(texts)
