"""AdamW over what is trained and nothing else, in 32 and in 8 bits; a base in 4 bits; activations computed twice: the
same training in less memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gristmill.core.errors import Cancelled, ConfigError
from gristmill.models.load import load_model
from gristmill.models.lora import attach
from gristmill.models.weights import locate
from gristmill.train import optimizer as optimizers
from gristmill.train.learner import Learner
from gristmill.train.objective import objective_of
from gristmill.train.optimizer import check_optimizer, optimizer_of
from gristmill.train.packing import Example, Packed, Tokens, collate
from gristmill.train.run import run

Make = Callable[..., Any]


def _learner(folder: Path, config: Make, **changes: Any) -> Learner:
    settings = config(dtype="fp32", **changes)
    model: Any = load_model(locate(str(folder), base=Path("/")), dtype="float32")
    torch.manual_seed(0)
    if settings.lora:
        model = attach(model, settings.lora)
    return Learner(model, objective_of(settings), settings)


def _parts(count: int = 3) -> list[Packed]:
    rng = np.random.default_rng(0)
    return [collate([Example((Tokens(rng.integers(3, 400, 40), np.ones(40, np.bool_)),))]) for _ in range(count)]


def _step(learner: Learner, parts: list[Packed], *, seed: int = 5) -> Any:
    return learner.step(parts, total=sum(len(p.targets) for p in parts), rate=1e-3, seed=seed)


def test_matrices_decay_and_nothing_frozen_is_held(model_folder: Path, config: Make) -> None:
    learner = _learner(model_folder, config, weight_decay=0.1)
    held = {id(p) for group in learner.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in learner.model.parameters() if p.requires_grad}
    assert all(p.dtype == torch.float32 for p in learner.trained.values())
    full = _learner(model_folder, config, lora=None, weight_decay=0.1)
    for group in full.optimizer.param_groups:
        assert {p.ndim >= 2 for p in group["params"]} == {group["weight_decay"] > 0}


def test_activations_computed_twice_change_no_bit(model_folder: Path, config: Make) -> None:
    """With dropout, which is drawn again as it was."""
    for lora in (None, {"r": 4, "alpha": 8, "dropout": 0.2}):
        kept, twice = (_learner(model_folder, config, lora=lora, checkpointing=how) for how in ("off", "on"))
        assert [_step(kept, _parts()) for _ in range(3)] == [_step(twice, _parts()) for _ in range(3)]
        for name, p in kept.trained.items():
            assert torch.equal(p, twice.trained[name]), name


def test_a_step_split_into_more_passes_is_the_same_step(model_folder: Path, config: Make) -> None:
    rng = np.random.default_rng(3)
    examples = [Example((Tokens(rng.integers(3, 400, n), rng.random(n) < 0.5),)) for n in (9, 40, 23, 31, 17, 5)]
    told = []
    for size in (6, 3, 2, 1):
        learner = _learner(model_folder, config, lora=None)
        parts = [collate(examples[at : at + size]) for at in range(0, 6, size)]
        told.append((_step(learner, parts), learner.weights()["model.embed_tokens.weight"]))
    for stepped, weights in told[1:]:
        assert stepped.loss == pytest.approx(told[0][0].loss, rel=1e-6)
        assert stepped.grad_norm == pytest.approx(told[0][0].grad_norm, rel=1e-5)
        torch.testing.assert_close(weights, told[0][1], rtol=1e-4, atol=1e-5)


def test_eight_bits_hold_nearly_the_same_moments(context: Make, config: Make, samples: Make) -> None:
    losses = {}
    for name in ("adamw", "adamw_8bit"):
        ctx = context(name)
        list(run(config(lora=None, dtype="fp32", steps=6, optimizer=name), samples(12), ctx))
        losses[name] = ctx.losses
    assert losses["adamw_8bit"] == pytest.approx(losses["adamw"], rel=2e-2)
    assert losses["adamw_8bit"] != losses["adamw"]


@pytest.mark.parametrize(
    "changes", [{"lora": None, "optimizer": "adamw_8bit"}, {"lora": {"r": 4, "base": "nf4"}}], ids=["8-bit", "nf4"]
)
def test_it_goes_on_to_the_bit(changes: dict[str, Any], context: Make, config: Make, samples: Make) -> None:
    settings = config(steps=5, save_every=2, **changes)
    whole, broken, again = context("whole"), context("broken", stop_after=3), context("broken")
    list(run(settings, samples(12), whole))
    with pytest.raises(Cancelled):
        list(run(settings, samples(12), broken))
    list(run(settings, samples(12), again))
    assert broken.losses + again.losses == whole.losses
    final = [(ctx.folder / "final" / "model.safetensors").read_bytes() for ctx in (whole, again)]
    assert final[0] == final[1]


def test_a_four_bit_base_learns_and_is_merged_into_the_weights_it_was_made_of(
    context: Make, config: Make, samples: Make
) -> None:
    ctx = context()
    list(run(config(lora={"r": 8, "alpha": 16, "base": "nf4"}, steps=12, learning_rate=1e-2), samples(12), ctx))
    assert ctx.losses[-1] < 0.75 * ctx.losses[0]
    assert any("never into 4-bit" in said for said in ctx.warnings)
    merged = load_model(locate(str(ctx.folder / "final"), base=Path("/"))).state_dict()
    base = load_model(locate(str(ctx.model), base=Path("/"))).state_dict()
    name = "model.layers.0.self_attn.q_proj.weight"
    assert merged[name].dtype == torch.float32
    assert torch.equal(merged["model.norm.weight"], base["model.norm.weight"])
    assert torch.equal(merged["model.embed_tokens.weight"], base["model.embed_tokens.weight"])
    change = (merged[name] - base[name]).float()
    assert torch.linalg.matrix_rank(change, rtol=1e-3) <= 8  # what the adapters add, and no rounding to 4 bits


def test_what_cannot_run_here_is_refused_before_anything_is_loaded(
    config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="pages a CUDA device's memory out"):
        check_optimizer(config(optimizer="paged_adamw_8bit"), "cpu")
    check_optimizer(config(), "cpu")
    monkeypatch.setattr(optimizers, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs bitsandbytes") as raised:
        check_optimizer(config(optimizer="adamw_8bit"), "cuda")
    assert "quantized" in raised.value.hint


def test_a_vector_alone_is_a_group(config: Make) -> None:
    made = optimizer_of([torch.nn.Parameter(torch.zeros(3))], config(weight_decay=0.5))
    assert [group["weight_decay"] for group in made.param_groups] == [0.0]
