"""A training as everything that a process needs to take part in it, and what each of them does.

`learn` is the same for one process, for one of several, and for the one that writes the result when those have ended:
it finds their last checkpoint, and nothing left to train.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import torch

from gristmill.core.errors import ConfigError
from gristmill.core.extras import install_line
from gristmill.core.files import atomic
from gristmill.core.stage import PassContext
from gristmill.models.load import load_model
from gristmill.models.lora import attach
from gristmill.models.renderer import Renderer
from gristmill.models.tokens import add_rows, renderer_of, train_rows
from gristmill.models.weights import Weights
from gristmill.train.config import TrainConfig
from gristmill.train.examples import endless
from gristmill.train.keeper import CheckpointKeeper
from gristmill.train.learner import Learner
from gristmill.train.loop import Course, Progress, train
from gristmill.train.objective import Objective, objective_of
from gristmill.train.optimizer import check_optimizer
from gristmill.train.parallel import Ranks
from gristmill.train.prepare import Data
from gristmill.train.reference import FOLDER as REFERENCE
from gristmill.train.reference import reference_of
from gristmill.train.schedule import still_rising
from gristmill.train.stages import STAGES
from gristmill.train.watch import Watch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

JOB = "job.json"


@dataclass(frozen=True)
class Job:
    """One training. `config` is settled: device, forward and checkpointing are chosen."""

    config: TrainConfig
    seed: int
    folder: Path  # the stage's
    data: Path
    weights: Weights
    template: str | None
    identity: dict[str, Any]
    around: dict[str, Any]

    def renderer(self) -> Renderer:
        return renderer_of(self.weights, new_tokens=self.config.new_tokens, template=self.template)

    def write(self) -> Path:
        """In the stage's folder, for `read` in another process."""
        plain = asdict(self) | {"config": self.config.model_dump(mode="json", exclude_unset=True)}
        with atomic(self.folder / JOB) as file:
            file.write(orjson.dumps(plain, default=str, option=orjson.OPT_INDENT_2))
        return self.folder / JOB

    @classmethod
    def read(cls, path: Path) -> Job:
        plain = orjson.loads(path.read_bytes())
        weights = Weights(**{**plain["weights"], "path": Path(plain["weights"]["path"])})
        config = STAGES[plain["config"]["kind"]][-1].config.model_validate(plain["config"])
        places = {name: Path(plain[name]) for name in ("folder", "data")}
        return cls(**{**plain, **places, "weights": weights, "config": config})


@dataclass(frozen=True)
class Learned:
    """Where a training has got to. The learner holds the weights that are to be kept."""

    learner: Learner
    keeper: CheckpointKeeper
    progress: Progress


def learn(job: Job, ctx: PassContext, *, ranks: Ranks = Ranks()) -> Learned:  # noqa: B008  (frozen)
    """Train from the newest checkpoint, or from the beginning, to the end."""
    objective, data, renderer = objective_of(job.config), Data.open(job.data), job.renderer()
    model = _model(job, objective, renderer)
    learner = Learner(model, objective, job.config, ranks=ranks)
    course = Course.of(job.config, data.train, data.validation, seed=job.seed)
    if objective.reference:
        known = reference_of(learner, course, job.folder / REFERENCE, identity=job.identity, ctx=ctx)
        course = replace(course, reference=known)
    keeper = CheckpointKeeper(job.identity, job.around, course, ctx)
    progress = keeper.restore(learner)
    if not progress.step:
        concerns = still_rising(job.config, course.steps), objective.concern(data.train), endless(data.report)
        for said in filter(None, concerns):
            ctx.warn(said)
    train(learner, course, progress, keeper, Watch(learner, renderer, ctx, at=progress.step), ctx)
    return Learned(learner, keeper, progress)


@contextmanager
def pinned_threads(threads: int, *, exact: bool) -> Iterator[None]:
    """A fixed number of torch threads and, where it shall be `exact` (on a CPU), deterministic kernels, given back
    afterwards: sums are split by thread, so the number of threads is part of what the weights become."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    filling = torch.utils.deterministic.fill_uninitialized_memory
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(exact)
    torch.utils.deterministic.fill_uninitialized_memory = False  # costs a pass over all memory, guards nothing here
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        torch.utils.deterministic.fill_uninitialized_memory = filling


def _model(job: Job, objective: Objective, renderer: Renderer) -> PreTrainedModel | Any:
    """The weights, with adapters or a score head where there are some, on the job's device."""
    config = job.config
    device = f"cuda:{torch.cuda.current_device()}" if config.device == "cuda" else "cpu"
    half = config.lora is not None and config.dtype == "bf16"
    torch.manual_seed(job.seed)  # a new score head and adapters are drawn from it
    model: Any = load_model(
        job.weights,
        dtype="bfloat16" if half else "float32",
        device=device,
        quantize="nf4" if config.lora is not None and config.lora.base == "nf4" else None,
        head=objective.labels if objective.head == "score" else None,
    )
    add_rows(model, renderer, seed=job.seed, apart=config.lora is not None)
    if config.lora is not None:
        model = attach(model, config.lora)
        train_rows(model)
    if objective.head == "score":
        model.config.pad_token_id = renderer.pad  # scores are read at the last token that is none
    return model


def check_machine(config: TrainConfig, device: str) -> None:
    """Refuse what cannot run here, before any weight is loaded."""
    check_optimizer(config, device)
    if config.lora is not None and config.lora.base == "nf4" and find_spec("bitsandbytes") is None:
        raise ConfigError("a base in 4 bits needs bitsandbytes", install_line("quantized"))
    if device == "cuda" and config.processes > torch.cuda.device_count():
        raise ConfigError(
            f"{config.processes} processes, and {torch.cuda.device_count()} CUDA devices",
            "One process a device: set processes to at most their number.",
        )
