"""The kinds of this family and their configs."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from gristmill.core import stage
from gristmill.core.prompt import Prompt
from gristmill.core.records import Chunk, Draft, Sample
from gristmill.core.stage import Role, Stage, StageConfig
from gristmill.generate.config import LanguageConfig, WriterConfig

Way = Literal["open", "vague", "false_premise", "unanswerable", "followup", "comparison"]
WAYS: tuple[Way, ...] = ("open", "vague", "false_premise", "unanswerable", "followup", "comparison")
PLACES = frozenset({"title", "path", "language"})
"""What a system prompt may name besides its own `context`."""


class RecallConfig(WriterConfig):
    """Chunks in, questions out whose answers bring several passages together, from memory.

    Each question begins from a sentence of one chunk and may use the passages nearest to it in the whole set. A
    question that the documents cannot answer stays only if no passage that is found for it does.
    """

    kind: Literal["generate.recall"]
    ways: list[Way] = Field(
        ["open"],
        min_length=1,
        description="open: at length. vague: without naming things. false_premise: takes something wrong for granted. "
        "unanswerable: the documents do not say. followup: a talk that goes on. comparison: of two passages",
    )
    per_chunk: int = Field(1, ge=1, le=64, description="Questions (or talks) of a chunk in each way")
    sources: int = Field(3, ge=1, le=12, description="Passages at hand for a question: the chunk and its nearest")
    anchors: int | None = Field(
        None, ge=1, description="Chunks that are asked about, drawn by seed; all if not given. Neighbours come from all"
    )
    turns: int = Field(3, ge=2, le=12, description="Questions of a followup")
    thoughts: bool = Field(False, description="Before each answer: the passages it recalls, with where they stand")
    cite: bool = Field(False, description="After each answer: the documents it rests on")
    search: int = Field(4, ge=1, le=50, description="Passages that are read to prove a question unanswerable")
    checker: Role | None = Field(
        None,
        description="Who says whether a passage answers an unanswerable question, and whether its reply admits not to "
        "know; the writer if not given",
    )
    embedding: Role | None = Field(
        None, description="A model whose embeddings find the neighbours; local ones (static, offline) if not given"
    )
    max_tokens: int = Field(700, ge=80, le=16_000, description="structured: longest answer of the model")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(set(self.ways)) < len(self.ways):
            raise ValueError("a way is named twice in `ways`")
        if "comparison" in self.ways and self.sources < 2:
            raise ValueError("a comparison needs two sources at least")
        if "unanswerable" not in self.ways and self.model_fields_set & {"search", "checker"}:
            raise ValueError("search and checker belong to the way `unanswerable`")
        if "followup" not in self.ways and "turns" in self.model_fields_set:
            raise ValueError("turns belongs to the way `followup`")
        if self.ask == "line" and "max_tokens" in self.model_fields_set:
            raise ValueError("max_tokens belongs to ask: structured")
        return self


class RepairConfig(LanguageConfig):
    """Questions and answers in; out, those that stand alone, and the others reworded so that they do."""

    kind: Literal["generate.repair"]
    leaning_only: bool = Field(
        False, description="Ask only about samples in which code finds words on a text that is not there"
    )


class SystemConfig(StageConfig):
    """Chats in, the same with one of several system messages, or with none. No model is asked."""

    kind: Literal["generate.system"]
    messages: list[str] = Field(
        min_length=1, description="System messages; {{name}} stands for `context`, or title, path, language"
    )
    context: dict[str, str] = Field(default_factory=dict, description="What the messages may name: name -> text")
    drop: float = Field(0.2, ge=0, le=1, description="Share of chats that get none")
    drop_thoughts: float = Field(0.0, ge=0, le=1, description="Share of chats with thoughts that lose them")
    at_once: str | None = Field(
        None, min_length=1, description="With drop_thoughts: the instruction that such chats get instead"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not all(text.strip() for text in self.messages):
            raise ValueError("a message is empty: `drop` is the share of chats without one")
        for text in (*self.messages, self.at_once or ""):
            if unknown := Prompt("system", text).names - self.context.keys() - PLACES:
                raise ValueError(f"unknown names: {', '.join(sorted(unknown))}; give them in `context`")
        if self.drop_thoughts and self.at_once is None:
            raise ValueError("drop_thoughts needs `at_once`: what tells the model that it is not to think")
        if not self.drop_thoughts and self.at_once is not None:
            raise ValueError("at_once belongs to drop_thoughts")
        return self


_RETRIEVE = ("gristmill.retrieve.index",)
_LIBRARIES = ("wordllama",)

STAGES: stage.STAGES = {
    "generate.recall": (
        Stage(
            code="gristmill.generate.recall.neighbours:vectors",
            config=RecallConfig,
            takes=(Chunk,),
            gives=(Chunk,),
            part="vectors",
            modules=_RETRIEVE,
        ),
        Stage(
            code="gristmill.generate.recall.neighbours:run",
            config=RecallConfig,
            takes=(Chunk,),
            gives=(Chunk, Draft),
            shape="pass",
            part="neighbours",
            libraries=_LIBRARIES,
            modules=_RETRIEVE,
        ),
        Stage(
            code="gristmill.generate.recall.write:run",
            config=RecallConfig,
            takes=(Chunk, Draft),
            gives=(Chunk, Draft, Sample),
            part="write",
            modules=_RETRIEVE,
            prompts=(
                *(f"recall_{way}" for way in WAYS),
                *(f"recall_line_{way}" for way in WAYS),
                *(f"recall_line_{part}" for part in ("answer", "answer_false_premise", "answer_unanswerable", "offer")),
            ),
        ),
        Stage(
            code="gristmill.generate.recall.proof:search",
            config=RecallConfig,
            takes=(Chunk, Draft, Sample),
            gives=(Draft, Sample),
            shape="pass",
            part="search",
            libraries=_LIBRARIES,
            modules=_RETRIEVE,
        ),
        Stage(
            code="gristmill.generate.recall.proof:run",
            config=RecallConfig,
            takes=(Draft, Sample),
            gives=(Sample,),
            prompts=("recall_proof", "recall_reply"),
        ),
    ),
    "generate.repair": (
        Stage("gristmill.generate.recall.repair:run", RepairConfig, (Sample,), (Sample,), prompts=("recall_repair",)),
    ),
    "generate.system": (Stage("gristmill.generate.recall.system:run", SystemConfig, (Sample,), (Sample,)),),
}
