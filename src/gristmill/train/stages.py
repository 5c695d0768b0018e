"""What `train` offers a recipe: one kind for each objective, ours and other packages'. Import-light, so that a check
costs nothing."""

from __future__ import annotations

from gristmill.core.errors import ConfigError
from gristmill.core.records import Checkpoint, Chunk, Document, Draft, Sample
from gristmill.core.stage import STAGES as Stages
from gristmill.core.stage import Stage
from gristmill.train.config import TrainConfig
from gristmill.train.kinds import OBJECTIVES, plugged
from gristmill.train.tokenizer_config import TokenizerConfig

TRAINER = "gristmill.train.run:run"
LIBRARIES = ("torch", "transformers", "peft")


def trains(config: type[TrainConfig], *, modules: tuple[str, ...] = ()) -> Stage:
    """The stage of an objective with these settings. `modules`: where it is, if that is another package."""
    return Stage(
        code=TRAINER,
        config=config,
        takes=(Sample,),
        gives=(Checkpoint,),
        shape="pass",
        artifacts=True,
        inputs="gristmill.train.tokenizer_config:template_file",
        extras=("train",),
        libraries=LIBRARIES,
        modules=modules,
    )


def _plugged() -> Stages:
    found: Stages = {}
    for kind, point in plugged().items():
        from gristmill.train.objective import Objective

        objective = point.load()
        if kind in _OURS or not (isinstance(objective, type) and issubclass(objective, Objective)):
            why = "redefines a kind of ours" if kind in _OURS else "is no class made of Objective"
            raise ConfigError(f"the plug-in objective {point.name} {why}", f"Mend or remove {point.module}.")
        found[kind] = (trains(objective.settings, modules=(point.module,)),)
    return found


_OURS: Stages = {
    **{kind: (trains(config),) for kind, (config, _) in OBJECTIVES.items()},
    "train.tokenizer": (
        Stage(
            code="gristmill.train.tokenizer:run",
            config=TokenizerConfig,
            takes=(Document, Chunk, Sample),
            gives=(Draft,),
            shape="pass",
            artifacts=True,
            inputs="gristmill.train.tokenizer_config:template_file",
            libraries=("tokenizers",),
        ),
    ),
}
STAGES: Stages = _OURS | _plugged()
