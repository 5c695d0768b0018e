"""The kinds of this family and their configs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gristmill.core import stage
from gristmill.core.records import Sample
from gristmill.core.stage import InputPath, Stage, StageConfig

Action = Literal["mask", "drop", "report"]
Personal = Literal["email", "phone", "iban", "card", "national_id", "ip", "birth_date"]
Secret = Literal["private_key", "token", "password", "url_password"]
Unsafe = Literal["profanity", "insult", "threat", "hate", "sexual", "self_harm"]


class PiiConfig(StageConfig):
    """Finds personal data by rules with check digits. Names and addresses of people are not found by rules."""

    action: Action = Field("mask", description="mask: [email] in its place; drop the sample; report: marks alone")
    find: list[Personal] = Field(
        ["email", "phone", "iban", "card", "national_id", "ip", "birth_date"], min_length=1, description="What is found"
    )
    allow: list[str] = Field(
        [], description="What may stand: whole values, as written, or `@domain` for its e-mail addresses"
    )


class SecretsConfig(StageConfig):
    """Finds keys, tokens and passwords by how they look; placeholders and public hashes are none."""

    action: Action = Field("mask", description="mask: [token] in its place; drop the sample; report: marks alone")
    find: list[Secret] = Field(
        ["private_key", "token", "password", "url_password"], min_length=1, description="What is found"
    )
    allow: list[str] = Field([], description="What may stand: whole values, as written")


class SafetyConfig(StageConfig):
    """Finds unsafe words and phrases, disguised ones too, as whole words: Scunthorpe is a town."""

    action: Literal["drop", "report"] = Field("drop", description="Drop the sample, or only mark what was found")
    find: list[Unsafe] = Field(
        ["profanity", "insult", "threat", "hate", "sexual", "self_harm"], description="Which of the own lists are used"
    )
    lists: dict[str, InputPath] = Field(
        default_factory=dict, description="Own lists by category: text files, one word or phrase a line (`word~`: any "
        "ending; `one|other`; `…`: up to three words between)",
    )  # fmt: skip
    allow: list[str] = Field([], description="Words that may stand, though a list has them")


def _step(module: str, config: type[StageConfig], inputs: str = "") -> tuple[Stage, ...]:
    code = f"gristmill.curate.privacy.{module}"
    return (Stage(f"{code}:run", config, (Sample,), (Sample,), inputs=inputs and f"{code}:{inputs}"),)


STAGES: stage.STAGES = {
    "curate.pii": _step("pii", PiiConfig),
    "curate.secrets": _step("secrets", SecretsConfig),
    "curate.safety": _step("safety", SafetyConfig, inputs="inputs"),
}
