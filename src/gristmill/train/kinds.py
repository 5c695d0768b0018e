"""The kinds of training: the settings of each, and where its objective is. Import-light, as a check is: the objectives
themselves are imported when a stage runs."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from gristmill.core.errors import InputError
from gristmill.core.records import Sample
from gristmill.train.config import TrainConfig

_BETA = {"dpo": 0.1, "ipo": 0.1, "orpo": 0.1, "simpo": 2.0}


class SftConfig(TrainConfig):
    """Supervised fine-tuning on text and chat samples; on texts alone it is continued pretraining."""

    kind: Literal["train.sft"]


class PreferenceConfig(TrainConfig):
    """Direct preference optimisation and its relatives, on preference samples."""

    rates: ClassVar[tuple[float, float]] = (5e-5, 5e-6)
    sequences: ClassVar[int] = 2

    kind: Literal["train.dpo"]
    loss: Literal["dpo", "ipo", "orpo", "simpo"] = Field(
        "dpo", description="How a pair is compared; orpo and simpo need no starting model to compare with"
    )
    beta: float | None = Field(
        None,
        gt=0,
        description="dpo, ipo: how dear a step away from the starting model is (0.1 if not given); "
        "orpo: weight of the odds ratio (0.1); simpo: scale of the margin (2)",
    )
    gamma: float = Field(1.0, ge=0, description="simpo: margin by which the chosen response shall lead")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="dpo, simpo: share of pairs taken to be turned round")
    sft_weight: float | None = Field(
        None, ge=0, description="Weight of the chosen response's own loss (orpo: 1 if not given, else 0)"
    )

    @model_validator(mode="after")
    def _belongs_to_the_loss(self) -> Self:
        if "gamma" in self.model_fields_set and self.loss != "simpo":
            raise ValueError(f"gamma is simpo's margin, and loss is {self.loss}")
        if self.label_smoothing and self.loss not in ("dpo", "simpo"):
            raise ValueError(f"label_smoothing belongs to dpo and simpo, and loss is {self.loss}")
        return self

    @property
    def scale(self) -> float:
        return _BETA[self.loss] if self.beta is None else self.beta

    @property
    def own_weight(self) -> float:
        return float(self.loss == "orpo") if self.sft_weight is None else self.sft_weight


class KtoConfig(TrainConfig):
    """Kahneman-Tversky optimisation, on rating samples: answers that are desirable or not."""

    rates: ClassVar[tuple[float, float]] = (5e-5, 5e-6)

    kind: Literal["train.kto"]
    beta: float = Field(0.1, gt=0, description="How dear a step away from the starting model is")
    desirable_weight: float = Field(1.0, gt=0, description="Weight of desirable answers")
    undesirable_weight: float = Field(
        1.0, gt=0, description="Weight of undesirable ones; the paper keeps weight x number of both kinds alike"
    )


class ScoreConfig(TrainConfig):
    """A training whose model gives scores in place of text."""

    @model_validator(mode="after")
    def _writes_nothing(self) -> Self:
        if self.sample_every is not None:
            raise ValueError("sample_every asks for text, and a model with a score head writes none")
        return self


class RewardConfig(ScoreConfig):
    """A reward model on preference samples: the model's layers with a head that gives one score."""

    rates: ClassVar[tuple[float, float]] = (2e-4, 2e-5)
    sequences: ClassVar[int] = 2

    kind: Literal["train.reward"]
    margin: float = Field(0.0, ge=0, description="How far the chosen score shall lead")
    centering: float = Field(0.0, ge=0, description="Weight of keeping the two scores of a pair around zero, 0.01 say")


class ClassifyConfig(ScoreConfig):
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


OBJECTIVES: dict[str, tuple[type[TrainConfig], str]] = {
    "train.sft": (SftConfig, "gristmill.train.objectives.sft:Supervised"),
    "train.dpo": (PreferenceConfig, "gristmill.train.objectives.preference:Preference"),
    "train.kto": (KtoConfig, "gristmill.train.objectives.kto:Kto"),
    "train.reward": (RewardConfig, "gristmill.train.objectives.reward:Reward"),
    "train.classify": (ClassifyConfig, "gristmill.train.objectives.classify:Classify"),
}
"""Kind -> its settings, and the class of its objective, which is made of them."""


def plugged() -> dict[str, EntryPoint]:
    """Kind -> another package's objective: `train.` and the name of its entry point."""
    return {f"train.{point.name}": point for point in entry_points(group="gristmill.objectives")}
