"""The pass of every objective: samples teach a model, by adapters or in all its weights.

In the stage's folder: `mask_report.json` (what the loss sees, before the first step), `checkpoints/` (while training),
`adapter/` (with lora), and `final/`: the merged model as any library loads it, with tokenizer, template and manifest.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from gristmill import __version__
from gristmill.core.errors import CheckpointError
from gristmill.core.files import atomic
from gristmill.core.records import Checkpoint, Record, Sample, digest_of
from gristmill.core.stage import PassContext, PassResult
from gristmill.models import checkpoint
from gristmill.models.adapter import write_adapter
from gristmill.models.load import require_head
from gristmill.models.merge import write_merged
from gristmill.models.renderer import Renderer
from gristmill.models.weights import Weights
from gristmill.train.config import TrainConfig
from gristmill.train.objective import objective_of
from gristmill.train.prepare import Data, Preparation, split_of
from gristmill.train.stages import LIBRARIES

if TYPE_CHECKING:
    from gristmill.train.job import Job, Learned

FINAL, BEST, ADAPTER, REPORT, PLAN = "final", "best", "adapter", "mask_report.json", "plan.json"
DATA = "data"


def run(config: TrainConfig, records: Iterable[Record], ctx: PassContext) -> PassResult:
    """Train on samples whose split is missing or `train`; `validation` gives the evaluation loss, `test` is never
    seen."""
    from gristmill.models.tokens import renderer_of
    from gristmill.train.job import Job, pinned_threads
    from gristmill.train.keeper import clear

    weights: Weights = ctx.weights(config.model)
    template = None if config.chat_template is None else (ctx.base / config.chat_template).read_text("utf-8")
    renderer = renderer_of(weights, new_tokens=config.new_tokens, template=template)
    taught = (sample for sample in records if isinstance(sample, Sample) and split_of(sample) == "train")
    config = config.settled(taught)
    objective = objective_of(config)
    require_head(weights, objective.labels)
    data = Preparation(config, objective, renderer, ctx).data(records, ctx.folder / DATA)
    _report(data.report, ctx)
    yield from data.dropped()
    seed = ctx.seed if config.seed is None else config.seed
    identity = _identity(config, data, weights, renderer, seed)
    manifest = _finished(ctx.folder / FINAL, identity)
    if manifest is None:
        config, around = _planned(config, weights, len(objective.labels), ctx)
        job = Job(config, seed, ctx.folder, data.folder, weights, template, identity, around)
        with pinned_threads(around["threads"], exact=config.device == "cpu"):
            manifest = _train(job, ctx)
    clear(ctx.folder)  # here, so that it is made good after a kill in the midst of it
    yield Checkpoint(
        base=weights.sha256,
        manifest=manifest.sha256,
        step=manifest.step,
        metrics=manifest.metadata["metrics"],
        marks={"folder": FINAL},
    )


def _report(report: dict[str, Any], ctx: PassContext) -> None:
    """Say what will be trained on before anything is: in the stage's folder, and as an event."""
    with atomic(ctx.folder / REPORT) as file:
        file.write(orjson.dumps(report, option=orjson.OPT_INDENT_2))
    plain = {key: value for key, value in report.items() if isinstance(value, int | float | str)}
    ctx.metric(mask_report=REPORT, **plain)


def _identity(config: TrainConfig, data: Data, weights: Weights, renderer: Renderer, seed: int) -> dict[str, Any]:
    """What makes this training the one it is."""
    return {
        "config": digest_of(config.learned()),
        "samples": data.train.digest,
        "validation": data.validation.digest,
        "base": weights.sha256,
        "template": renderer.template_hash,
        "seed": seed,
    }


def _finished(folder: Path, identity: dict[str, Any]) -> checkpoint.Manifest | None:
    """The final folder of this very training, when an earlier attempt got as far as writing it."""
    try:
        manifest = checkpoint.verify(folder)
    except CheckpointError:
        return None
    same = {key: manifest.metadata["identity"].get(key) for key in identity} == identity
    return manifest if same else None


def _planned(
    config: TrainConfig, weights: Weights, labels: int, ctx: PassContext
) -> tuple[TrainConfig, dict[str, Any]]:
    """The settings with what the memory plan chose, and what around a training decides its last bits."""
    from gristmill.train.compiled import compiles
    from gristmill.train.job import check_machine
    from gristmill.train.memory import device_of, plan_memory

    check_machine(config, device_of(config))
    plan = plan_memory(config, weights, labels=labels, kept=ctx.folder / PLAN)
    ctx.metric(memory_plan=PLAN, memory_needed=plan.peak, memory_free=plan.available, **plan.settled())
    config = config.model_copy(update=plan.settled())
    around = {
        "threads": config.threads or max(1, len(os.sched_getaffinity(0)) // config.processes),
        "processes": config.processes,
        "strategy": config.strategy if config.processes > 1 else "alone",
        "compile": "on" if compiles(config, plan.device) else "off",
    }
    return config, around | plan.settled()


def _train(job: Job, ctx: PassContext) -> checkpoint.Manifest:
    from gristmill.train.job import learn
    from gristmill.train.launch import launch

    config = job.config
    if config.processes > 1:
        launch(job, ctx)
    learned = learn(job, ctx)
    model, progress, keeper = learned.learner.model, learned.progress, learned.keeper
    write = partial(write_merged, model, renderer=job.renderer(), base=job.weights)
    if config.lora:
        whose = {"identity": job.identity}
        write_adapter(model, ctx.folder / ADAPTER, renderer=job.renderer(), base=job.weights, metadata=whose)
    if config.lora and config.lora.base == "nf4":
        ctx.warn(
            "adapters that were trained beside 4-bit weights are merged into the weights those were made of, never "
            "into 4-bit ones: the merged model is close to the one that was trained, not equal to it"
        )
    metadata = _stated(job, learned)
    for loss, step in progress.best[: config.keep_best]:
        keeper.take(learned.learner, step)
        stated = metadata | {"step": step, "metrics": {"eval_loss": loss}}
        write(ctx.folder / BEST / f"step-{step:06d}", metadata=stated)
    if config.keep_best:
        keeper.take(learned.learner, progress.weights_step)
    return write(ctx.folder / FINAL, metadata=metadata)


def _stated(job: Job, learned: Learned) -> dict[str, Any]:
    """What the final model's manifest says of its training. No time, so that equal trainings give equal bytes."""
    labels = list(learned.learner.objective.labels)
    return {
        "step": learned.progress.weights_step,
        "identity": job.identity,
        "around": job.around,
        "plan": learned.keeper.course.plan_hash(0),
        "versions": {"gristmill": __version__, **{name: version(name) for name in LIBRARIES}},
        "metrics": learned.progress.metrics,
        **({"head": "score", "labels": labels} if labels else {}),
    }
