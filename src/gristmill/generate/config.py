"""What every kind that asks a model to write has in common. Its families' `stages.py` build on it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gristmill.core.stage import Role, StageConfig
from gristmill.generate.languages import WrittenIn

Ask = Literal["structured", "line"]


class LanguageConfig(StageConfig):
    """What every kind that asks a model to write has in common."""

    model: Role = Field(description="The role that writes")
    language: WrittenIn | None = Field(
        None, description="Language to write in: ISO 639 or an English name; the source's if not given"
    )
    temperature: float = Field(0.0, ge=0, le=2, description="Sampling temperature of the first wording")


class WriterConfig(LanguageConfig):
    """The same for kinds that suit weak models too."""

    ask: Ask = Field(
        "structured",
        description="structured: one JSON answer a record. line: one plain line a call, the structure made by code; "
        "for models of about 1B parameters and below",
    )
