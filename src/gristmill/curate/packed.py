"""Samples as rows of tokens, for trainers that take token ids: one model's tokenizer and template, rows filled without
padding.

`input_ids`; `labels`, the same ids where they are learned and -100 elsewhere (the convention of transformers);
`position_ids`, which begin at 0 in every sample, by which trainers with variable-length attention keep samples apart;
`ids` of the samples. A text longer than a row is cut into consecutive pieces: none of it is lost. A chat is not cut,
as its answers would lose their questions.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.core.errors import Reject
from gristmill.core.records import Sample
from gristmill.curate.stages import ExportConfig
from gristmill.models.renderer import Misplaced, Renderer
from gristmill.models.template import Unwritable
from gristmill.models.weights import locate_tokenizer, tokenizer_files

IGNORED = -100

Refuse = Callable[[Sample, Reject], None]
"""What is told of a sample that the format cannot say."""


@dataclass(frozen=True)
class Piece:
    """What lies in a row without a break: a sample, or a part of a text. Its first token follows from nothing."""

    sample: str
    ids: list[int]
    labels: list[int]


@dataclass(frozen=True)
class Packer:
    renderer: Renderer
    context: int  # tokens of a row

    @classmethod
    def of(cls, config: ExportConfig, base: Path) -> Packer | None:
        """None where no packed rows are asked for."""
        if config.tokenizer is None:
            return None
        return cls(Renderer.load(locate_tokenizer(config.tokenizer, base=base)), config.context)

    def rows(self, samples: Sequence[Sample], refuse: Refuse) -> list[dict[str, Any]]:
        """The rows of one split, in the order of the samples that they begin with."""
        pieces: list[Piece] = []
        for sample in samples:
            try:
                pieces += self.pieces(sample)
            except Reject as reject:
                refuse(sample, reject)
        rows = fitted([len(piece.ids) for piece in pieces], self.context)
        return [_row([pieces[at] for at in row]) for row in rows]

    def pieces(self, sample: Sample) -> list[Piece]:
        """A sample in tokens; each further piece begins with the last token of the one before, not learned there."""
        ids, mask = self._rendered(sample)
        if len(ids) > self.context and sample.form == "chat":
            raise Reject("longer than a row", f"{len(ids)} tokens; a row has {self.context}")
        pieces = []
        for start in range(0, max(1, len(ids) - 1), self.context - 1):
            part, seen = ids[start : start + self.context], mask[start : start + self.context]
            labels = [token if learned else IGNORED for token, learned in zip(part, seen, strict=True)]
            pieces.append(Piece(sample.id, part, [IGNORED, *labels[1:]]))
        if all(label == IGNORED for piece in pieces for label in piece.labels):
            raise Reject("nothing to train on")
        return pieces

    def _rendered(self, sample: Sample) -> tuple[list[int], list[bool]]:
        if sample.form not in ("text", "chat"):
            raise Reject(f"a {sample.form} sample is not said in this format")
        if sample.form == "chat" and not self.renderer.chats:
            raise Reject("the tokenizer has no chat template")
        try:
            chat = sample.form == "chat"
            done = self.renderer.chat(sample.messages) if chat else self.renderer.text(sample.text, train=sample.train)
        except (Unwritable, Misplaced) as error:
            raise Reject(error.message, error.hint) from error
        return done.ids, done.mask


def fitted(lengths: Sequence[int], context: int) -> list[list[int]]:
    """Which pieces share a row of `context` tokens: best-fit decreasing, the longest first, each into the fullest row
    that still holds it. In a row, and among rows by their first, in input order."""
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # tokens left, row; sorted
    for at in sorted(range(len(lengths)), key=lambda at: (-lengths[at], at)):
        place = bisect_left(free, (lengths[at], 0))
        if place == len(free):
            rows.append([])
            left, row = context, len(rows) - 1
        else:
            left, row = free.pop(place)
        rows[row].append(at)
        insort(free, (left - lengths[at], row))
    return sorted(sorted(row) for row in rows)


def _row(pieces: list[Piece]) -> dict[str, Any]:
    return {
        "input_ids": [token for piece in pieces for token in piece.ids],
        "labels": [label for piece in pieces for label in piece.labels],
        "position_ids": [at for piece in pieces for at in range(len(piece.ids))],
        "ids": [piece.sample for piece in pieces],
    }


def inputs(config: ExportConfig, base: Path) -> list[Path]:
    """The tokenizer's files: what is exported depends on them."""
    return tokenizer_files(config.tokenizer, base=base) if config.tokenizer else []
