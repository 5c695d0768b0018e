"""`train.sft` as the hall runs it: samples and a model folder in, a verified checkpoint out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gristmill.core.errors import Cancelled, ConfigError, InputError
from gristmill.core.records import Checkpoint, Message, Sample
from gristmill.core.stage import Dropped
from gristmill.models import checkpoint
from gristmill.models.load import load_model
from gristmill.models.renderer import Renderer
from gristmill.models.weights import locate
from gristmill.train.run import run

Make = Callable[..., Any]


def final_bytes(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((folder / "final").iterdir())}


def checkpoint_of(result: list[Any]) -> Checkpoint:
    (found,) = [r for r in result if isinstance(r, Checkpoint)]
    return found


@pytest.mark.parametrize("lora", [{"r": 8, "alpha": 16}, None])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_it_learns_text_and_chat_and_hands_back_a_model(
    lora: Any, dtype: str, context: Make, config: Make, samples: Make
) -> None:
    ctx = context()
    settings = config(lora=lora, dtype=dtype, steps=50, learning_rate=1e-2, schedule="cosine", save_every=1000)
    record = checkpoint_of(list(run(settings, samples(8, texts=2), ctx)))
    assert ctx.losses[-1] < 0.35 * ctx.losses[0]
    manifest = checkpoint.verify(ctx.folder / "final")
    assert (record.manifest, record.step, record.marks) == (manifest.sha256, 50, {"folder": "final"})
    assert record.metrics["train_loss"] == pytest.approx(sum(ctx.losses[-10:]) / 10)
    assert (ctx.folder / "adapter").is_dir() == (lora is not None)
    assert not (ctx.folder / "checkpoints").exists()


def test_the_trained_model_says_what_it_was_taught(context: Make, config: Make, samples: Make) -> None:
    import torch

    ctx, taught = context(), samples(4, texts=0)
    list(run(config(steps=80, learning_rate=1e-2, dtype="fp32", lora={"r": 16, "alpha": 32}), taught, ctx))
    weights = locate(str(ctx.folder / "final"), base=Path("/"))
    model, renderer = load_model(weights), Renderer.load(weights)
    for sample in taught:
        prompt = renderer.chat(sample.messages[:1], generate=True).ids
        whole = renderer.chat(sample.messages).ids
        ids = list(prompt)
        while len(ids) < len(whole) and ids[-1] not in renderer.stop_ids:
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        assert renderer.decode(ids[len(prompt) :]) == sample.answer
        assert ids[-1] in renderer.stop_ids


def test_a_finished_training_is_shown_not_repeated(context: Make, config: Make, samples: Make) -> None:
    first, second = context("same"), context("same")
    a = checkpoint_of(list(run(config(), samples(12), first)))
    b = checkpoint_of(list(run(config(), samples(12), second)))
    assert a == b
    assert not second.losses


def test_patience_stops_and_keeps_the_best(context: Make, config: Make, samples: Make) -> None:
    """A rate far too high makes the validation loss rise after a while: the best weights are kept, not the last."""
    held = [s.marked(split="validation") for s in samples(6, texts=0, seed=9)]
    ctx = context()
    settings = config(steps=200, eval_every=2, patience=3, learning_rate=3e-2, lora=None, schedule="constant")
    record = checkpoint_of(list(run(settings, [*samples(6, texts=0), *held], ctx)))
    evals = {m["step"]: m["eval_loss"] for m in ctx.metrics if "eval_loss" in m}
    best = min(evals, key=lambda step: evals[step])
    assert len(ctx.losses) == best + 6 < 200
    assert record.step == best
    assert record.metrics["best_eval_loss"] == record.metrics["eval_loss"] == evals[best]
    again = context("again", stop_after=best + 3)
    with pytest.raises(Cancelled):
        list(run(settings, [*samples(6, texts=0), *held], again))
    list(run(settings, [*samples(6, texts=0), *held], context("again")))
    assert final_bytes(again.folder) == final_bytes(ctx.folder)


def test_the_mask_report_comes_first_and_shows_what_is_seen(context: Make, config: Make, samples: Make) -> None:
    ctx = context()
    list(run(config(steps=1), samples(3, texts=2), ctx))
    assert ctx.metrics[0]["mask_report"] == "mask_report.json"
    report = json.loads((ctx.folder / "mask_report.json").read_bytes())
    assert report["kinds"] == {"chat/qa": 3, "text/passage": 2}
    assert 0 < report["supervised"] < report["tokens"]
    assert report["stop_supervised"] is True
    assert "assistant\n⟦In " in report["shown"]["chat"]
    assert "<|im_end|>⟧" in report["shown"]["chat"]


def _chat(train: Any, *, answer: str = "Yes.") -> Sample:
    return Sample(
        form="chat",
        kind="qa",
        messages=(Message(role="user", content="Is it?"), Message(role="assistant", content=answer, train=train)),
    )


def test_nothing_to_train_on_is_an_error_that_says_so(context: Make, config: Make, samples: Make) -> None:
    with pytest.raises(InputError, match="no sample to train on"):
        list(run(config(), [_chat(False)], context()))
    with pytest.raises(InputError, match="no sample to train on"):
        list(run(config(), [s.marked(split="test") for s in samples(3)], context()))
    with pytest.raises(InputError, match="no sample is marked for validation"):
        list(run(config(eval_every=2), samples(3), context()))
    with pytest.raises(InputError, match=r"marked for validation can be used: longer than the context \(1\)"):
        held = _chat(True, answer="far " * 200).marked(split="validation")
        list(run(config(eval_every=2), [*samples(3), held], context()))
    with pytest.raises(ConfigError, match="the model reads 256"):
        list(run(config(context=512), samples(3), context()))


def test_what_cannot_be_trained_on_is_dropped_with_its_reason(context: Make, config: Make, samples: Make) -> None:
    long_text = Sample(form="text", kind="passage", text="Orvale lies by the river. " * 60)
    result = list(run(config(steps=1), [_chat(False), _chat(True, answer="far " * 200), long_text], context()))
    reasons = [r.reason for r in result if isinstance(r, Dropped)]
    assert reasons == ["nothing to train on", "longer than the context"]


def test_what_the_template_refuses_is_dropped_with_its_words(
    context: Make, config: Make, samples: Make, tmp_path: Path, model_folder: Path
) -> None:
    settings = json.loads((model_folder / "tokenizer_config.json").read_bytes())
    refusal = "{% for m in messages if m.role == 'tool' %}{{ raise_exception('no tools here') }}{% endfor %}"
    (tmp_path / "strict.jinja").write_text(refusal + settings["chat_template"])
    strict = config(steps=1, chat_template="strict.jinja")
    tool = Sample(form="chat", kind="qa", messages=(*_chat(True).messages[:1], Message(role="tool", content="x")))
    outside = Sample(form="text", kind="passage", text="Orvale.", train=((0, 99),))
    ctx = context()
    ctx.base = tmp_path
    result = list(run(strict, [*samples(3), tool, outside], ctx))
    reasons = [r.reason for r in result if isinstance(r, Dropped)]
    assert reasons == [
        "the model's chat template refuses a conversation: no tools here",
        "a train span lies outside its text",
    ]
    with pytest.raises(InputError, match=r"no sample to train on: .*no tools here \(1\)"):
        list(run(strict, [tool], ctx))


def gpt2_folder(folder: Path, model_folder: Path) -> Path:
    """A tiny GPT-2: its config calls the context n_positions, and its layers lie the other way round."""
    from transformers import GPT2Config, GPT2LMHeadModel

    settings = GPT2Config(vocab_size=400, n_positions=128, n_embd=32, n_layer=1, n_head=2, eos_token_id=2)
    GPT2LMHeadModel(settings).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((model_folder / name).read_bytes())
    return folder


@pytest.mark.parametrize("lora", [None, {"r": 4, "alpha": 8}, {"r": 4, "alpha": 8, "targets": ["c_attn"]}])
def test_a_gpt2_folder_is_trained(
    context: Make, config: Make, samples: Make, tmp_path: Path, model_folder: Path, lora: Any
) -> None:
    ctx = context()
    ctx.model = gpt2_folder(tmp_path / "gpt2", model_folder)
    asking = {"sample_every": 4, "sample_prompts": ["When?"]}
    made = checkpoint_of(list(run(config(lora=lora, steps=4, learning_rate=0.01, **asking), samples(4), ctx)))
    assert made.step == 4
    assert ctx.losses[-1] < ctx.losses[0]
    with pytest.raises(ConfigError, match="the model reads 128"):
        list(run(config(lora=lora, context=256), samples(4), ctx))


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": 1}, {"steps": None, "tokens": 5, "epochs": 1}, {"patience": 2}, {"betas": (0.9, 1.0)}, {"seconds": 5}],
)
def test_settings_that_do_not_fit_are_refused(wrong: Any, config: Make) -> None:
    with pytest.raises(ValueError):
        config(**wrong)


def test_a_seed_of_its_own_stands_for_the_recipes(context: Make, config: Make, samples: Make) -> None:
    def weights(name: str, *, recipe: int, own: int | None) -> dict[str, bytes]:
        ctx = context(name, seed=recipe)
        list(run(config(steps=3, seed=own), samples(6), ctx))
        return {file: data for file, data in final_bytes(ctx.folder).items() if file.endswith(".safetensors")}

    assert weights("a", recipe=7, own=3) == weights("b", recipe=3, own=None) != weights("c", recipe=7, own=None)
