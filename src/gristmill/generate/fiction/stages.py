"""The kinds of this family and their configs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gristmill.core import stage
from gristmill.core.records import Draft, Sample
from gristmill.core.stage import Stage, StageConfig
from gristmill.generate.config import WriterConfig

TRAITS = ["age", "occupation", "personality", "appearance", "backstory", "likes", "dislikes"]
"""Columns of a scene card that belong to its character, whatever the scene."""


class BibleConfig(StageConfig):
    """Scene cards in, the same cards out, in which a character that returns keeps the traits it had first."""

    kind: Literal["generate.bible"]
    name: str = Field("name", min_length=1, description="Column that holds the character's name")
    traits: list[str] = Field(TRAITS, min_length=1, description="Columns that stay the same for a character")
    within: str | None = Field(
        "path", description="Column that divides worlds: names are compared within the same value. null: everywhere"
    )


class StoryConfig(WriterConfig):
    """Scene cards in, conversations with their characters out.

    ask: structured writes a whole conversation in one answer; line writes one message a call, for small models.
    """

    kind: Literal["generate.story"]
    name: str = Field("name", min_length=1, description="Column that holds the character's name")
    card: list[str] = Field(
        ["name", *TRAITS, "scene"], min_length=1, description="Columns of the card: what the system message says"
    )
    exchanges: int = Field(5, ge=1, le=40, description="Messages of the user, each with its reply")
    least: int = Field(2, ge=1, description="Exchanges that must be left once the conversation is repaired")
    words: int = Field(160, ge=10, le=2000, description="Longest message; a longer one ends the conversation before it")
    source: bool = Field(False, description="Show the writer the chunk that the card was made from, for its voice")


STAGES: stage.STAGES = {
    "generate.bible": (
        Stage(
            code="gristmill.generate.fiction.bible:run",
            config=BibleConfig,
            takes=(Draft,),
            gives=(Draft,),
            shape="pass",
            fields="gristmill.generate.fiction.bible:fields",
        ),
    ),
    "generate.story": (
        Stage(
            code="gristmill.generate.fiction.story:run",
            config=StoryConfig,
            takes=(Draft,),
            gives=(Sample,),
            prompts=("fiction_story", "fiction_line"),
            fields="gristmill.generate.fiction.story:fields",
        ),
    ),
}
