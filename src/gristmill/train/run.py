"""The pass of every objective: samples teach a model, by adapters or in all its weights.

In the stage's folder: `mask_report.json` (what the loss sees, before the first step), `checkpoints/` (while training),
`adapter/` (with lora), and `final/`: the merged model as any library loads it, with tokenizer, template and manifest.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from gristmill.core.errors import CheckpointError
from gristmill.core.files import atomic
from gristmill.core.records import Checkpoint, Record, Sample, digest_of
from gristmill.core.stage import PassContext, PassResult
from gristmill.models import checkpoint
from gristmill.models.load import load_model
from gristmill.models.lora import attach
from gristmill.models.merge import write_merged
from gristmill.models.renderer import Renderer
from gristmill.models.weights import Weights
from gristmill.train.config import TrainConfig
from gristmill.train.objective import Objective, objective_of
from gristmill.train.prepare import Data, Preparation, split_of

FINAL, BEST, ADAPTER, REPORT = "final", "best", "adapter", "mask_report.json"
DATA = "data"


def run(config: TrainConfig, records: Iterable[Record], ctx: PassContext) -> PassResult:
    """Train on samples whose split is missing or `train`; `validation` gives the evaluation loss, `test` is never
    seen."""
    weights: Weights = ctx.weights(config.model)
    renderer = Renderer.load(weights)
    taught = (sample for sample in records if isinstance(sample, Sample) and split_of(sample) == "train")
    config = config.settled(taught)
    objective = objective_of(config)
    data = Preparation(config, objective, renderer, ctx).data(records, ctx.folder / DATA)
    _report(data.report, ctx)
    yield from data.dropped()
    identity = _identity(config, data, weights, renderer, ctx.seed)
    with pinned_threads(config.threads) as threads:
        manifest = _finished(ctx.folder / FINAL, identity)
        if manifest is None:
            manifest = _train(config, objective, data, weights, renderer, identity, {"threads": threads}, ctx)
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


def _train(
    config: TrainConfig,
    objective: Objective,
    data: Data,
    weights: Weights,
    renderer: Renderer,
    identity: dict[str, Any],
    around: dict[str, Any],
    ctx: PassContext,
) -> checkpoint.Manifest:
    import torch

    from gristmill.train.keeper import CheckpointKeeper
    from gristmill.train.learner import Learner
    from gristmill.train.loop import Course, train
    from gristmill.train.reference import FOLDER as REFERENCE
    from gristmill.train.reference import reference_of
    from gristmill.train.watch import Watch

    scored = {"head": "score", "labels": list(objective.labels)} if objective.head == "score" else {}
    torch.manual_seed(ctx.seed)  # a new score head and adapters are drawn from it
    dtype = "bfloat16" if config.lora and config.dtype == "bf16" else "float32"
    model: Any = load_model(weights, dtype=dtype, head=objective.labels if scored else None)
    if config.lora:
        model = attach(model, config.lora)
    if scored:
        model.config.pad_token_id = renderer.pad  # scores are read at the last token that is none
    learner = Learner(model, objective, config)
    course = Course.of(config, data.train, data.validation, seed=ctx.seed)
    if objective.reference:
        known = reference_of(learner, course, ctx.folder / REFERENCE, identity=identity, ctx=ctx)
        course = replace(course, reference=known)
    keeper = CheckpointKeeper(identity, around, course, ctx)
    progress = keeper.restore(learner)
    train(learner, course, progress, keeper, Watch(learner, renderer, ctx, at=progress.step), ctx)
    if config.lora:
        _write_adapter(model, ctx.folder / ADAPTER, identity)
    metadata = {"step": progress.weights_step, "identity": identity, "metrics": progress.metrics, **scored}
    for loss, step in progress.best[: config.keep_best]:
        keeper.take(learner, step)
        stated = metadata | {"step": step, "metrics": {"eval_loss": loss}}
        write_merged(model, ctx.folder / BEST / f"step-{step:06d}", renderer=renderer, base=weights, metadata=stated)
    if config.keep_best:
        keeper.take(learner, progress.weights_step)
    manifest = write_merged(model, ctx.folder / FINAL, renderer=renderer, base=weights, metadata=metadata)
    keeper.clear()
    return manifest


def _write_adapter(model: Any, folder: Path, identity: dict[str, Any]) -> None:
    """The adapters alone, as peft loads them. Its config holds sets, whose order differs from process to process."""
    from peft import get_peft_model_state_dict

    from gristmill.models.state import save_tensors

    with checkpoint.staged(folder, metadata={"identity": identity}) as temp:
        save_tensors(temp / "adapter_model.safetensors", get_peft_model_state_dict(model, save_embedding_layers=False))
        model.peft_config["default"].save_pretrained(temp)
        path = temp / "adapter_config.json"
        settings = orjson.loads(path.read_bytes()) | {"base_model_name_or_path": identity["base"]}
        settings["target_modules"] = sorted(settings["target_modules"])
        path.write_bytes(orjson.dumps(settings, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))


@contextmanager
def pinned_threads(threads: int | None) -> Iterator[int]:
    """A fixed number of torch threads and deterministic kernels, given back afterwards: sums are split by thread,
    so the number of threads is part of what the weights become."""
    os.environ.setdefault(
        "OMP_WAIT_POLICY", "PASSIVE"
    )  # read when torch is first imported: spinning on busy cores is slow
    import torch

    wanted = threads or len(os.sched_getaffinity(0))
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    filling = torch.utils.deterministic.fill_uninitialized_memory
    torch.set_num_threads(wanted)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # costs a pass over all memory, guards nothing here
    try:
        yield wanted
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        torch.utils.deterministic.fill_uninitialized_memory = filling
