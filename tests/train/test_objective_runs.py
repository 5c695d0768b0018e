"""Trainings of every objective as the hall runs them: what they report, what they leave, what they keep for a resume;
and score heads from the weights they begin with to the folder that another library loads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from gristmill.core.errors import Cancelled, ConfigError, InputError
from gristmill.core.records import Checkpoint, Sample
from gristmill.core.stage import Dropped
from gristmill.models import checkpoint
from gristmill.models.gguf import prepare
from gristmill.models.load import load_model
from gristmill.models.renderer import Renderer
from gristmill.models.weights import locate
from gristmill.train.run import run

Make = Callable[..., Any]


def halves(samples: list[Sample]) -> list[Sample]:
    return [s.marked(split="validation") if at % 4 == 3 else s for at, s in enumerate(samples)]


def final_bytes(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((folder / "final").iterdir())}


@pytest.mark.parametrize(
    ("settings", "better"),
    [
        ({"kind": "train.dpo"}, "margin"),
        ({"kind": "train.dpo", "loss": "simpo"}, "margin"),
        ({"kind": "train.kto"}, "desirable_reward"),
        ({"kind": "train.reward"}, "margin"),
        ({"kind": "train.classify"}, "accuracy"),
    ],
    ids=["dpo", "simpo", "kto", "reward", "classify"],
)
def test_it_learns_and_says_how_well(settings: Any, better: str, context: Make, config: Make, taught: Make) -> None:
    ctx = context()
    made = config(steps=24, learning_rate=1e-2, eval_every=12, lora={"r": 8, "alpha": 16}, **settings)
    record = list(run(made, halves(taught(made.kind, 16)), ctx))[-1]
    steps = [m for m in ctx.metrics if "loss" in m]
    assert steps[-1]["loss"] < 0.8 * steps[0]["loss"]
    assert steps[-1][better] > steps[0][better]
    assert f"eval_{better}" in next(m for m in ctx.metrics if "eval_loss" in m)
    manifest = checkpoint.verify(ctx.folder / "final")
    assert isinstance(record, Checkpoint) and record.manifest == manifest.sha256
    scored = made.kind in ("train.reward", "train.classify")
    assert manifest.metadata.get("head") == ("score" if scored else None)


@pytest.mark.parametrize("settings", [{"kind": "train.dpo"}, {"kind": "train.kto"}], ids=["dpo", "kto"])
def test_the_starting_weights_are_asked_once(settings: Any, context: Make, config: Make, taught: Make) -> None:
    """A resumed training reads what they said; the last bytes are those of one that never stopped."""
    made, samples = config(steps=6, save_every=2, **settings), halves(taught(settings["kind"]))
    whole, broken = context("whole"), context("broken", stop_after=3)
    list(run(made, samples, whole))
    with pytest.raises(Cancelled):
        list(run(made, samples, broken))
    again = context("broken")
    list(run(made, samples, again))
    asked = [[m["reference_sequences"] for m in c.metrics if "reference_sequences" in m] for c in (broken, again)]
    sequences = len(samples) * 2  # a pair; an answer and the mismatched one beside it
    assert asked == [[sequences], []]
    assert [m["resumed_step"] for m in again.metrics if "resumed_step" in m] == [3]
    assert final_bytes(again.folder) == final_bytes(whole.folder)


def test_what_was_asked_of_other_weights_is_asked_again(context: Make, config: Make, taught: Make) -> None:
    samples = taught("train.dpo")
    list(run(config(kind="train.dpo", steps=1), samples, context("one")))
    again = context("one")
    list(run(config(kind="train.dpo", steps=1, context=96), samples, again))
    assert any("reference_sequences" in m for m in again.metrics)


def scores(model: Any, folder: Path, texts: list[str]) -> torch.Tensor:
    """As any user of transformers would: a padded batch of texts."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    with torch.inference_mode():
        return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


@pytest.mark.parametrize(
    "lora", [{"r": 4, "alpha": 8}, pytest.param(None, marks=pytest.mark.slow)], ids=["lora", "full"]
)
def test_a_classifier_is_the_same_in_other_hands(lora: Any, context: Make, config: Make, taught: Make) -> None:
    ctx, samples = context(), taught("train.classify")
    made = config(kind="train.classify", steps=30, learning_rate=1e-2 if lora else 3e-3, lora=lora, dtype="fp32")
    list(run(made, samples, ctx))
    folder = ctx.folder / "final"
    model, info = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert model.config.id2label == {0: "coast", 1: "hill", 2: "river"}
    assert model.config.pad_token_id == AutoTokenizer.from_pretrained(folder).pad_token_id == 0
    assert checkpoint.verify(folder).metadata["labels"] == ["coast", "hill", "river"]
    texts = [sample.text for sample in samples]
    found = scores(model.eval(), folder, texts)
    assert [model.config.id2label[int(at)] for at in found.argmax(1)] == [sample.label for sample in samples]
    ours = load_model(locate(str(folder), base=Path("/")))
    renderer = Renderer.load(locate(str(folder), base=Path("/")))
    for text, row in zip(texts, found, strict=True):  # alone, and by our own tokenizer
        with torch.inference_mode():
            alone = ours(input_ids=torch.tensor([renderer.encode(text)])).logits[0]
        torch.testing.assert_close(alone, row, rtol=1e-4, atol=1e-5)


def test_a_classifier_goes_on_from_its_own_head(context: Make, config: Make, taught: Make) -> None:
    first, samples = context("first"), taught("train.classify")
    made = config(kind="train.classify", steps=30, learning_rate=1e-2, dtype="fp32")
    list(run(made, samples, first))
    second = context("second")
    second.model = first.folder / "final"
    list(run(config(kind="train.classify", steps=2, dtype="fp32"), samples, second))
    assert second.losses[0] < 0.5 * first.losses[0]
    other = context("other")
    other.model = first.folder / "final"
    with pytest.raises(ConfigError, match="scores for coast, hill, river, not hill, coast, river"):
        list(run(config(kind="train.classify", labels=["hill", "coast", "river"]), samples, other))
    with pytest.raises(ConfigError, match="not the next token"):
        list(run(config(kind="train.dpo"), taught("train.dpo"), other))


def test_a_reward_model_of_a_gguf(
    context: Make, config: Make, taught: Make, model_folder: Path, tmp_path: Path
) -> None:
    """The backbone is unpacked, the head is new and drawn from the seed."""
    packed = prepare(locate(str(model_folder), base=Path("/")), quantization="f16", cache=tmp_path)
    runs = [context("one"), context("two"), context("three", seed=8)]
    for ctx in runs:
        ctx.model = packed
        list(run(config(kind="train.reward", steps=2, dtype="fp32"), taught("train.reward"), ctx))
    assert runs[0].losses == runs[1].losses != runs[2].losses
    model = AutoModelForSequenceClassification.from_pretrained(runs[0].folder / "final")
    assert model.config.id2label == {0: "reward"}
    assert "score.weight" in model.state_dict()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_score_head_over_a_base_in_four_bits(context: Make, config: Make, taught: Make) -> None:
    """The head is trained beside the quantised layers, in fp32, and merged with the base as it was before."""
    ctx, samples = context(), taught("train.classify")
    lora = {"r": 8, "alpha": 16, "base": "nf4"}
    list(run(config(kind="train.classify", steps=30, learning_rate=1e-2, lora=lora), samples, ctx))
    assert ctx.losses[-1] < 0.5 * ctx.losses[0]
    model, info = AutoModelForSequenceClassification.from_pretrained(ctx.folder / "final", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    found = scores(model.eval(), ctx.folder / "final", [sample.text for sample in samples]).argmax(1)
    right = [model.config.id2label[int(at)] == sample.label for at, sample in zip(found, samples, strict=True)]
    assert sum(right) >= len(samples) - 1


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_an_adapter_carries_the_head(context: Make, config: Make, taught: Make, model_folder: Path) -> None:
    """peft puts adapter and head over the base: the scores are those of the merged folder."""
    from peft import PeftModel

    ctx = context()
    list(run(config(kind="train.classify", steps=10, learning_rate=1e-2, dtype="fp32"), taught("train.classify"), ctx))
    base = AutoModelForSequenceClassification.from_pretrained(model_folder, num_labels=3)
    adapted = PeftModel.from_pretrained(base, ctx.folder / "adapter").eval()
    merged = AutoModelForSequenceClassification.from_pretrained(ctx.folder / "final").eval()
    ids = torch.arange(10, 30)[None]
    with torch.inference_mode():
        torch.testing.assert_close(adapted(input_ids=ids).logits, merged(input_ids=ids).logits, rtol=1e-4, atol=1e-5)


def test_samples_of_another_form_are_dropped_aloud(context: Make, config: Make, taught: Make, samples: Make) -> None:
    mixed = [*taught("train.dpo", 4), *samples(2, texts=1)]
    dropped = [r for r in run(config(kind="train.dpo", steps=1), mixed, context()) if isinstance(r, Dropped)]
    assert [d.reason for d in dropped] == ["a chat sample", "a chat sample", "a text sample"]
    with pytest.raises(InputError, match="no sample to train on"):
        list(run(config(kind="train.kto", steps=1), taught("train.dpo"), context("none")))


def test_a_model_that_gives_scores_is_not_served(context: Make, config: Make, taught: Make, tmp_path: Path) -> None:
    """What exam, chat and server read is a GGUF: there is none of it."""
    ctx = context()
    list(run(config(kind="train.reward", steps=1), taught("train.reward"), ctx))
    with pytest.raises(ConfigError, match="writes no text: it gives scores for reward"):
        prepare(locate(str(ctx.folder / "final"), base=Path("/")), quantization="f16", cache=tmp_path)
