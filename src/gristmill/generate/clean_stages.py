"""The kind that cleans text, and its config."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gristmill.core import stage
from gristmill.core.records import Document, Draft
from gristmill.core.stage import Role, Stage, StageConfig

BlockKind = Literal["heading", "paragraph", "list", "table", "code"]


class CleanConfig(StageConfig):
    """Documents in, the same documents out with what scanning and conversion broke in their words mended."""

    kind: Literal["generate.clean"]
    model: Role = Field(description="The role that corrects")
    blocks: list[BlockKind] = Field(
        ["heading", "paragraph", "list"],
        min_length=1,
        description="Blocks to correct; others stay as they are",
    )
    longest: int = Field(1200, ge=100, description="Characters of a piece; a longer block is cut between sentences")
    changed: float = Field(0.3, gt=0, le=1, description="Largest share of a piece's words that a correction may change")


STAGES: stage.STAGES = {
    "generate.clean": (
        Stage(
            code="gristmill.generate.clean:pieces",
            config=CleanConfig,
            takes=(Document,),
            gives=(Draft,),
            part="pieces",
        ),
        Stage(
            code="gristmill.generate.clean:correct",
            config=CleanConfig,
            takes=(Draft,),
            gives=(Draft,),
            part="corrected",
            prompts=("clean",),
        ),
        Stage(
            code="gristmill.generate.clean:join",
            config=CleanConfig,
            takes=(Draft,),
            gives=(Document,),
            shape="pass",
        ),
    ),
}
