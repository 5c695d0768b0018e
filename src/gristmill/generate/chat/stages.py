"""The kinds of this family and their configs."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gristmill.core import stage
from gristmill.core.records import Chunk, Draft, Record, Sample
from gristmill.core.stage import Stage, StageConfig
from gristmill.generate.config import WriterConfig


class RagConfig(WriterConfig):
    """Questions with short answers in, the same with retrieved passages before them out: the reply cites the passage
    that tells, or says that none does and answers from memory."""

    kind: Literal["generate.rag"]
    passages: int = Field(3, ge=1, le=20, description="Most passages of a retrieval; each has between one and so many")
    failed: float = Field(0.5, ge=0, le=1, description="Share of retrievals in which no passage holds the answer")
    instruction: str | None = Field(
        None,
        min_length=1,
        description="What stands above the passages; a sentence in the sample's language if not given (English, "
        "German, French, Spanish; English for all others)",
    )


class CorrectionConfig(WriterConfig):
    """Questions with short answers in; out, for each, a talk in which a wrong answer (not learned) is doubted and put
    right, and the pair of right and wrong answer as a preference."""

    kind: Literal["generate.correction"]


class ThoughtsConfig(WriterConfig):
    """Chats in, the same chats out, with the thoughts that lead to each learned answer before it. Thoughts that are
    there already are written anew."""

    kind: Literal["generate.thoughts"]
    history: int = Field(12_000, ge=200, description="Characters of the talk before that are shown, from its end")
    steps: int = Field(6, ge=2, le=20, description="structured: most steps of a thought")


class WeaveConfig(WriterConfig):
    """Questions with short answers in, conversations out: those of one place, asked in a row by someone who listens."""

    kind: Literal["generate.weave"]
    turns: int = Field(4, ge=2, le=16, description="Most questions of a conversation")
    tones: list[str] = Field(
        ["friendly and brief"],
        min_length=1,
        description="How the two talk; one of these for each conversation, by seed",
    )


class HarvestConfig(StageConfig):
    """Records in; out, the prompts and answers that they and all before them were made from, and by which they were
    judged, as chats that teach a smaller model to write them. Only of what came this far and is not held out."""

    kind: Literal["generate.harvest"]
    of: list[str] | None = Field(
        None, min_length=1, description="Stages whose answers are taken; all that the records come from if not given"
    )
    examples: Literal["kept", "dropped", "some"] = Field(
        "dropped",
        description="The prompts' worked examples, never learned. some: none for half of the chats, else some",
    )
    least: int = Field(1, ge=1, description="Records of an answer that must have come through for it to be taken")
    verdicts: bool = Field(
        True,
        description="Judges' votes too, from the records' mark `judge`, as the step judge_<check>; not those outvoted, "
        "nor of a check that always chose the same",
    )
    brief: dict[str, Annotated[str, Field(min_length=1)]] = Field(
        default_factory=dict,
        description="Step -> a short system message, in place of the prompt's in half of its chats, by seed",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.of is not None and (left := self.brief.keys() - set(self.of)):
            raise ValueError(f"`of` leaves out {', '.join(sorted(left))}, which `brief` names")
        return self


STAGES: stage.STAGES = {
    "generate.rag": (
        Stage(
            code="gristmill.generate.chat.rag:retrieve",
            config=RagConfig,
            takes=(Sample, Chunk),
            gives=(Draft,),
            shape="pass",
            part="retrieve",
            modules=("gristmill.retrieve.bm25",),
        ),
        Stage(
            code="gristmill.generate.chat.rag:run",
            config=RagConfig,
            takes=(Draft,),
            gives=(Sample,),
            prompts=("chat_rag_found", "chat_rag_missed", "chat_reply_line", "chat_missed_line"),
        ),
    ),
    "generate.correction": (
        Stage(
            code="gristmill.generate.chat.correction:run",
            config=CorrectionConfig,
            takes=(Sample,),
            gives=(Sample,),
            prompts=("chat_correction", "chat_reply_line", "chat_doubt_line", "chat_concede_line"),
        ),
    ),
    "generate.thoughts": (
        Stage(
            code="gristmill.generate.chat.thoughts:run",
            config=ThoughtsConfig,
            takes=(Sample,),
            gives=(Sample,),
            prompts=("chat_thoughts", "chat_thoughts_line"),
        ),
    ),
    "generate.weave": (
        Stage(
            code="gristmill.generate.chat.weave:gather",
            config=WeaveConfig,
            takes=(Sample,),
            gives=(Draft,),
            shape="pass",
            part="gather",
        ),
        Stage(
            code="gristmill.generate.chat.weave:run",
            config=WeaveConfig,
            takes=(Draft,),
            gives=(Sample,),
            prompts=("chat_weave", "chat_weave_user_line", "chat_weave_reply_line"),
        ),
    ),
    "generate.harvest": (
        Stage(
            code="gristmill.generate.chat.harvest:run",
            config=HarvestConfig,
            takes=(Record,),
            gives=(Sample,),
            shape="pass",
        ),
    ),
}
