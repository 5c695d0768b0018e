"""Labels for texts: rules from a description, a model that labels by them, a classifier that was trained on its labels.
Import-light."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from gristmill.core import stage
from gristmill.core.records import Chunk, Draft, Sample
from gristmill.core.stage import Role, Stage, StageConfig
from gristmill.generate.config import WriterConfig

Text = Annotated[str, Field(min_length=1, max_length=400)]


def _named(classes: object) -> object:
    """`[repair, money]`: classes whose names say enough."""
    return dict.fromkeys(classes, "") if isinstance(classes, list) else classes


class RulesConfig(WriterConfig):
    """A description of what is to be told apart in, rules for each class out: one draft that `generate.label` takes."""

    kind: Literal["generate.rules"]
    description: Text = Field(description="What the texts are, and what they are sorted by")
    classes: Annotated[dict[str, str], BeforeValidator(_named)] = Field(
        min_length=2, max_length=50, description="The classes: name -> what it means, or their names alone"
    )


class LabelConfig(StageConfig):
    """Texts, rules and the labels and guesses there are in; a model's labels for some more of the texts out.

    A share of the texts, drawn by seed, is kept for testing: it is labelled apart, is marked split=test and is never
    trained on. The others are chosen by what a classifier guesses of them, at random as long as there is none.
    """

    kind: Literal["generate.label"]
    model: Role = Field(description="The role that labels")
    count: int = Field(50, ge=1, description="Texts to label for training, a round")
    test: int = Field(25, ge=0, description="Texts to label for the test, a round")
    pick: Literal["balanced", "uncertain", "random"] = Field(
        "balanced",
        description="Which texts to train on. balanced: of the classes that have the fewest labels first, as the "
        "classifier guesses; uncertain: those of which it is the least sure",
    )
    column: str = Field("text", description="Of a row: the field that holds the text")
    characters: int = Field(4000, ge=100, description="Of a text; a longer one is cut in its middle")
    temperature: float = Field(0.0, ge=0, le=2, description="Sampling temperature")


class ClassifyConfig(StageConfig):
    """Texts in, a trained classifier's guess for each out: a labelled sample, marked with how sure it is."""

    kind: Literal["generate.classify"]
    model: Role = Field(description="The classifier: a model that `train.classify` has trained")
    column: str = Field("text", description="Of a row: the field that holds the text")
    context: int = Field(512, ge=8, description="Tokens of a text that are read, as in training")
    below: float | None = Field(None, gt=0, le=1, description="Reject the guesses that are less sure than this")


TEXTS = (Chunk, Sample, Draft)

STAGES: stage.STAGES = {
    "generate.rules": (
        Stage(
            code="gristmill.generate.label.rules:brief",
            config=RulesConfig,
            takes=(),
            gives=(Draft,),
            shape="pass",
            part="brief",
        ),
        Stage(
            code="gristmill.generate.label.rules:run",
            config=RulesConfig,
            takes=(Draft,),
            gives=(Draft,),
            prompts=("label_rules", "label_rule"),
        ),
    ),
    "generate.label": (
        Stage(
            code="gristmill.generate.label.choose:run",
            config=LabelConfig,
            takes=TEXTS,
            gives=(Draft,),
            shape="pass",
            part="choose",
        ),
        Stage(
            code="gristmill.generate.label.label:run",
            config=LabelConfig,
            takes=(Draft,),
            gives=(Sample,),
            prompts=("label_text",),
        ),
    ),
    "generate.classify": (
        Stage(
            code="gristmill.generate.label.classify:run",
            config=ClassifyConfig,
            takes=TEXTS,
            gives=(Sample,),
            shape="pass",
            extras=("train",),
            libraries=("torch", "transformers"),
        ),
    ),
}
