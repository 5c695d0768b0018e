"""A trained classifier at work: a text's probability of each class, read at the text's last token as in training."""

from __future__ import annotations

from gristmill.core.errors import ConfigError
from gristmill.models.load import load_model, score_labels
from gristmill.models.renderer import Renderer
from gristmill.models.weights import Weights


class Classifier:
    """In memory, on the CPU, one text at a time: what a text is taken for does not depend on its neighbours."""

    def __init__(self, weights: Weights, *, context: int) -> None:
        self.labels = score_labels(weights)
        if len(self.labels) < 2:
            raise ConfigError("this model sorts nothing: it has no classes", "Name one of train.classify.")
        self.model = load_model(weights)
        self.renderer = Renderer.load(weights)
        self.context = context

    def tokens(self, text: str) -> list[int]:
        """As `train.objectives.classify` reads them: no end token, the beginning where it is too long."""
        begin = [] if self.renderer.bos is None else [self.renderer.bos]
        return [*begin, *self.renderer.encode(text)][: self.context]

    def probabilities(self, text: str) -> dict[str, float]:
        """By class, in the order of the scores; they add up to 1."""
        import torch

        ids = self.tokens(text)
        if not ids:
            return dict.fromkeys(self.labels, 1 / len(self.labels))
        with torch.inference_mode():
            scores = self.model(input_ids=torch.tensor([ids])).logits[0]
        shares = torch.softmax(scores.double(), 0).tolist()
        return dict(zip(self.labels, shares, strict=True))
