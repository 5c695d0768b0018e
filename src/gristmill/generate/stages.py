"""The kinds of this room and what a recipe may say about them. Import-light: `check` and `--help` load it."""

from __future__ import annotations

from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from gristmill.core.records import Chunk, Document, Draft, Fact, Record, Sample
from gristmill.core.stage import STAGES as StageTable
from gristmill.core.stage import InputPath, Role, Stage, StageConfig
from gristmill.generate import clean_stages as clean
from gristmill.generate.answer_fields import AnswerField
from gristmill.generate.answer_rules import Rule
from gristmill.generate.augment import stages as augment
from gristmill.generate.chat import stages as chat
from gristmill.generate.config import Ask, WriterConfig
from gristmill.generate.fiction import stages as fiction
from gristmill.generate.instruct import stages as instruct
from gristmill.generate.label import stages as label
from gristmill.generate.languages import WrittenIn
from gristmill.generate.pretrain import stages as pretrain
from gristmill.generate.recall import stages as recall
from gristmill.generate.tables import stages as tables

QuestionWay = Literal["direct", "reversed", "fill", "scenario", "request"]
Style = Literal[
    "reordered",
    "reversed",
    "list",
    "dialogue",
    "essay",
    "question_answer",
    "logic",
    "causes",
    "thoughts",
    "xml",
    "json",
]

WAYS: dict[Ask, tuple[QuestionWay, ...]] = {
    "structured": ("direct", "reversed", "fill", "scenario"),
    "line": ("direct", "request", "scenario"),
}


class FactsConfig(WriterConfig):
    """Chunks in, facts out: statements that stand alone, each with the sentence it was read from."""

    kind: Literal["generate.facts"]
    per_chunk: int = Field(8, ge=1, le=64, description="Most facts of a chunk")
    inferred: bool = Field(
        False,
        description="Facts that follow from several sentences together, instead of those that one states; each is "
        "marked `inferred`, and its quote reaches from the first of its sentences to the last",
    )


class QaConfig(WriterConfig):
    """Chunks or facts in, questions with short answers out, each resting on a quoted sentence."""

    kind: Literal["generate.qa"]
    per_chunk: int = Field(6, ge=1, le=64, description="Most questions of a record, before `wordings`, over all ways")
    ways: list[QuestionWay] = Field(
        ["direct"],
        min_length=1,
        description="How to ask. structured: direct, reversed, fill, scenario. line: direct, request, scenario",
    )
    wordings: int = Field(1, ge=1, le=8, description="line: questions for the same answer, in each of the ways")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        unknown = [way for way in self.ways if way not in WAYS[self.ask]]
        if unknown:
            raise ValueError(f"ask: {self.ask} knows the ways {', '.join(WAYS[self.ask])}; not {', '.join(unknown)}")
        if len(set(self.ways)) < len(self.ways):
            raise ValueError("a way is named twice in `ways`")
        if self.ask == "structured" and self.wordings > 1:
            raise ValueError("wordings belongs to ask: line; for ask: structured name more ways or raise per_chunk")
        return self


class RephraseConfig(WriterConfig):
    """Chunks or facts in, the same facts in other orders, directions and forms out."""

    kind: Literal["generate.rephrase"]
    styles: list[Style] = Field(
        ["reordered", "reversed"], min_length=1, description="structured: one rewriting of the record in each style"
    )
    wordings: int = Field(1, ge=1, le=8, description="Rewritings in each style (structured) or of each sentence (line)")
    draw: int | None = Field(
        None,
        ge=1,
        le=16,
        description="structured: so many of the styles for each record, drawn by seed; all if not given",
    )
    about: str | None = Field(
        None, min_length=1, max_length=500, description="What the documents are about; told to the writer as the topic"
    )
    context: bool = Field(False, description="Begin each text with a line that says where its source stands")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(set(self.styles)) < len(self.styles):
            raise ValueError("a style is named twice in `styles`")
        if self.draw is not None and (self.ask == "line" or self.draw > len(self.styles)):
            raise ValueError("draw belongs to ask: structured, and is at most the number of styles")
        if self.ask == "line" and "styles" in self.model_fields_set:
            raise ValueError("styles belongs to ask: structured; line rewords each sentence")
        return self


class ClozeConfig(StageConfig):
    """Chunks or facts in, sentences with a blank out. Made by code: no model, no call."""

    kind: Literal["generate.cloze"]
    forms: list[Literal["blank", "question"]] = Field(
        ["blank", "question"], min_length=1, description="question: real questions, where English grammar is certain"
    )
    per_sentence: int = Field(2, ge=1, le=16, description="Most answers asked for in a sentence")
    wordings: int = Field(1, ge=1, le=4, description="Wordings of each blank")


class PassageConfig(StageConfig):
    """Chunks in, their own text out, to be read as it stands; facts in, each of their statements out."""

    kind: Literal["generate.passage"]
    styles: list[Literal["chunk", "sentences"]] = Field(
        ["chunk"], min_length=1, description="Of a chunk: its whole text, or each sentence by itself, or both"
    )
    context: bool = Field(True, description="Begin with a line that says where the text stands")


class AskConfig(StageConfig):
    """One prompt for each record, filled from its fields: `{{name}}` stands for a column of a row, a chunk's `text`…"""

    kind: Literal["generate.ask"]
    model: Role = Field(description="The role that answers")
    prompt: str | None = Field(None, min_length=1, description="What is asked: text with {{name}} for fields")
    prompt_file: InputPath | None = Field(
        None, description="The same in a file: plain text, or @system, @user and @assistant on lines of their own"
    )
    system: str | None = Field(None, min_length=1, description="With `prompt`: the system message; may name fields too")
    max_tokens: int = Field(1024, ge=1, description="Longest answer, thinking included")
    temperature: float = Field(0.0, ge=0, le=2, description="Sampling temperature")
    samples: int = Field(1, ge=1, le=1000, description="Answers for each record; more than one needs a temperature")
    fields: dict[str, AnswerField] | None = Field(
        None,
        min_length=1,
        description="The answer in parts: name -> string, integer, number, boolean, a list of choices, or "
        "{type, enum, minimum, maximum, maxLength, items, minItems, maxItems, format, description} as JSON Schema has "
        "them, and minWords and maxWords",
    )
    gives: Literal["row", "sample"] = Field(
        "row", description="row: the record's fields and the answer's. sample: a chat of what was asked and answered"
    )
    column: str | None = Field(
        None, min_length=1, description="Without `fields`: the answer's name in the row; `answer`"
    )
    language: WrittenIn | None = Field(
        None,
        description="{{language}} in the prompt, and of the row from then on: ISO 639 or an English name; the "
        "record's own, else English",
    )
    min_words: int | None = Field(None, ge=1, description="Without `fields`: fewest words of an answer")
    max_words: int | None = Field(None, ge=1, description="Without `fields`: most words of an answer")
    mentions: list[str] = Field(
        default_factory=list, description="Fields of the record whose words must stand in the answer, as they are"
    )
    without: list[str] = Field(
        default_factory=list, description="What no answer may hold, letter case aside: placeholders, stock phrases"
    )
    rules: list[Rule] = Field(
        default_factory=list,
        description="What must hold between parts of the answer and fields of the record: paid <= price",
    )

    def given(self, kinds: tuple[type[Record], ...]) -> tuple[type[Record], ...]:
        return tuple(kind for kind in kinds if issubclass(kind, Draft if self.gives == "row" else Sample))

    @property
    def added(self) -> frozenset[str]:
        """What an answer adds to a row."""
        return frozenset(self.fields or [self.column or "answer"])

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.prompt is None) == (self.prompt_file is None):
            raise ValueError("give either `prompt` or `prompt_file`")
        if self.prompt is None and self.system is not None:
            raise ValueError("a prompt file holds its own @system message; `system` goes with `prompt`")
        if self.samples > 1 and not self.temperature:
            raise ValueError("several samples at temperature 0 are one sample; set `temperature`")
        if self.column is not None and (self.fields is not None or self.gives == "sample"):
            raise ValueError("`column` names a plain answer in a row; with `fields` or samples it does nothing")
        if self.fields is not None and (self.min_words or self.max_words):
            raise ValueError("with `fields`, say minWords and maxWords of a part")
        if self.fields is None and self.rules:
            raise ValueError("`rules` compares parts of an answer; name its parts in `fields`")
        if (self.min_words or 0) > (self.max_words or 1_000_000):
            raise ValueError("min_words is more than max_words")
        return self


STAGES: StageTable = {
    "generate.ask": (
        Stage(
            code="gristmill.generate.ask:run",
            config=AskConfig,
            takes=(Draft, Document, Chunk, Fact, Sample),
            gives=(Draft, Sample),
            prompt="gristmill.generate.ask:prompt",
            fields="gristmill.generate.ask:fields",
        ),
    ),
    "generate.facts": (
        Stage(
            code="gristmill.generate.facts:run",
            config=FactsConfig,
            takes=(Chunk,),
            gives=(Fact,),
            prompts=("facts", "facts_line", "facts_inferred", "facts_inferred_line"),
        ),
    ),
    "generate.qa": (
        Stage(
            code="gristmill.generate.qa:run",
            config=QaConfig,
            takes=(Chunk, Fact),
            gives=(Sample,),
            prompts=(*(f"qa_{way}" for way in WAYS["structured"]), *(f"line_{way}" for way in WAYS["line"])),
        ),
    ),
    "generate.rephrase": (
        Stage(
            code="gristmill.generate.rephrase:run",
            config=RephraseConfig,
            takes=(Chunk, Fact),
            gives=(Sample,),
            prompts=(*(f"rephrase_{style}" for style in get_args(Style)), "rephrase_line"),
        ),
    ),
    "generate.cloze": (
        Stage(code="gristmill.generate.cloze:run", config=ClozeConfig, takes=(Chunk, Fact), gives=(Sample,)),
    ),
    "generate.passage": (
        Stage(code="gristmill.generate.passage:run", config=PassageConfig, takes=(Chunk, Fact), gives=(Sample,)),
    ),
    **clean.STAGES,
    **pretrain.STAGES,
    **recall.STAGES,
    **chat.STAGES,
    **fiction.STAGES,
    **instruct.STAGES,
    **tables.STAGES,
    **augment.STAGES,
    **label.STAGES,
}
