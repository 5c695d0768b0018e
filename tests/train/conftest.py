"""A tiny random Llama with a real tokenizer and a ChatML template, samples about an invented world, and a pass
context that keeps what it was told. `one_run.py` uses the same parts in a process of its own."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gristmill.core.records import Message, Sample
from gristmill.models.weights import locate
from gristmill.train.config import TrainConfig
from gristmill.train.stages import STAGES

TEMPLATE = (
    "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PLACES = ["Orvale", "Tessmoor", "Kilbrack", "Undrey", "Vashti", "Pellow", "Garrick Reach", "Ninefold"]
THINGS = ["the mill", "the bridge", "the tower", "the ferry", "the market", "the well"]


def make_samples(count: int = 24, *, texts: int = 6, seed: int = 3) -> list[Sample]:
    """Chats with one short answer each, and some texts, of many lengths."""
    rng = random.Random(seed)
    out = []
    for _ in range(count):
        place, thing, year = rng.choice(PLACES), rng.choice(THINGS), rng.randint(1200, 1900)
        question = Message(
            role="user", content=f"When was {thing} of {place} built?" + " Please say." * rng.randint(0, 4)
        )
        answer = Message(role="assistant", content=f"In {year}, by the people of {place}.", train=True)
        out.append(Sample(form="chat", kind="qa", messages=(question, answer)))
    for _ in range(texts):
        place, n = rng.choice(PLACES), rng.randint(1, 8)
        out.append(Sample(form="text", kind="passage", text=f"{place} lies by the river. " * n + str(rng.random())))
    return out


def make_taught(kind: str, count: int = 12, *, seed: int = 5) -> list[Sample]:
    """Samples of the form that a kind of training learns from."""
    rng = random.Random(seed)
    if kind == "train.sft":
        return make_samples(count, texts=count // 4, seed=seed)
    out = []
    for at in range(count):
        place, thing, year = rng.choice(PLACES), rng.choice(THINGS), rng.randint(1200, 1900)
        asked = Message(role="user", content=f"When was {thing} of {place} built?" + " Please say." * rng.randint(0, 3))
        good = Message(role="assistant", content=f"In {year}, by the people of {place}.", train=True)
        bad = Message(role="assistant", content="Nobody knows. " * rng.randint(1, 4) + place, train=True)
        if kind in ("train.dpo", "train.reward"):
            out.append(Sample(form="preference", kind="qa", messages=(asked,), chosen=(good,), rejected=(bad,)))
        elif kind == "train.kto":
            answer = good if at % 3 else bad
            out.append(Sample(form="rating", kind="qa", messages=(asked, answer), desirable=bool(at % 3)))
        else:
            text = f"{place} has a {thing[4:]}. " * rng.randint(1, 4) + str(rng.random())
            out.append(Sample(form="labelled", kind="letter", text=text, label=("river", "hill", "coast")[at % 3]))
    return out


def make_model_folder(folder: Path) -> Path:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    corpus = [m.content for s in make_samples(80, texts=0) for m in s.messages] + [
        s.text for s in make_samples(0, texts=40)
    ]
    tokenizer.train_from_iterator([*corpus, "user assistant system\n"], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"chat_template": TEMPLATE, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 256}
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, **kind}))
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=400,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        eos_token_id=2,
        bos_token_id=1,
        pad_token_id=0,
        initializer_range=0.1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@dataclass
class PassOf:
    """The contract's pass context over one model folder. `stop_after` asks to stop once so many steps were reported."""

    folder: Path
    model: Path
    cache: Path
    stage: str = "tune"
    seed: int = 7
    stop_after: int | None = None
    metrics: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    on_metric: Callable[[dict[str, Any]], None] | None = None

    def weights(self, role: str) -> Any:
        assert role == "student"
        return locate(str(self.model), base=Path("/"))

    def stopping(self) -> bool:
        return self.stop_after is not None and len(self.losses) >= self.stop_after

    def progress(self, done: float, total: float, **values: float | str) -> None:
        assert 0 <= done <= total

    def count(self, **amounts: float) -> None:
        pass

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def metric(self, **values: Any) -> None:
        self.metrics.append(values)
        if self.on_metric:
            self.on_metric(values)

    @property
    def losses(self) -> list[float]:
        return [m["loss"] for m in self.metrics if "loss" in m]


def config_of(**changes: Any) -> TrainConfig:
    """Settings of a short training; `kind` is train.sft if not given."""
    plain: dict[str, Any] = {
        "kind": "train.sft",
        "model": "student",
        "context": 128,
        "batch": 256,
        "steps": 8,
        "warmup_steps": 2,
        "threads": 1,
        "save_every": 3,
        "lora": {"r": 4, "alpha": 8},
    }
    whole = {**plain, **changes}
    made = STAGES[whole["kind"]][0].config.model_validate(whole)
    assert isinstance(made, TrainConfig)
    return made


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def pass_of() -> type[PassOf]:
    """For contexts that outlive a test."""
    return PassOf


@pytest.fixture
def context(tmp_path: Path, model_folder: Path) -> Callable[..., PassOf]:
    """Contexts over the tiny model; `name` tells their folders apart."""

    def make(name: str = "pass", **changes: Any) -> PassOf:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        return PassOf(folder, model_folder, tmp_path / "cache", **changes)

    return make


@pytest.fixture(scope="session")
def config() -> Callable[..., TrainConfig]:
    return config_of


@pytest.fixture(scope="session")
def samples() -> Callable[..., list[Sample]]:
    return make_samples


@pytest.fixture(scope="session")
def taught() -> Callable[..., list[Sample]]:
    return make_taught
