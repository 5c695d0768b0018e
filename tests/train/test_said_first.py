"""What a training says before its first step, because nothing that follows would show it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gristmill.core.errors import Cancelled
from gristmill.core.records import Sample
from gristmill.train.run import run

Make = Callable[..., Any]


def test_a_warm_up_that_outlasts_the_training_is_said_once(context: Make, config: Make, samples: Make) -> None:
    settings = config(steps=3, warmup_steps=10, learning_rate=1e-3, save_every=1)
    ctx = context(stop_after=1)
    with pytest.raises(Cancelled):
        list(run(settings, samples(6), ctx))
    (said,) = ctx.warnings
    assert "warmup_steps is 10, and the training has 3" in said and "0.0003, of 0.001" in said
    again = context()
    list(run(settings, samples(6), again))
    assert max(m["lr"] for m in again.metrics if "lr" in m) == pytest.approx(3e-4) and not again.warnings
    shorter = context("shorter")
    list(run(config(steps=3, warmup_steps=2, learning_rate=1e-3), samples(6), shorter))
    assert max(m["lr"] for m in shorter.metrics if "lr" in m) == 1e-3 and not shorter.warnings


def test_ratings_of_one_prompt_have_nothing_to_be_measured_against(
    context: Make, config: Make, taught: Callable[..., list[Sample]]
) -> None:
    several = taught("train.kto", 6)
    asked = several[0].messages[0]
    one = [Sample(form="rating", kind="qa", messages=(asked, s.messages[1]), desirable=s.desirable) for s in several]
    for name, given, says in (("one", one, 1), ("several", several, 0)):
        ctx = context(name)
        list(run(config(kind="train.kto", steps=2, warmup_steps=1), given, ctx))
        assert [("same prompt" in said and "z is 0" in said) for said in ctx.warnings] == [True] * says
        assert all(m["kl"] == 0 for m in ctx.metrics if "kl" in m) or not says


def test_a_model_that_cannot_be_packed_is_named(
    context: Make, config: Make, samples: Make, model_folder: Path, tmp_path: Path
) -> None:
    from transformers import BloomConfig, BloomForCausalLM

    folder = tmp_path / "bloom"
    folder.mkdir()
    for path in model_folder.glob("tokenizer*"):
        shutil.copy(path, folder)
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    BloomForCausalLM(BloomConfig(vocab_size=400, hidden_size=32, n_layer=2, n_head=4, **ids)).save_pretrained(folder)
    ctx = replace(context(), model=folder)
    list(run(config(steps=2, warmup_steps=1, lora=None), samples(6), ctx))
    (said,) = ctx.warnings
    assert said.startswith("sequences are read one after the other, which is slow: ")
    assert '"packed": false' in (ctx.folder / "machine.json").read_text()
