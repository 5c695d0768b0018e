"""What was found in a sample, and what is done about it. Found values are never written down: details name kinds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from gristmill.core.errors import Reject
from gristmill.core.records import Message, Record, Sample, Span, TrainMask
from gristmill.core.stage import StepContext
from gristmill.curate.privacy.stages import Action


@dataclass(frozen=True)
class Finding:
    kind: str
    start: int
    end: int


Find = Callable[[str], Iterable[Finding]]


def apart(findings: Iterable[Finding]) -> list[Finding]:
    """In order of place, none inside or across another: the earlier given wins."""
    kept: list[Finding] = []
    for each in findings:
        if all(each.end <= other.start or other.end <= each.start for other in kept):
            kept.append(each)
    return sorted(kept, key=lambda each: each.start)


@dataclass(frozen=True)
class Masked:
    """A text with what was found replaced, and where its places have gone."""

    text: str
    found: Sequence[Finding]

    @classmethod
    def of(cls, text: str, find: Find) -> Masked:
        return cls(text, apart(find(text)))

    def written(self) -> str:
        parts, at = [], 0
        for each in self.found:
            parts += [self.text[at : each.start], f"[{each.kind}]"]
            at = each.end
        return "".join([*parts, self.text[at:]])

    def place(self, at: int, *, end: bool) -> int:
        """A place of the old text in the new one; inside a mask, the mask's start or end."""
        moved = 0
        for each in self.found:
            longer = len(each.kind) + 2 - (each.end - each.start)
            if each.end <= at:
                moved += longer
            elif each.start < at:
                return each.start + moved + (len(each.kind) + 2 if end else 0)
        return at + moved

    def spans(self, spans: Sequence[Span]) -> tuple[Span, ...]:
        return tuple((self.place(start, end=False), self.place(stop, end=True)) for start, stop in spans)

    def mask(self, train: TrainMask) -> TrainMask:
        return train if isinstance(train, bool) else self.spans(train)


_TEXTS = ("messages", "chosen", "rejected")


def _parts(sample: Sample, find: Find) -> dict[str, Any]:
    """By field, every text of a sample as `Masked`."""
    parts: dict[str, Any] = {name: [Masked.of(m.content, find) for m in getattr(sample, name)] for name in _TEXTS}
    return {**parts, "text": [Masked.of(sample.text, find)]}


def _rewritten(sample: Sample, parts: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name in _TEXTS:
        pairs = zip(getattr(sample, name), parts[name], strict=True)
        yield name, tuple(Message(role=m.role, content=p.written(), train=p.mask(m.train)) for m, p in pairs)
    (text,) = parts["text"]
    yield from {"text": text.written(), "train": text.mask(sample.train), "spans": text.spans(sample.spans)}.items()


def treat(sample: Sample, find: Find, action: Action, what: str, ctx: StepContext) -> list[Record]:
    """The sample without it (a new one, made from this), or marked with what it holds; dropped, it is a Reject."""
    parts = _parts(sample, find)
    found = Counter(each.kind for part in chain.from_iterable(parts.values()) for each in part.found)
    if not found:
        return [sample]
    if action == "drop":
        raise Reject(what, ", ".join(sorted(found)))
    ctx.count(**{f"{kind}, {what}": many for kind, many in found.items()})
    marked = sample.marked(**{what: dict(sorted(found.items()))})
    if action == "report":
        return [marked]
    return [marked.model_copy(update={**dict(_rewritten(sample, parts)), "parents": (sample.id,)})]
