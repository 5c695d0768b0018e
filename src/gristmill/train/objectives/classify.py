"""Sorting texts into classes: a score head with one score a class at the text's end, trained by cross-entropy.

    Σ w(class) · -log softmax(scores)[class] / Σ w(class)

the weighted mean of torch's CrossEntropyLoss. In evaluation macro-F1 is the plain mean of the classes' F1, over the
classes that occur or are given as an answer: rare classes count as much as common ones.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch.nn.functional import cross_entropy, one_hot

from gristmill.core.errors import Reject
from gristmill.core.records import Sample
from gristmill.models.renderer import Renderer
from gristmill.train.batch import Said
from gristmill.train.kinds import ClassifyConfig
from gristmill.train.objective import Loss, Objective
from gristmill.train.packing import Example, Tokens


class Classify(Objective):
    """Texts, each read at its end; the mean is over texts by the weight of their class."""

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
