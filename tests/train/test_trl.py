"""Losses and gradients are TRL's, on the same model and the very same tokens: TRL makes the batch, pads it and computes
its loss as its trainers do; ours reads the same sequences packed. Where TRL calls a loss experimental its functions are
asked. Slow, for what is imported; `test_objectives.py` holds the papers' formulas."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from gristmill.train.learner import Learner
from gristmill.train.objective import Objective, objective_of
from gristmill.train.packing import Example, Tokens, collate

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
QUIET = {"report_to": [], "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "disable_tqdm": True}


@pytest.fixture(scope="module", autouse=True)
def trl() -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import trl

        yield trl


def rows(*, rated: bool = False) -> Any:
    from datasets import Dataset

    words = ["In 1245, by the people.", "I do not know. " * 5, "By the river.", "Nobody knows, nobody asks."]
    asked = [[{"role": "user", "content": f"When was the mill of {p} built?"}] for p in ("Orvale", "Undrey", "Pellow")]
    said = [[{"role": "assistant", "content": word}] for word in words]
    if rated:
        return Dataset.from_list(
            [{"prompt": asked[n % 3], "completion": said[n], "label": n % 2 == 0} for n in range(4)]
        )
    return Dataset.from_list([{"prompt": asked[n], "chosen": said[n], "rejected": said[3 - n]} for n in range(3)])


def moved(model: Any) -> Any:
    """The model some way from where it started: the same way each time."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return model


def batch_of(trainer: Any) -> dict[str, torch.Tensor]:
    return dict(next(iter(trainer.get_train_dataloader())))


def tokens_of(ids: torch.Tensor, seen: torch.Tensor, mask: torch.Tensor) -> list[Tokens]:
    """The sequences of a padded batch."""
    return [Tokens(i[s].numpy(), m[s].numpy().astype(bool)) for i, s, m in zip(ids, seen.bool(), mask, strict=True)]


def theirs(trainer: Any, batch: dict[str, torch.Tensor]) -> tuple[float, dict[str, torch.Tensor]]:
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, dict(batch))
    loss.backward()
    return float(loss.detach()), {n: p.grad for n, p in trainer.model.named_parameters()}


def ours(learner: Learner, examples: list[Example], *, reference: Any = ()) -> tuple[float, dict[str, torch.Tensor]]:
    parts = [collate(examples, reference=reference)]
    total = sum(map(learner.objective.size, examples))
    learner.reading(parts[0], learner._asking(total, learner._estimate(parts)))[0].backward()
    loss = learner.evaluate(parts, total=total).loss
    return loss, {n: p.grad for n, p in learner.trained.items()}


def same(mine: tuple[float, dict[str, torch.Tensor]], other: tuple[float, dict[str, torch.Tensor]]) -> None:
    assert mine[0] == pytest.approx(other[0], rel=2e-5)
    assert mine[1].keys() == other[1].keys()
    for name, gradient in mine[1].items():
        torch.testing.assert_close(gradient, other[1][name], rtol=1e-3, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}")


def learner_of(config: Callable[..., Any], model: Any, **settings: Any) -> Learner:
    made = config(lora=None, dtype="fp32", **settings)
    objective: Objective = objective_of(made)
    return Learner(model, objective, made)


@pytest.mark.parametrize(
    ("settings", "their"),
    [
        ({"loss": "dpo", "beta": 0.3}, {"loss_type": ["sigmoid"], "beta": 0.3}),
        ({"loss": "ipo", "beta": 0.2}, {"loss_type": ["ipo"], "beta": 0.2}),
        ({"loss": "dpo", "sft_weight": 0.7}, {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.7]}),
    ],
    ids=["dpo", "ipo", "dpo-and-sft"],
)
def test_preferences(model_folder: Path, tmp_path: Path, config: Any, trl: Any, settings: Any, their: Any) -> None:
    data = rows().select([0]) if "sft_weight" in settings else rows()  # TRL's sft mean is over tokens, ours over pairs
    trainer = trl.DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32),
        args=trl.DPOConfig(str(tmp_path), per_device_train_batch_size=3, **QUIET, **their),
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(model_folder),
    )
    batch = batch_of(trainer)
    every = tokens_of(batch["input_ids"], batch["attention_mask"], batch["completion_mask"])
    examples = [Example(pair) for pair in zip(every[: len(every) // 2], every[len(every) // 2 :], strict=True)]
    learner = learner_of(config, AutoModelForCausalLM.from_pretrained(model_folder), kind="train.dpo", **settings)
    reference = [learner.references([collate([example])])[0] for example in examples]
    moved(learner.model), moved(trainer.model)
    same(ours(learner, examples, reference=reference), theirs(trainer, batch))


def test_ratings(model_folder: Path, tmp_path: Path, config: Any, trl: Any) -> None:
    weights = {"desirable_weight": 1.3, "undesirable_weight": 0.8, "beta": 0.4}
    trainer = trl.KTOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32),
        args=trl.KTOConfig(str(tmp_path), per_device_train_batch_size=4, **QUIET, **weights),
        train_dataset=rows(rated=True),
        processing_class=AutoTokenizer.from_pretrained(model_folder),
    )
    batch = batch_of(trainer)
    every = tokens_of(batch["input_ids"], batch["attention_mask"], batch["completion_mask"])
    beside = tokens_of(batch["KL_input_ids"], batch["KL_attention_mask"], batch["KL_completion_mask"])
    examples = [
        Example((own,), (float(label),), (other,))
        for own, other, label in zip(every, beside, batch["label"], strict=True)
    ]
    learner = learner_of(config, AutoModelForCausalLM.from_pretrained(model_folder), kind="train.kto", **weights)
    reference = [learner.references([collate([Example((*e.sequences, *e.beside))])])[0] for e in examples]
    moved(learner.model), moved(trainer.model)
    assert learner._estimate([collate(examples, reference=reference)]) > 0.05  # the term is there, not held at zero
    same(ours(learner, examples, reference=reference), theirs(trainer, batch))


@pytest.mark.parametrize(("margin", "centering"), [(0.0, 0.0), (0.7, 0.0), (0.0, 0.05)])
def test_rewards(model_folder: Path, tmp_path: Path, config: Any, trl: Any, margin: float, centering: float) -> None:
    def scored() -> Any:
        return AutoModelForSequenceClassification.from_pretrained(model_folder, num_labels=1, dtype=torch.float32)

    data = rows()
    trainer = trl.RewardTrainer(
        model=scored(),
        args=trl.RewardConfig(
            str(tmp_path), per_device_train_batch_size=3, center_rewards_coefficient=centering or None, **QUIET
        ),
        train_dataset=data.add_column("margin", [margin] * 3) if margin else data,
        processing_class=AutoTokenizer.from_pretrained(model_folder),
    )
    batch = batch_of(trainer)
    every = tokens_of(batch["input_ids"], batch["attention_mask"], batch["attention_mask"])
    learner = learner_of(config, scored(), kind="train.reward", margin=margin, centering=centering)
    learner.model.load_state_dict(trainer.model.state_dict())  # the heads were drawn apart
    moved(learner.model), moved(trainer.model)
    examples = [Example(pair) for pair in zip(every[:3], every[3:], strict=True)]
    same(ours(learner, examples), theirs(trainer, batch))


def test_classes(model_folder: Path, config: Any) -> None:
    """transformers' own loss of a padded batch; TRL has no classifier."""

    def scored() -> Any:
        how = {"num_labels": 3, "id2label": dict(enumerate("abc")), "dtype": torch.float32}
        torch.manual_seed(3)
        return moved(AutoModelForSequenceClassification.from_pretrained(model_folder, **how))

    rng, lengths, classes = np.random.default_rng(0), (7, 30, 12, 21), (2, 0, 1, 2)
    texts = [rng.integers(3, 400, n) for n in lengths]
    examples = [
        Example((Tokens(ids, np.zeros(len(ids), bool)),), (float(c), 1.0))
        for ids, c in zip(texts, classes, strict=True)
    ]
    model = scored()
    padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(ids) for ids in texts], batch_first=True)
    loss = model(padded, attention_mask=(padded != 0).long(), labels=torch.tensor(classes)).loss
    loss.backward()
    learner = learner_of(config, scored(), kind="train.classify", labels=["a", "b", "c"])
    same(ours(learner, examples), (float(loss.detach()), {n: p.grad for n, p in model.named_parameters()}))


@pytest.mark.parametrize("loss", ["orpo", "simpo"])
def test_what_trl_calls_experimental(model_folder: Path, config: Any, loss: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    rng, sizes = np.random.default_rng(1), (9, 26, 14, 17)
    every = [Tokens(rng.integers(3, 400, n), np.arange(n) >= 5) for n in sizes]
    model = moved(AutoModelForCausalLM.from_pretrained(model_folder))
    padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(t.ids) for t in every], batch_first=True)
    labels = torch.nn.utils.rnn.pad_sequence(
        [torch.where(torch.from_numpy(t.mask), torch.from_numpy(t.ids), -100) for t in every],
        batch_first=True,
        padding_value=-100,
    )
    lines = model(padded).logits  # causal: what follows a sequence changes nothing before it
    here = SimpleNamespace(beta=0.5, accelerator=SimpleNamespace(device="cpu"))
    if loss == "orpo":
        from trl.experimental.orpo import ORPOTrainer

        means = ORPOTrainer.get_batch_logps(lines, labels, average_log_prob=True)
        value = -(ORPOTrainer.odds_ratio_loss(here, means[0::2], means[1::2])[0] + means[0::2]).mean()
    else:
        from trl.experimental.cpo import CPOTrainer

        extra = {"alpha": 0.0, "loss_type": "simpo", "simpo_gamma": 0.4, "label_smoothing": 0.1}
        means = CPOTrainer.get_batch_logps(lines, labels, average_log_prob=True)
        value = CPOTrainer.cpo_loss(SimpleNamespace(**vars(here), **extra), means[0::2], means[1::2])[0].mean()
    value.backward()
    more = {"gamma": 0.4, "label_smoothing": 0.1} if loss == "simpo" else {}
    other = moved(AutoModelForCausalLM.from_pretrained(model_folder))
    learner = learner_of(config, other, kind="train.dpo", loss=loss, beta=0.5, **more)
    examples = [Example((every[0], every[1])), Example((every[2], every[3]))]
    same(ours(learner, examples), (float(value.detach()), {n: p.grad for n, p in model.named_parameters()}))
