"""The kinds of this family and their configs."""

from __future__ import annotations

from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from gristmill.core import stage
from gristmill.core.records import Draft, Sample
from gristmill.core.stage import Role, Stage, StageConfig
from gristmill.generate.languages import WrittenIn

EvolvingWay = Literal["constraints", "deepen", "concrete", "steps", "breadth"]


class RowWriterConfig(StageConfig):
    """What the kinds of this family have in common that let a model write from rows."""

    model: Role = Field(description="The role that writes")
    language: WrittenIn | None = Field(
        None, description="Language to write in: ISO 639 or an English name; the row's `language`, else English"
    )
    temperature: float = Field(0.8, ge=0, le=2, description="Sampling temperature")


class SelfInstructConfig(RowWriterConfig):
    """Rows with an instruction in, new instructions out, unlike those that were shown and each other."""

    kind: Literal["generate.self_instruct"]
    rows: int = Field(100, ge=1, description="How many to ask for; those that are not new are dropped")
    shown: int = Field(4, ge=2, le=20, description="Instructions shown to the writer each time, drawn by seed")
    column: str = Field("instruction", min_length=1, description="Column that holds the instruction")
    likeness: float = Field(
        0.7,
        gt=0,
        le=1,
        description="ROUGE-L with one shown or made before, or share of one shown that it holds, from which one is "
        "not new",
    )


class EvolveConfig(RowWriterConfig):
    """Rows with an instruction in, harder or rarer instructions out, one row a round."""

    kind: Literal["generate.evolve"]
    column: str = Field("instruction", min_length=1, description="Column that holds the instruction")
    ways: list[EvolvingWay] = Field(
        ["constraints", "deepen", "concrete", "steps", "breadth"],
        min_length=1,
        description="How an instruction evolves; each round takes one of them, by seed",
    )
    rounds: int = Field(2, ge=1, le=6, description="Times each instruction evolves, each from the one before")
    judge: Role | None = Field(None, description="The role that says whether the new one asks for something else")


class MagpieConfig(StageConfig):
    """Nothing in, instructions out: an instruct model goes on where its template opens a user's turn."""

    kind: Literal["generate.magpie"]
    model: Role = Field(description="The role that writes both sides; an instruct model")
    rows: int = Field(100, ge=1, description="How many to draw; what is no instruction is dropped")
    system: list[str] = Field([], description="System messages to draw under, in turn; the template's own when empty")
    opening: str | None = Field(
        None,
        min_length=1,
        description="Of a model behind an address: the text with which its template opens a user's turn",
    )
    language: WrittenIn | None = Field(
        None,
        description="Language of the instructions, ISO 639 or an English name: said at the end of each system "
        "message, and in the rows' column `language`. An `opening` has to say it itself",
    )
    words: int = Field(200, ge=5, description="Longest instruction")
    temperature: float = Field(1.0, gt=0, le=2, description="Sampling temperature")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.opening is not None and self.system:
            raise ValueError("an `opening` is sent as it stands; write the system message into it")
        return self


class PairsConfig(StageConfig):
    """Judged chats in, preference pairs out: of several answers to one prompt the best and the worst."""

    kind: Literal["generate.pairs"]
    mark: str = Field(min_length=1, description="Name of the mark that says how good an answer is")
    order: list[str] | None = Field(
        None, min_length=2, description="Where the mark is a choice: its choices, the worst first; else it is a number"
    )
    margin: float = Field(
        1.0, gt=0, description="Least difference of the two; of choices in steps of `order`, else in the mark's unit"
    )


class ToolCallsConfig(RowWriterConfig):
    """Tools in, one row each, conversations that call them out.

    A row has name, description, `parameters` and `returns`: parts by name, as `fields` of generate.ask.
    """

    kind: Literal["generate.tool_calls"]
    per_tool: int = Field(4, ge=1, le=1000, description="Conversations for each tool")
    offered: int = Field(3, ge=1, le=64, description="Tools that a conversation offers, the right one among them")
    missing: float = Field(0.2, ge=0, lt=1, description="Share in which the right tool is not offered")


_TERMS = ("gristmill.retrieve.terms",)


def _step(code: str, config: type[StageConfig], gives: type, *prompts: str, part: str = "") -> Stage:
    where = f"gristmill.generate.instruct.{code}"
    return Stage(code=where, config=config, takes=(Draft,), gives=(gives,), part=part, prompts=prompts)


def _pass(
    code: str,
    config: type[StageConfig],
    takes: type,
    gives: type,
    *,
    part: str = "",
    fields: str = "",
    modules: tuple[str, ...] = (),
) -> Stage:
    where = f"gristmill.generate.instruct.{code}"
    names = fields and f"gristmill.generate.instruct.{fields}"
    return Stage(
        code=where,
        config=config,
        takes=(takes,),
        gives=(gives,),
        shape="pass",
        part=part,
        fields=names,
        modules=modules,
    )


STAGES: stage.STAGES = {
    "generate.self_instruct": (
        _pass("novel:draw", SelfInstructConfig, Draft, Draft, part="drawn", fields="novel:fields"),
        _step("novel:write", SelfInstructConfig, Draft, "instruct_new", part="written"),
        _pass("novel:run", SelfInstructConfig, Draft, Draft, fields="novel:given", modules=_TERMS),
    ),
    "generate.evolve": (
        Stage(
            code="gristmill.generate.instruct.evolve:run",
            config=EvolveConfig,
            takes=(Draft,),
            gives=(Draft,),
            prompts=(*(f"instruct_{way}" for way in get_args(EvolvingWay)), "instruct_judge"),
            fields="gristmill.generate.instruct.evolve:fields",
            modules=_TERMS,
        ),
    ),
    "generate.magpie": (
        Stage(
            code="gristmill.generate.instruct.magpie:openings",
            config=MagpieConfig,
            takes=(),
            gives=(Draft,),
            shape="pass",
            part="openings",
        ),
        Stage(
            code="gristmill.generate.instruct.magpie:write",
            config=MagpieConfig,
            takes=(Draft,),
            gives=(Draft,),
            fields="gristmill.generate.instruct.magpie:fields",
        ),
    ),
    "generate.pairs": (_pass("pairs:run", PairsConfig, Sample, Sample),),
    "generate.tool_calls": (
        _pass("tools:draw", ToolCallsConfig, Draft, Draft, part="drawn", fields="tools:fields"),
        _step(
            "calls:write",
            ToolCallsConfig,
            Sample,
            *(f"instruct_tool_{name}" for name in ("values", "request", "result", "answer", "none")),
        ),
    ),
}
