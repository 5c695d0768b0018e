"""The kinds of this family and their configs."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gristmill.core import stage
from gristmill.core.records import Sample
from gristmill.core.stage import InputPath, Stage, StageConfig

By = Literal["kind", "form", "language", "stage", "model", "mark"]


class ReviewConfig(StageConfig):
    """What people decided about samples, from a file that `gristmill export --format review` wrote and they filled in.

    Marks each decided sample `review`: approve, reject or edit.
    """

    decisions: InputPath = Field(description="The filled-in file, jsonl or csv")
    undecided: Literal["keep", "drop"] = Field("keep", description="What becomes of samples that nobody decided about")
    drop: bool = Field(True, description="false: mark only; nothing is dropped, and no edit is made")


class MixConfig(StageConfig):
    """So many tokens of each group of training samples, drawn by the recipe's seed; held-out samples go through."""

    by: By = Field("kind", description="What makes a group; stage and model: those that wrote it")
    mark: str | None = Field(None, min_length=1, description="With by: mark: which one")
    shares: Annotated[dict[str, Annotated[float, Field(gt=0)]], Field(min_length=1)] | None = Field(
        None, description="Group -> its part of all tokens, in any unit; equal parts of all there are when not given"
    )
    tokens: int | None = Field(
        None, ge=1, description="Tokens in all; as many as the scarcest group allows when not given"
    )
    tokenizer: str = Field(
        "smollm2-135m-instruct", description="Whose tokens: catalogue or hub name, GGUF path, model or tokenizer folder"
    )

    @model_validator(mode="after")
    def _names_its_mark(self) -> Self:
        if (self.by == "mark") != (self.mark is not None):
            raise ValueError("`mark` and by: mark go together")
        return self


def _pass(module: str, config: type[StageConfig]) -> tuple[Stage, ...]:
    code = f"gristmill.curate.review.{module}"
    return (Stage(f"{code}:run", config, (Sample,), (Sample,), shape="pass", inputs=f"{code}:inputs"),)


STAGES: stage.STAGES = {"curate.review": _pass("decide", ReviewConfig), "curate.mix": _pass("mix", MixConfig)}
