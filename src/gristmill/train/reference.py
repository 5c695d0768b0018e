"""Log-probabilities under the starting weights: computed once before step 1, kept in the stage's folder under the
training's identity, and read from there when the training goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gristmill.core.errors import Cancelled, CheckpointError
from gristmill.core.stage import PassContext
from gristmill.models import checkpoint
from gristmill.train.learner import TOGETHER, Learner
from gristmill.train.packing import Example, collate

if TYPE_CHECKING:
    from gristmill.train.loop import Course, Given

FOLDER, _FILE = "reference", "reference.safetensors"


@dataclass(frozen=True)
class PerExample(Sequence[NDArray[np.float32]]):
    """Of each example, the log-probabilities of its sequences, then of those beside it."""

    values: NDArray[np.float32]  # [sequences of all examples]
    counts: NDArray[np.int64]  # [examples] how many are each one's

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ends", np.cumsum(self.counts))

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, index: Any) -> Any:
        end = self._ends[index]  # type: ignore[attr-defined]
        return self.values[end - self.counts[index] : end]


def reference_of(
    learner: Learner, course: Course, folder: Path, *, identity: dict[str, Any], ctx: PassContext
) -> dict[str, PerExample]:
    """By split. To be asked for before a checkpoint is taken up: until then the learner holds the starting weights."""
    kept = _read(folder, identity)
    missing = learner.ranks.any(kept is None)  # in one of them is missing in all
    if kept is None or missing:
        given = {"train": course.examples, "validation": course.held}
        kept = {split: _computed(learner, examples, course.forward, ctx) for split, examples in given.items()}
        if learner.ranks.leads:
            _keep(kept, folder, identity)
        ctx.metric(reference_sequences=sum(len(each.values) for each in kept.values()))
    return kept


def _computed(learner: Learner, examples: Given, forward: int, ctx: PassContext) -> PerExample:
    values: list[NDArray[np.float32]] = []
    counts: list[int] = []
    batches = _batches(examples, forward)
    while some := list(islice(batches, TOGETHER)):
        if learner.ranks.any(ctx.stopping()):
            raise Cancelled("stopped before the first step", "Run the same command again: it begins anew.")
        values += learner.references([collate([Example(each) for each in batch]) for batch in some])
        counts += [len(each) for batch in some for each in batch]
    flat = np.concatenate(values) if values else np.empty(0, np.float32)
    return PerExample(flat.astype(np.float32), np.array(counts, np.int64))


def _batches(examples: Given, forward: int) -> Iterator[list[tuple[Any, ...]]]:
    """All sequences of each example, in passes of `forward` tokens, or of one example."""
    batch: list[tuple[Any, ...]] = []
    held = 0
    for at in range(len(examples)):
        example = examples[at]
        every = (*example.sequences, *example.beside)
        tokens = sum(map(len, every))
        if batch and held + tokens > forward:
            yield batch
            batch, held = [], 0
        batch.append(every)
        held += tokens
    if batch:
        yield batch


def _keep(kept: dict[str, PerExample], folder: Path, identity: dict[str, Any]) -> None:
    import torch

    from gristmill.models.state import save_tensors

    tensors: dict[str, torch.Tensor] = {}
    for split, each in kept.items():
        tensors |= {f"{split}.values": torch.from_numpy(each.values), f"{split}.counts": torch.from_numpy(each.counts)}
    with checkpoint.staged(folder, metadata={"identity": identity}) as temp:
        save_tensors(temp / _FILE, tensors)


def _read(folder: Path, identity: dict[str, Any]) -> dict[str, PerExample] | None:
    """What was kept of this very training; None where nothing is, or of another, or damaged."""
    from gristmill.models.state import load_tensors

    try:
        manifest = checkpoint.verify(folder)
    except CheckpointError:
        return None
    if manifest.metadata["identity"] != identity:
        return None
    tensors = {name: tensor.numpy() for name, tensor in load_tensors(folder / _FILE).items()}
    return {
        split: PerExample(tensors[f"{split}.values"], tensors[f"{split}.counts"]) for split in ("train", "validation")
    }
