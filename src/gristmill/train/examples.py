"""From samples to token sequences, and the report that says what will be trained on before anything is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from gristmill.core.errors import InputError
from gristmill.core.records import Sample
from gristmill.core.stage import Dropped
from gristmill.models.renderer import Rendered, Renderer
from gristmill.train.packing import Tokens

OPEN, CLOSE = "⟦", "⟧"
"""Around what the loss sees, in the report's rendered sample."""


@dataclass
class Examples:
    """The samples that are used, their sequences (several for a long text), and what was dropped."""

    samples: list[Sample] = field(default_factory=list)
    sequences: list[Tokens] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    stops: int = 0  # chats whose end is supervised

    @property
    def tokens(self) -> int:
        return sum(len(s) for s in self.sequences)

    @property
    def supervised(self) -> int:
        return sum(s.supervised for s in self.sequences)


def encode(samples: Iterable[Sample], renderer: Renderer, *, context: int) -> Examples:
    """Render each sample. A chat longer than the context is dropped (half a conversation teaches the wrong thing);
    a text is cut into consecutive pieces; what no token is supervised of is dropped."""
    out = Examples()
    for sample in samples:
        rendered = render(sample, renderer)
        tokens = Tokens(np.array(rendered.ids, np.int64), np.array(rendered.mask, np.bool_))
        if not tokens.supervised:
            out.dropped.append(Dropped(sample, "nothing to train on", "no token of it is marked to be trained"))
        elif sample.form == "chat" and len(tokens) > context:
            detail = f"{len(tokens)} tokens; raise the stage's context of {context}, or make shorter conversations"
            out.dropped.append(Dropped(sample, "longer than the context", detail))
        else:
            if sample.form == "chat" and any(m.train is True for m in sample.messages):
                _require_stop(sample, rendered, renderer)
                out.stops += 1
            out.samples.append(sample)
            out.sequences += [piece for piece in tokens.pieces(context) if piece.supervised]
    return out


def render(sample: Sample, renderer: Renderer) -> Rendered:
    if sample.form == "chat":
        return renderer.chat(sample.messages)
    return renderer.text(sample.text, train=sample.train)


def _require_stop(sample: Sample, rendered: Rendered, renderer: Renderer) -> None:
    """A model that is never taught to stop talks on for ever."""
    if not any(seen and token in renderer.stop_ids for token, seen in zip(rendered.ids, rendered.mask, strict=True)):
        raise InputError(
            f"the stop token is not trained in sample {sample.id}",
            "The model's chat template does not close an assistant's turn with one of its end tokens: "
            "use a model whose template does, or set its eos token.",
        )


def marked_text(rendered: Rendered, renderer: Renderer) -> str:
    """A sample as the model reads it, with ⟦what the loss sees⟧ marked. Runs of tokens are decoded together."""
    runs = groupby(zip(rendered.ids, rendered.mask, strict=True), key=lambda pair: pair[1])
    pieces = ((seen, renderer.decode([token for token, _ in run], special=True)) for seen, run in runs)
    return "".join(f"{OPEN}{text}{CLOSE}" if seen else text for seen, text in pieces)


def mask_report(train: Examples, validation: Examples, renderer: Renderer) -> dict[str, Any]:
    """What the loss will see: counts by form and kind, tokens, share, and one sample of each form as it is trained on.
    Raises InputError when there is nothing to learn."""
    if not train.samples:
        reasons = Counter(dropped.reason for dropped in train.dropped)
        raise InputError(
            "no sample to train on" + (f" (dropped: {dict(reasons)})" if reasons else ""),
            "Samples whose mark `split` is missing or `train` are trained on, where a message or text is marked to be "
            "trained. Look at the stage's input with: gristmill show RUN --rejects",
        )
    kinds = Counter(f"{sample.form}/{sample.kind}" for sample in train.samples)
    shown = {form: next((s for s in train.samples if s.form == form), None) for form in ("chat", "text")}
    return {
        "samples": len(train.samples),
        "kinds": dict(sorted(kinds.items())),
        "tokens": train.tokens,
        "supervised": train.supervised,
        "share": round(train.supervised / train.tokens, 4),
        "stop_supervised": train.stops == sum(s.form == "chat" for s in train.samples),
        "dropped": dict(Counter(dropped.reason for dropped in train.dropped)),
        "validation": {"samples": len(validation.samples), "supervised": validation.supervised},
        "shown": {form: marked_text(render(s, renderer), renderer) for form, s in shown.items() if s},
    }
