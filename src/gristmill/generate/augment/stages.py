"""The kinds of this family and their configs."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from gristmill.core import stage
from gristmill.core.records import Sample
from gristmill.core.stage import Role, Stage, StageConfig
from gristmill.generate.config import WriterConfig
from gristmill.generate.languages import WrittenIn

Noise = Literal[
    "typos", "keyboard", "swap", "drop", "double", "spaces", "word_swap", "word_drop", "word_repeat", "random_case"
]
Form = Literal[
    "upper", "lower", "title", "sentence", "alternating", "inverted", "snake", "kebab", "camel", "pascal"
]  # fmt: skip
AugmentWay = Literal["cda", "ada", "cada", "counterfactual", "back_translation"]
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

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(set(self.ways)) < len(self.ways):
            raise ValueError("a way is named twice in `ways`")
        if not set(self.ways) & set(NOISE) and (said := {"share", "copies"} & self.model_fields_set):
            raise ValueError(f"{' and '.join(sorted(said))} does nothing with ways that touch all words")
        return self


class AspectsConfig(WriterConfig):
    """Texts in, one labelled row out for each aspect that the text judges: its words, found by code, and a label."""

    kind: Literal["generate.aspects"]
    labels: list[str] = Field(min_length=2, max_length=64, description="What is said of an aspect: one of these")
    about: str = Field("the attitude towards it", min_length=1, description="What a label says, in words for the model")
    most: int = Field(4, ge=1, le=32, description="Most aspects of a text")

    @model_validator(mode="after")
    def _structured(self) -> Self:
        if self.ask == "line":
            raise ValueError("generate.aspects has ask: structured alone")
        return self


class AugmentConfig(WriterConfig):
    """Labelled rows in, variants of the training ones out: another context, another aspect, both, or another label."""

    kind: Literal["generate.augment"]
    ways: list[AugmentWay] = Field(
        ["cda", "ada", "cada"],
        min_length=1,
        description="cda: another context, aspect and label the same. ada: another aspect in the same context. cada: "
        "ada upon cda. counterfactual: another label for the same aspect. back_translation: over another language",
    )
    labels: list[str] = Field(min_length=2, max_length=64, description="All labels there are")
    about: str = Field("the attitude towards it", min_length=1, description="What a label says, in words for the judge")
    variants: int = Field(2, ge=1, le=16, description="Asked for in each way; what fails a check is no variant")
    pivots: list[WrittenIn] = Field(
        ["fr"], min_length=1, description="back_translation: languages to go over, by ISO 639 or English name"
    )
    share: float = Field(1.0, gt=0, le=1, description="Share of the training rows that is drawn, by seed")
    change: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Least share of the context's words that a new context changes (cda, cada, back_translation); a "
        "counterfactual changes as little as it can: one word, and the label as judged",
    )
    band: tuple[float, float] = Field(
        (0.3, 0.9),
        description="Likeness (cosine of local word vectors) below which a new context is dropped, and from which "
        "a variant is kept; between them the judge is asked. A cosine cannot tell praise from blame: [0.3, 1.1] asks "
        "about all",
    )
    judge: Role | None = Field(None, description="The role that judges; the writer when not given")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for name in ("ways", "labels", "pivots"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"`{name}` names one twice")
        if self.band[0] > self.band[1]:
            raise ValueError("`band` goes from the lower end to the upper")
        if "pivots" in self.model_fields_set and "back_translation" not in self.ways:
            raise ValueError("`pivots` belongs to back_translation")
        if "change" in self.model_fields_set and not {"cda", "cada", "back_translation"} & set(self.ways):
            raise ValueError("`change` belongs to cda, cada and back_translation")
        return self


_WRITTEN = ("augment_cda", "augment_ada", "augment_counterfactual")

STAGES: stage.STAGES = {
    "generate.aspects": (
        Stage(
            "gristmill.generate.augment.aspects:run",
            AspectsConfig,
            takes=(Sample,),
            gives=(Sample,),
            prompts=("augment_aspects",),
        ),
    ),
    "generate.augment": (
        Stage(
            "gristmill.generate.augment.augment:run",
            AugmentConfig,
            takes=(Sample,),
            gives=(Sample,),
            prompts=(
                *_WRITTEN,
                *(f"{prompt}_line" for prompt in _WRITTEN),
                "augment_translate",
                "augment_judge_same",
                "augment_judge_sense",
            ),
            libraries=("wordllama",),
            modules=("gristmill.retrieve.embeddings",),
        ),
    ),
    "generate.perturb": (
        Stage("gristmill.generate.augment.perturb:run", PerturbConfig, takes=(Sample,), gives=(Sample,)),
    ),
}
