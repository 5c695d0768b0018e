"""Chunks are judged before anything is paid for them: what only lists, warns or asks has nothing to teach."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from tests.curate.conftest import make_chunk
from tests.curate.test_judge import Judged, Script

from gristmill.core.errors import Reject
from gristmill.curate.quality import judge
from gristmill.curate.quality.judge_config import ChunkJudgeConfig

CHUNK = make_chunk("1 Mills ..... 3\n2 Bakers ..... 9\nAll rights reserved.")


def judging(**options: Any) -> ChunkJudgeConfig:
    return ChunkJudgeConfig(kind="curate.judge_chunks", model="judge", **options)


async def test_a_chunk_that_teaches_stays_and_another_goes_with_its_verdict() -> None:
    script = Script("facts", "facts")
    (kept,) = await judge.run(judging(), CHUNK, Judged(script))
    assert kept.id == CHUNK.id and kept.marks["judge_teaches"] == "facts"
    assert "Sample:\n1 Mills ..... 3" in script.asked[0][0][-1].content
    with pytest.raises(Reject, match="judged not teaches"):
        await judge.run(judging(), CHUNK, Judged(Script("contents", "notice")))


@pytest.mark.parametrize(
    "options",
    [
        {"checks": ["sound"]},
        {
            "checks": ["fit"],
            "rubrics": {"fit": {"question": "?", "choices": ["a", "b"], "passes": ["a"], "sees": ["answer"]}},
        },
    ],
)
def test_a_chunk_is_not_asked_for_its_question_or_answer(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"no rubric is called sound|a chunk has no question"):
        judging(**options)
