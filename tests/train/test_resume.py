"""N steps are k steps and the rest, to the bit: weights, optimiser and losses, for every objective."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gristmill.core.errors import Cancelled
from gristmill.core.records import Message, Sample
from gristmill.train.config import TrainConfig
from gristmill.train.kinds import OBJECTIVES
from gristmill.train.objective import objective_of
from gristmill.train.run import run

Make = Callable[..., Any]

LORA = {"lora": {"r": 4, "dropout": 0.2}}
VARIANTS = [{"lora": {"r": 4, "variant": "rslora"}}, {"lora": {"r": 4, "variant": "dora", "dropout": 0.2}}]
QUICK = ("train.sft", "train.dpo")
"""Next tokens, and a loss that compares with the starting model: among the quick tests."""

SEVERAL = {"lora": None, "context": 96, "batch": 384, "forward": 96, "workers": 4}
"""Several forward passes to a step, and several threads that render."""


def pair(_: int, chat: Sample) -> Sample:
    worse = Message(role="assistant", content=f"Not in {chat.answer.split()[1]}", train=True)
    return Sample(
        form="preference", kind="pair", messages=chat.messages[:1], chosen=chat.messages[1:], rejected=(worse,)
    )


def rated(i: int, chat: Sample) -> Sample:
    return Sample(form="rating", kind="rated", messages=chat.messages, desirable=i % 2 == 0)


def labelled(i: int, chat: Sample) -> Sample:
    return Sample(form="labelled", kind="class", text=chat.answer, label="odd" if i % 2 else "even")


FORMS = {"preference": pair, "rating": rated, "labelled": labelled}


def taught(settings: TrainConfig, given: list[Sample]) -> list[Sample]:
    """Samples of a form that a training learns from."""
    forms = objective_of(settings).forms
    made = next((make for form, make in FORMS.items() if form in forms), None)
    return [made(i, s) for i, s in enumerate(s for s in given if s.form == "chat")] if made else given


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def interrupted(context: Make, name: str, settings: Any, given: list[Sample], *stops: int) -> Any:
    """Train until so many steps were taken, once for each of `stops`, then to the end. Gives the losses, what the
    last interrupted attempt kept, and the final files."""
    losses: list[float] = []
    kept: dict[str, bytes] = {}
    for stop in stops:
        ctx = context(name, stop_after=stop - len(losses))
        with pytest.raises(Cancelled):
            list(run(settings, given, ctx))
        losses += ctx.losses
        kept = contents(ctx.folder / "checkpoints" / f"step-{stop:06d}")
    last = context(name)
    (*_, record) = run(settings, given, last)
    assert [m["resumed_step"] for m in last.metrics if "resumed_step" in m] == [stops[-1]]
    assert not last.warnings
    return losses + last.losses, kept, contents(last.folder / "final"), record


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        *((kind, LORA) for kind in QUICK),
        *(pytest.param(kind, LORA, marks=pytest.mark.slow) for kind in OBJECTIVES if kind not in QUICK),
        *(pytest.param("train.sft", variant, marks=pytest.mark.slow) for variant in VARIANTS),
        ("train.sft", SEVERAL),
        pytest.param("train.sft", SEVERAL | {"dtype": "fp32", "packing": False}, marks=pytest.mark.slow),
        pytest.param("train.dpo", SEVERAL, marks=pytest.mark.slow),
        pytest.param("train.kto", SEVERAL, marks=pytest.mark.slow),
        pytest.param("train.reward", SEVERAL | {"dtype": "fp32"}, marks=pytest.mark.slow),
        pytest.param("train.classify", SEVERAL, marks=pytest.mark.slow),
    ],
    ids=lambda value: (
        value if isinstance(value, str) else (value["lora"] or {"variant": "full"}).get("variant", "lora")
    ),
)
def test_a_training_in_three_parts_is_the_training_in_two(
    kind: str, changes: Any, context: Make, config: Make, samples: Make
) -> None:
    settings = config(kind=kind, steps=7, save_every=2, keep=1, learning_rate=1e-3, **changes)
    given = taught(settings, samples(16))
    whole = interrupted(context, "whole", settings, given, 5)
    broken = interrupted(context, "broken", settings, given, 1, 3, 5)
    assert whole[0] == broken[0] and len(whole[0]) == 7
    assert whole[1].keys() >= {"trained.safetensors", "optimizer.safetensors", "optimizer.json", "manifest.json"}
    assert whole[1] == broken[1]
    assert whole[2] == broken[2]
    assert whole[3] == broken[3]


def test_evaluations_patience_and_the_best_models_survive_interruptions(
    context: Make, config: Make, samples: Make
) -> None:
    held = [s.marked(split="validation") for s in samples(6, texts=0, seed=9)]
    given = [*samples(6, texts=0), *held]
    changes = {"eval_every": 2, "patience": 3, "keep_best": 2, "learning_rate": 3e-2, "schedule": "constant"}
    settings = config(steps=100, save_every=5, keep=1, lora=None, **changes)
    whole = context("whole")
    list(run(settings, given, whole))
    assert 9 < len(whole.losses) < 100
    interrupted(context, "broken", settings, given, 4, 7, len(whole.losses) - 1)
    for part in ("final", "best"):
        assert contents(context("broken").folder / part) == contents(whole.folder / part)


def test_other_surroundings_go_on_and_it_is_said(context: Make, config: Make, samples: Make) -> None:
    with pytest.raises(Cancelled):
        list(run(config(threads=1, steps=5), samples(12), context("one", stop_after=4)))
    again = context("one")
    list(run(config(threads=2, checkpointing="on", forward=128, steps=5), samples(12), again))
    assert [m["resumed_step"] for m in again.metrics if "resumed_step" in m] == [4]
    (said,) = again.warnings
    assert "threads 2 instead of 1" in said and "checkpointing on instead of off" in said
    assert "forward 128 instead of 256" in said and "strategy" not in said and "compile" not in said


def test_a_checkpoint_of_another_training_is_set_aside_and_said(context: Make, config: Make, samples: Make) -> None:
    first = context("one", stop_after=4)
    with pytest.raises(Cancelled):
        list(run(config(), samples(12), first))
    kept = contents(first.folder / "checkpoints")
    again, fresh = context("one"), context("fresh")
    list(run(config(), samples(13), again))
    assert len(again.losses) == 8
    *aside, last = again.warnings
    assert len(aside) == 2 and all("another training (samples differ)" in warning for warning in aside)
    assert "from the beginning" in last
    assert contents(again.folder / "set-aside") == kept
    list(run(config(), samples(13), fresh))
    assert contents(again.folder / "final") == contents(fresh.folder / "final")
