"""Sorting texts into classes: a score head with one score a class at the text's end, trained by cross-entropy.

    Σ w(class) · -log softmax(scores)[class] / Σ w(class)

the weighted mean of torch's CrossEntropyLoss. In evaluation macro-F1 is the plain mean of the classes' F1, over the
classes that occur or are given as an answer: rare classes count as much as common ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from gristmill.core.errors import InputError, Reject
from gristmill.core.records import Sample
from gristmill.train.config import TrainConfig
from gristmill.train.objective import Loss, Objective
from gristmill.train.packing import Example, Tokens

if TYPE_CHECKING:
    from gristmill.models.renderer import Renderer
    from gristmill.train.batch import Said


class ClassifyConfig(TrainConfig):
    """A classifier on labelled samples: the model's layers with a head that gives one score for each class."""

    rates: ClassVar[tuple[float, float]] = (5e-4, 5e-5)

    kind: Literal["train.classify"]
    labels: list[str] | None = Field(
        None, min_length=2, description="Classes in the order of the scores; those of the samples, sorted, if not given"
    )
    class_weights: dict[str, float] = Field(default_factory=dict, description="Weights of classes in the loss, else 1")

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if self.labels is not None and len(set(self.labels)) < len(self.labels):
            raise ValueError("labels names a class twice")
        if any(weight <= 0 for weight in self.class_weights.values()):
            raise ValueError("class_weights are above zero; leave a class's samples out instead")
        return self

    def settled(self, samples: Iterable[Sample]) -> Self:
        """With the classes of the samples, where the recipe does not name them."""
        labels = self.labels or sorted({sample.label for sample in samples if sample.form == "labelled"})
        if len(labels) < 2:
            raise InputError(
                f"a classifier needs two classes or more, and the samples have {', '.join(labels) or 'none'}",
                "Give labelled samples (columns text and label), or name the stage's labels.",
            )
        if unknown := sorted(self.class_weights.keys() - set(labels)):
            raise InputError(f"class_weights names no class of the samples: {', '.join(unknown)}", str(labels))
        return self.model_copy(update={"labels": labels})


class Classify(Objective):
    """Texts, each read at its end; the mean is over texts by the weight of their class."""

    settings = ClassifyConfig
    forms = frozenset({"labelled"})
    head = "score"

    def __init__(self, config: ClassifyConfig) -> None:
        super().__init__(config)
        self.labels = tuple(config.labels or ())

    def examples(self, sample: Sample, renderer: Renderer) -> list[Example]:
        """The text's tokens as any tokenizer gives them, no end token after them: so the classifier's other users need
        nothing but the text."""
        if sample.label not in self.labels:
            raise Reject("a class that is not among the labels", sample.label)
        ids = np.array([*([] if renderer.bos is None else [renderer.bos]), *renderer.encode(sample.text)], np.int64)
        if len(ids) > self.config.context and self.config.truncation == "drop":
            raise Reject("longer than the context", f"{len(ids)} tokens; set truncation: cut, or raise the context")
        tokens = Tokens(ids, np.zeros(len(ids), np.bool_)).first(self.config.context)
        return [Example((tokens,), (self.labels.index(sample.label), self._weight(sample.label)))]

    def size(self, example: Example) -> float:
        return example.values[1]

    def loss(self, said: Said, *, total: float, estimate: float) -> Loss:
        from torch.nn.functional import cross_entropy, one_hot

        del estimate
        scores, classes, weights = said.scores(), said.batch.values[:, 0].long(), said.batch.values[:, 1]
        losses = cross_entropy(scores, classes, reduction="none")
        given, held = one_hot(scores.argmax(1), len(self.labels)), one_hot(classes, len(self.labels))
        counted = {"right": given * held, "given": given, "held": held}
        sums = {f"{what}/{at}": n for what, each in counted.items() for at, n in enumerate(each.sum(0))}
        return Loss((weights * losses).sum() / total, sums)

    def metrics(self, sums: Mapping[str, float], total: float) -> dict[str, float]:
        """Accuracy, and the mean F1 = 2 right / (given + held) of the classes."""
        del total
        right, given, held = (
            [sums[f"{what}/{n}"] for n in range(len(self.labels))] for what in ("right", "given", "held")
        )
        seen = [2 * r / (g + h) for r, g, h in zip(right, given, held, strict=True) if g + h]
        return {"accuracy": sum(right) / sum(held), "macro_f1": sum(seen) / len(seen)}

    def _weight(self, label: str) -> float:
        return self.config.class_weights.get(label, 1.0)
