"""What `train` offers a recipe: one kind for each objective. Import-light, so that a check costs nothing."""

from __future__ import annotations

from typing import Literal

from gristmill.core.records import Checkpoint, Sample
from gristmill.core.stage import STAGES as Stages
from gristmill.core.stage import Stage
from gristmill.train.config import TrainConfig

TRAINER = "gristmill.train.run:run"
LIBRARIES = ("torch", "transformers", "peft")


class SftConfig(TrainConfig):
    """Supervised fine-tuning on text and chat samples; on texts alone it is continued pretraining."""

    kind: Literal["train.sft"]


def trains(config: type[TrainConfig]) -> Stage:
    """The stage of an objective with these settings."""
    return Stage(
        code=TRAINER,
        config=config,
        takes=(Sample,),
        gives=(Checkpoint,),
        shape="pass",
        artifacts=True,
        extras=("train",),
        libraries=LIBRARIES,
    )


STAGES: Stages = {"train.sft": (trains(SftConfig),)}
