"""The kinds of this family and their configs."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from gristmill.core import stage
from gristmill.core.records import Draft, Sample
from gristmill.core.stage import Stage, StageConfig
from gristmill.generate.languages import WrittenIn
from gristmill.generate.tables.columns import AnyColumn, in_order, names_in


class TableConfig(StageConfig):
    """Rows from nothing: each column is drawn by seed, after the columns it depends on. No model is asked."""

    kind: Literal["generate.table"]
    rows: int = Field(ge=1, le=1_000_000, description="How many, all of them different")
    columns: dict[str, AnyColumn] = Field(
        min_length=1,
        description="name -> a list of choices, a text with {{name}} for other columns, or one of {choice, weights, "
        "balanced}, {range, decimals, after}, {date}, {serial}, {persona}, {given, cases, otherwise}",
    )

    @model_validator(mode="after")
    def _can_be_drawn(self) -> Self:
        in_order(self.columns)
        return self


class SampleConfig(StageConfig):
    """Rows in, samples out: which columns are the text, the label, what is asked and what is answered."""

    kind: Literal["generate.sample"]
    form: Literal["text", "labelled", "chat"] = Field(description="What a row becomes")
    text: str | None = Field(None, min_length=1, description="text, labelled: the text, with {{name}} for columns")
    label: str | None = Field(None, min_length=1, description="labelled: the column that holds the label")
    span: str | None = Field(None, min_length=1, description="labelled: the column whose words the label is about")
    system: str | None = Field(None, min_length=1, description="chat: the system message, with {{name}} for columns")
    user: str | None = Field(None, min_length=1, description="chat: what is asked, with {{name}} for columns")
    assistant: str | None = Field(None, min_length=1, description="chat: what is answered, with {{name}} for columns")
    turns: str | None = Field(
        None, min_length=1, description="chat: the column with a list of what user and assistant say in turn"
    )
    sample_kind: str | None = Field(None, min_length=1, description="`kind` of the samples; the stage's name")
    language: WrittenIn = Field("en", description="Of rows that have no column `language`: ISO 639 or an English name")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        wanted = {
            "text": {"text"},
            "labelled": {"text", "label"} | self.model_fields_set & {"span"},
            "chat": ({"turns"} if self.turns else {"user", "assistant"}) | self.model_fields_set & {"system"},
        }[self.form]
        parts = {"text", "label", "span", "system", "user", "assistant", "turns"}
        if (said := {name for name in parts if getattr(self, name) is not None}) != wanted:
            raise ValueError(f"form: {self.form} takes {', '.join(sorted(wanted))}; said are {', '.join(sorted(said))}")
        for text in (self.text, self.system, self.user, self.assistant):
            names_in(text or "")
        return self


STAGES: stage.STAGES = {
    "generate.table": (
        Stage(
            "gristmill.generate.tables.draw:run",
            TableConfig,
            takes=(),
            gives=(Draft,),
            shape="pass",
            fields="gristmill.generate.tables.draw:fields",
        ),
    ),
    "generate.sample": (
        Stage(
            "gristmill.generate.tables.samples:run",
            SampleConfig,
            takes=(Draft,),
            gives=(Sample,),
            fields="gristmill.generate.tables.samples:fields",
        ),
    ),
}
