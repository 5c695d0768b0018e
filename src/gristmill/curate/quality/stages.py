"""The kinds of this family and their configs."""

from __future__ import annotations

from gristmill.core import stage
from gristmill.core.records import Chunk, Report, Sample
from gristmill.core.stage import Stage
from gristmill.curate.quality.judge_config import CalibrationConfig, ChunkJudgeConfig, JudgeConfig
from gristmill.curate.quality.score_config import ScoreConfig

STAGES: stage.STAGES = {
    "curate.score": (Stage("gristmill.curate.quality.score:run", ScoreConfig, (Sample,), (Sample,)),),
    "curate.judge": (
        Stage("gristmill.curate.quality.judge:run", JudgeConfig, (Sample,), (Sample,), prompts=("judge",)),
    ),
    "curate.judge_chunks": (
        Stage("gristmill.curate.quality.judge:run", ChunkJudgeConfig, (Chunk,), (Chunk,), prompts=("judge",)),
    ),
    "curate.calibration": (
        Stage("gristmill.curate.quality.calibration:run", CalibrationConfig, (Sample,), (Report,), shape="pass"),
    ),
}
