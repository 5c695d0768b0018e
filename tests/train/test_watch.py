"""What a training tells while it goes on: every step once, in every file, whatever happened; and what it costs."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gristmill.core.errors import ConfigError
from gristmill.core.records import Sample
from gristmill.models.load import load_model
from gristmill.models.tokens import add_rows, renderer_of, train_rows
from gristmill.models.weights import locate
from gristmill.train.config import TrainConfig
from gristmill.train.packing import Example, Tokens, collate
from gristmill.train.run import run
from gristmill.train.work import Work, measured_peak

Make = Callable[..., Any]
QUESTION = "When was the mill of Orvale built?"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def split(samples: list[Sample]) -> list[Sample]:
    """Every fifth one for validation."""
    return [s.marked(split="train" if i % 5 else "validation") for i, s in enumerate(samples)]


def test_every_step_has_a_row_in_both_files(context: Make, config: Make, samples: Make) -> None:
    ctx = context()
    list(run(config(steps=4, eval_every=2), split(samples()), ctx))
    rows = lines(ctx.folder / "metrics.ndjson")
    steps = [row for row in rows if "loss" in row]
    assert [row["step"] for row in steps] == [1, 2, 3, 4]
    assert [row["step"] for row in rows if "eval_loss" in row] == [2, 4]
    assert [row["loss"] for row in steps] == ctx.losses
    for row in steps:
        assert row["tokens_per_second"] > 0 and row["seconds"] > 0 and row["grad_norm"] > 0 and row["lr"] > 0
        assert 0 < row["mfu"] < 1.5 and row["memory"] > 50 and row["cpu_percent"] >= 0
        assert 0 < row["supervised"] < row["tokens"]
    with (ctx.folder / "metrics.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [{k: float(v) for k, v in row.items() if v} for row in table] == rows
    machine = json.loads((ctx.folder / "machine.json").read_text())
    assert machine["peak_tflops"] > 0 and machine["threads"] == 1 and machine["dtype"] == "bf16" and machine["packed"]


def test_no_step_is_there_twice_or_missing_after_a_crash(context: Make, config: Make, samples: Make) -> None:
    def crash(values: dict[str, Any]) -> None:
        if values.get("step") == 5:
            raise KeyboardInterrupt

    settings = config(steps=8, eval_every=2, save_every=3, sample_every=3, sample_prompts=[QUESTION])
    data = split(samples())
    hurt = context(on_metric=crash)
    with pytest.raises(KeyboardInterrupt):
        list(run(settings, data, hurt))
    told = hurt.folder / "metrics.ndjson"
    assert [row["step"] for row in lines(told) if "loss" in row] == [1, 2, 3, 4, 5]
    with told.open("a") as file:
        file.write('{"step": 6, "lo')  # what a kill may leave
    again = context()
    list(run(settings, data, again))
    whole = context("whole")
    list(run(settings, data, whole))
    same = ("step", "loss", "eval_loss", "lr", "tokens", "grad_norm")
    for one, other in zip(lines(told), lines(whole.folder / "metrics.ndjson"), strict=True):
        assert {k: one.get(k) for k in same} == {k: other.get(k) for k in same}
    tables = [(ctx.folder / "metrics.csv").read_text().splitlines() for ctx in (again, whole)]
    assert len(tables[0]) == len(tables[1]) == 1 + len(lines(told))
    answers = [(ctx.folder / "samples.ndjson").read_text() for ctx in (again, whole)]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("lora", [None, {"r": 4, "alpha": 8, "dropout": 0.2}])
def test_looking_at_answers_changes_no_bit(
    context: Make, config: Make, samples: Make, lora: dict[str, Any] | None
) -> None:
    plain, asked = context("plain"), context("asked")
    data = samples()
    list(run(config(steps=4, lora=lora), data, plain))
    list(run(config(steps=4, lora=lora, sample_every=2, sample_prompts=[QUESTION, "And the well?"]), data, asked))
    assert plain.losses == asked.losses
    weights = [(ctx.folder / "final" / "model.safetensors").read_bytes() for ctx in (plain, asked)]
    assert weights[0] == weights[1]
    seen = lines(asked.folder / "samples.ndjson")
    assert [(s["step"], s["prompt"]) for s in seen] == [(n, q) for n in (2, 4) for q in (QUESTION, "And the well?")]
    assert not (plain.folder / "samples.ndjson").exists()


def test_an_answer_is_that_of_the_model_of_its_step(context: Make, config: Make, samples: Make) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ctx = context()
    settings = {"lora": None, "dtype": "fp32", "learning_rate": 1e-2, "sample_every": 12}
    list(run(config(steps=12, sample_prompts=[QUESTION], **settings), samples(), ctx))
    [said] = lines(ctx.folder / "samples.ndjson")
    model = AutoModelForCausalLM.from_pretrained(ctx.folder / "final")
    tokenizer = AutoTokenizer.from_pretrained(ctx.folder / "final")
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    ids = asked["input_ids"]
    for _ in range(128):  # by hand: the whole text anew for every token, no cache
        token = model(ids).logits[0, -1].argmax()
        ids = torch.cat([ids, token.reshape(1, 1)], dim=1)
        if int(token) == tokenizer.eos_token_id:
            break
    theirs = tokenizer.decode(ids[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)
    assert said["text"] == theirs and said["text"]
    assert said["finished"] == (int(ids[0, -1]) == tokenizer.eos_token_id)


def test_a_score_head_is_not_asked(context: Make, config: Make) -> None:
    """Our kinds say so in their settings; another package's objective is found out when the training begins."""
    from gristmill.train.stages import STAGES

    labelled = [Sample(form="labelled", kind="class", text=f"Text {n}", label="ab"[n % 2]) for n in range(8)]
    plain = {**config(steps=2).model_dump(exclude={"lora"}), "kind": "train.classify"}
    settings = STAGES["train.classify"][0].config.model_validate(plain)
    asking = settings.model_copy(update={"sample_every": 1, "sample_prompts": ["x"]})
    with pytest.raises(ConfigError, match="answers nothing"):
        list(run(asking, labelled, context()))


def test_a_model_without_a_template_goes_on_with_a_text_of_some_tokens(
    context: Make, config: Make, samples: Make, tmp_path: Path, model_folder: Path
) -> None:
    settings = json.loads((model_folder / "tokenizer_config.json").read_bytes())
    shutil.copytree(model_folder, tmp_path / "base")
    (tmp_path / "base" / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": None}))
    ctx, texts = context(), samples(0, texts=4)
    ctx.model = tmp_path / "base"
    for prompt in ("", "Orvale " * 300):
        with pytest.raises(ConfigError, match="a prompt of sample_prompts has"):
            list(run(config(steps=1, sample_every=1, sample_prompts=[prompt]), texts, ctx))
    list(run(config(steps=1, sample_every=1, sample_prompts=["Orvale"]), texts, ctx))
    assert [row["prompt"] for row in lines(ctx.folder / "samples.ndjson")] == ["Orvale"]


def test_sharded_weights_are_not_asked() -> None:
    plain = {"kind": "train.sft", "model": "student", "processes": 2, "strategy": "fsdp"}
    with pytest.raises(ValueError, match="sample_every needs"):
        TrainConfig.model_validate({**plain, "sample_every": 5, "sample_prompts": ["x"]})


def test_the_work_of_a_step_is_what_torch_counts(model_folder: Path) -> None:
    """Torch counts every product of the backward pass; of attention it counts both halves, of which one is needed."""
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_folder, attn_implementation="eager", dtype=torch.float32)
    n = 60
    ids = torch.arange(n)[None] + 5
    with FlopCounterMode(display=False) as counter:
        logits = model(ids).logits[0, :-1]
        torch.nn.functional.cross_entropy(logits, ids[0, 1:]).backward()
    part = collate([Example((Tokens(ids[0].numpy(), torch.ones(n, dtype=torch.bool).numpy()),))])
    work = Work.of(model)
    halves = work.pair * n * n / 2
    assert work.of_parts([part]) + halves == pytest.approx(counter.get_total_flops(), rel=0.01)
    for p in model.parameters():
        p.requires_grad_(False)
    frozen = Work.of(model)
    assert frozen.token == pytest.approx(work.token * 4 / 6) and frozen.pair == work.pair
    short = [collate([Example((Tokens(ids[0, :20].numpy(), part.ids[:20] > 0),)) for _ in range(3)])]
    assert work.of_parts(short) < work.of_parts([part])  # the same tokens, fewer pairs


def test_new_rows_work_with_the_head_alone(model_folder: Path) -> None:
    """They are read of a table and asked of the head; other layers do no more than before."""
    weights = locate(str(model_folder), base=Path("/"))
    model: Any = load_model(weights, dtype="float32")
    model.requires_grad_(False)
    before = Work.of(model)
    add_rows(model, renderer_of(weights, new_tokens=["<|note|>", "zyxwv"]), seed=1, apart=True)
    train_rows(model)
    work = Work.of(model)
    assert (work.token, work.asked) == (before.token, before.asked + 6 * 2 * model.config.hidden_size)


def test_the_peak_is_measured_once_and_draws_no_number() -> None:
    before = torch.get_rng_state()
    first = measured_peak(torch.device("cpu"), torch.float32, 1)
    assert first > 1e8 and measured_peak(torch.device("cpu"), torch.float32, 1) == first
    assert torch.equal(before, torch.get_rng_state())
