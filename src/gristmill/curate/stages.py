"""The kinds of this room and their configs."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gristmill.core import stage
from gristmill.core.records import Sample
from gristmill.core.stage import Means, Stage, StageConfig
from gristmill.curate.coverage import stages as coverage
from gristmill.curate.duplicates import stages as duplicates
from gristmill.curate.privacy import stages as privacy
from gristmill.curate.quality import stages as quality
from gristmill.curate.review import stages as review

Format = Literal[
    "openai", "sharegpt", "alpaca", "chatml", "text", "masked", "preference", "rating", "labelled", "packed"
]
FileType = Literal["jsonl", "parquet"]


class GroundConfig(StageConfig):
    """The grounding gate. Quotes are always checked."""

    numbers: bool = Field(
        True,
        description="Every number of the answer stands in the quote (of a text: in its source). Where the source is in "
        "another language, numbers in digits are all that is checked: the meaning is for `curate.judge`, by a rubric "
        "that sees the source, as `accurate` does",
    )
    names: bool = Field(True, description="Every name of the answer stands in the quote or the question")
    question: bool = Field(True, description="The question's own names and numbers stand in the source, too")
    share: float = Field(0.5, ge=0, le=1, description="Least share of the answer's words found in quote or question")


class Length(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    min_words: int = Field(default=1, ge=0)
    max_words: int = Field(default=2_000, ge=1)
    min_characters: int = Field(default=1, ge=0)
    max_characters: int = Field(default=20_000, ge=1)


class FilterConfig(StageConfig):
    """Format, length, language and leaks of the prompt's examples."""

    question_length: Length = Field(Length(min_words=2, max_words=100, min_characters=6, max_characters=1_000))
    answer_length: Length = Field(Length(max_words=500, max_characters=5_000))
    text_length: Length = Field(Length(min_words=3, min_characters=12))
    question_kinds: list[str] = Field(
        ["qa"], description="Kinds whose user message must be a question that stands alone"
    )
    question_mark: bool = Field(True, description="A question ends with a question mark")
    leaning: dict[str, list[str]] = Field(
        default_factory=dict,
        description="By language: phrases no question may hold, whatever stands after them. They replace the built-in "
        "ones, of which 'the author' and the like are let through where words specify them: 'the author of the anthem'",
    )
    markers: bool = Field(True, description="No role markers or special tokens that the source does not hold")
    code: bool = Field(True, description="No code fences or JSON remnants that the source does not hold")
    repetition: bool = Field(True, description="No loops that the source does not hold")
    model_talk: bool = Field(True, description="No 'As an AI ...' that the source does not hold")
    language: bool = Field(True, description="Written in the language it is marked with, where that can be told")
    answer_in_question: bool = Field(False, description="Drop a question that already says its answer")
    leak: bool = Field(
        True, description="No wording of the prompts' examples that neither the source nor their instructions hold"
    )
    leak_words: int = Field(5, ge=3, le=20, description="Length of the word sequences compared with the examples")


class DedupConfig(StageConfig):
    """Exact and near duplicates; the first in input order stays."""

    threshold: float = Field(
        0.8, gt=0, le=1, description="Jaccard similarity of word shingles from which two are the same"
    )
    shingle: int = Field(3, ge=1, le=10, description="Words in a shingle")
    near: bool = Field(True, description="Look for near-duplicates, not only for exact ones")


class SplitConfig(StageConfig):
    """Marks each sample train, test or validation."""

    by: Literal["question", "document", "fact", "sample"] = Field(
        "question",
        description="What is held out. sample: each for itself, by what it asks; in constant memory, for large tables",
    )
    test: float = Field(0.1, ge=0, lt=1, description="Share held out for the exam")
    validation: float = Field(0.0, ge=0, lt=1, description="Share held out for the validation loss")
    kinds: list[str] | None = Field(
        None, description="With by: question: kinds that may be held out; all when not given"
    )

    @model_validator(mode="after")
    def _leaves_training(self) -> Self:
        if self.test + self.validation >= 1:
            raise ValueError("test and validation together must leave something to train on")
        return self


class ConverseConfig(StageConfig):
    """Joins single questions and answers of the training split to conversations."""

    turns: int = Field(6, ge=2, le=64, description="Question and answer turns in one conversation")
    learn: Literal["all", "each"] = Field(
        "all",
        description="all: one conversation, every answer learned. each: one for each turn, which alone is learned in "
        "it, below its own system message; for answers from retrieved passages",
    )


class ExportConfig(StageConfig):
    """Writes the samples as files that other tools train on, with a dataset card."""

    name: Annotated[str, Means("export")] = Field(
        "dataset", pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", description="Folder below the run's exports/, its own"
    )
    where: dict[str, Annotated[list[str], Field(min_length=1)]] | None = Field(
        None,
        min_length=1,
        description="Write only samples with these marks: name -> values, one of which it has. All go on to the next "
        "stage; where none is so marked, no file is written and the stage says how many are not",
    )
    formats: list[Format] = Field(["openai"], min_length=1)
    tokenizer: str | None = Field(
        None,
        min_length=1,
        description="packed: a model whose tokenizer and chat template write the rows; a catalogue name, GGUF file or "
        "folder",
    )
    context: int = Field(2048, ge=8, description="packed: tokens of a row")
    files: list[FileType] = Field(["jsonl", "parquet"], min_length=1)
    title: str = Field("", description="Heading of the dataset card; the name when not given")
    license: str = Field("", description="Licence of the data as the card states it, for example cc-by-4.0")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if ("packed" in self.formats) != (self.tokenizer is not None):
            raise ValueError("formats: [packed] and `tokenizer` go together: rows of tokens are one tokenizer's")
        if "context" in self.model_fields_set and "packed" not in self.formats:
            raise ValueError("`context` is the length of packed rows; it goes with formats: [packed]")
        return self


def _step(module: str, config: type[StageConfig]) -> tuple[Stage, ...]:
    return (Stage(f"gristmill.curate.{module}:run", config, (Sample,), (Sample,)),)


def _pass(module: str, config: type[StageConfig], *, keep: bool = True) -> tuple[Stage, ...]:
    return (Stage(f"gristmill.curate.{module}:run", config, (Sample,), (Sample,), shape="pass", keep=keep),)


STAGES: stage.STAGES = {
    "curate.ground": _step("ground", GroundConfig),
    "curate.filter": _step("filter", FilterConfig),
    "curate.dedup": _pass("dedup", DedupConfig),
    "curate.split": _pass("split", SplitConfig),
    "curate.converse": _pass("converse", ConverseConfig),
    "curate.export": (
        Stage(
            code="gristmill.curate.export:run",
            config=ExportConfig,
            takes=(Sample,),
            gives=(Sample,),
            shape="pass",
            keep=False,
            inputs="gristmill.curate.packed:inputs",
        ),
    ),
    **quality.STAGES,
    **privacy.STAGES,
    **duplicates.STAGES,
    **coverage.STAGES,
    **review.STAGES,
}
