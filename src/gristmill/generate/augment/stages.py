"""The kinds of this family and their configs."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from gristmill.core import stage
from gristmill.core.records import Sample
from gristmill.core.stage import Stage, StageConfig

Noise = Literal[
    "typos", "keyboard", "swap", "drop", "double", "spaces", "word_swap", "word_drop", "word_repeat", "random_case"
]
Form = Literal[
    "upper", "lower", "title", "sentence", "alternating", "inverted", "snake", "kebab", "camel", "pascal"
]  # fmt: skip
Guard = Literal["numbers", "names", "code"]
Split = Literal["train", "validation", "test"]
TextRole = Literal["system", "user", "assistant", "tool"]

NOISE: tuple[Noise, ...] = Noise.__args__  # type: ignore[attr-defined]


class PerturbConfig(StageConfig):
    """Samples in, the same with typing errors or in other letters out, by code and seed. Spans stay what they were."""

    kind: Literal["generate.perturb"]
    ways: list[Noise | Form] = Field(
        ["typos"],
        min_length=1,
        description="One variant of a sample in each. Of single words: typos (the next five mixed), keyboard (a "
        "neighbouring key), swap, drop, double (letters), spaces, word_swap, word_drop, word_repeat, random_case. Of "
        "all words: upper, lower, title, sentence, alternating, inverted, snake, kebab, camel, pascal",
    )
    share: float = Field(0.05, gt=0, le=1, description="Share of the words that is touched, one at least")
    copies: int = Field(1, ge=1, le=100, description="Variants in each way that draws words")
    roles: list[TextRole] = Field(["user"], min_length=1, description="Of messages, whose are touched")
    protect: list[Guard] = Field(
        ["numbers", "names", "code"],
        description="What stays as it is, besides spans of labels and the borders of masks. code: addresses too",
    )
    words: list[str] = Field(default_factory=list, description="More words and phrases that stay as they are")
    splits: list[Split] = Field(["train"], min_length=1, description="Whose samples; one without a split is train")
    keep: bool = Field(True, description="Give the samples themselves, too")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(set(self.ways)) < len(self.ways):
            raise ValueError("a way is named twice in `ways`")
        if not set(self.ways) & set(NOISE) and (said := {"share", "copies"} & self.model_fields_set):
            raise ValueError(f"{' and '.join(sorted(said))} does nothing with ways that touch all words")
        return self


STAGES: stage.STAGES = {
    "generate.perturb": (
        Stage("gristmill.generate.augment.perturb:run", PerturbConfig, takes=(Sample,), gives=(Sample,)),
    ),
}
