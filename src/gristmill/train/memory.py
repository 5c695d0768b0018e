"""What a training will need of memory, said before its weights are loaded: it fits, or it does not begin.

The model's config (or its GGUF header) is enough to build it without storage and to count. In bytes, for P parameters
of which T are trained, products in c bytes (2 in bf16, 4 in fp32), in every layer:

    activations   a token: c · (what goes into and out of each matrix) + 8 · width of each norm (fp32, before and after)
                  + 16 · width of the heads (queries, keys, values and result in fp32); of a mixture's experts, those
                  that a token is sent to. With checkpointing: what goes into each layer, and one layer's activations
    casts         2 · P, where fp32 weights are multiplied in bf16
    weights       P · 4 (fp32), P · 2 (a frozen bf16 base), about P / 2 (NF4); adapters T · 4
    gradients     T · 4
    optimizer     T · 8 (two fp32 moments), T · 2.1 (8 bits and their scales)
    head          one chunk of logits and what is made of it, CHUNK · vocabulary · (c + 8), and errors of the same or,
                  where the head is trained, of SPAN positions in c bytes; then its gradient too, twice in fp32 and once
                  in c bytes; and its copy in bf16
    writing       after the last step, the merged weights in fp32, P · 4, on the host

A pass reads `forward` tokens, or one row: the context, or both sequences of a pair, each as long as that.

With one forward pass a step, gradients grow as activations go: the larger of the two counts, not their sum. fsdp
divides weights, gradients and state by the processes, and holds the largest layer and the embeddings whole. `SPARE` and
`BESIDE` are for what the allocator keeps and kernels need in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import orjson

from gristmill.core.errors import ConfigError
from gristmill.core.files import atomic
from gristmill.models import architecture
from gristmill.models.gguf_file import read_gguf
from gristmill.models.lora import attach
from gristmill.models.weights import Weights
from gristmill.train.config import TrainConfig

if TYPE_CHECKING:
    import torch

SPARE, BESIDE = 1.15, 150_000_000
COMPOSED = ("gelu_new", "gelu_fast", "quick_gelu", "gelu_python")
"""Activation functions that transformers composes of elementary ones, each of which keeps what it read."""
ON_HOST, ON_DEVICE = 1024, 16384
"""Tokens of one forward pass where memory leaves the choice. On a CPU 1024 is 8 % faster than 512, and more is no
faster."""


@dataclass(frozen=True)
class Sizes:
    """What a model comes to, from its config alone."""

    parameters: int
    frozen: int  # bytes of what is not trained
    trained: int  # parameters that are, all fp32
    fixed: int  # bytes that a forward pass keeps whatever it reads
    per_token: int  # bytes that it keeps of each token
    layers: int
    hidden: int
    vocabulary: int
    head_trained: bool
    largest_layer: int  # parameters

    @cached_property
    def head(self) -> int:
        """Embeddings, or a head of their size."""
        return self.hidden * self.vocabulary


@dataclass(frozen=True)
class Plan:
    """Where a training runs, in passes of how many tokens, and what it will need there, in bytes."""

    device: Literal["cpu", "cuda"]
    forward: int
    checkpointing: bool
    parameters: int
    trained: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    head: int
    peak: int  # on the device, by all its processes
    writing: int  # on the host, after the last step
    available: int  # on the device
    host: int  # available there

    @property
    def fits(self) -> bool:
        return self.peak <= self.available and self.writing <= self.host

    def settled(self) -> dict[str, Any]:
        """The settings that it chose, under the config's names."""
        checkpointing = "on" if self.checkpointing else "off"
        return {"device": self.device, "forward": self.forward, "checkpointing": checkpointing}

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        parts = {name: getattr(self, name) for name in ("weights", "gradients", "optimizer", "activations", "head")}
        return ", ".join(f"{name} {size / 1e9:.2g} GB" for name, size in parts.items())


def plan_memory(config: TrainConfig, weights: Weights, *, labels: int = 0, kept: Path | None = None) -> Plan:
    """The plan of a training, or a ConfigError that says what would fit. `labels` of a score head, 0 for tokens.

    It is written to `kept`, and what an earlier attempt chose there is chosen again if it still fits: in passes of
    another size a training would go on with other last bits.
    """
    device = device_of(config)
    host = host_memory()
    free = _device_memory() if device == "cuda" else host
    sizes = measure(config, weights, labels=labels)
    plan = choose(_as_before(config, kept), sizes, device=device, available=free, host=host)
    plan = plan or choose(config, sizes, device=device, available=free, host=host)
    if plan is not None:
        if kept is not None:
            with atomic(kept) as file:
                file.write(orjson.dumps(plan.as_dict(), option=orjson.OPT_INDENT_2))
        return plan
    need = _plan(config, sizes, device, config.row, config.checkpointing != "off", free, host)
    kind = "the device's memory" if device == "cuda" else "memory"
    most, have = need.peak, free
    if need.peak <= free:
        most, have, kind = need.writing, host, "memory to write the merged weights"
    raise ConfigError(
        f"the training does not fit: it needs about {most / 1e9:.1f} GB of {kind}, and {have / 1e9:.1f} GB are free "
        f"({need})",
        _advice(config, weights, labels, device, free, host),
    )


def _as_before(config: TrainConfig, kept: Path | None) -> TrainConfig:
    if kept is None or not kept.is_file():
        return config
    plan = Plan(**orjson.loads(kept.read_bytes()))
    chosen = plan.settled()
    free = {"forward": config.forward is None, "checkpointing": config.checkpointing == "auto"}
    return config.model_copy(update={name: chosen[name] for name, ours in free.items() if ours})


def device_of(config: TrainConfig) -> Literal["cpu", "cuda"]:
    """Where to train. `cuda` where there is none is an error, `auto` takes it where there is one."""
    import torch

    there = torch.cuda.is_available()
    if config.device == "cuda" and not there:
        raise ConfigError("device is cuda, and torch sees no CUDA device", "Set device: auto, or cpu.")
    return "cuda" if there and config.device != "cpu" else "cpu"


def choose(
    config: TrainConfig, sizes: Sizes, *, device: Literal["cpu", "cuda"], available: int, host: int
) -> Plan | None:
    """The largest forward pass that fits, without recomputing activations if that can be; None if nothing does."""
    most = config.forward or min(ON_DEVICE if device == "cuda" else ON_HOST, max(config.batch, config.row))
    least = config.forward or config.row
    for checkpointing in {"auto": (False, True), "on": (True,), "off": (False,)}[config.checkpointing]:
        forward = max(most, least)
        while True:
            plan = _plan(config, sizes, device, forward, checkpointing, available, host)
            if plan.fits:
                return plan
            if forward == least:
                break
            forward = max(least, forward // 2)
    return None


def _plan(
    config: TrainConfig,
    sizes: Sizes,
    device: Literal["cpu", "cuda"],
    forward: int,
    checkpointing: bool,
    available: int,
    host: int,
) -> Plan:
    read = max(forward, config.row)
    activations = sizes.fixed + read * sizes.per_token
    if checkpointing:
        kept = sizes.layers * sizes.hidden * read * 4
        activations = kept + activations // max(1, sizes.layers)
    gradients = sizes.trained * 4
    optimizer = int(sizes.trained * (8 if config.optimizer == "adamw" else 2.1))
    resident = sizes.frozen + sizes.trained * 4
    head = _head(sizes, read, half=config.dtype == "bf16")
    shards = config.processes if config.strategy == "fsdp" else 1
    gathered = (sizes.largest_layer * 2 + sizes.head) * 4 if shards > 1 else 0
    single = read >= max(1, config.batch // config.context) * config.row
    passing = max(activations + head, gradients // shards) if single else activations + head + gradients // shards
    alone = (resident + optimizer) // shards + gathered + passing
    together = config.processes if device == "cpu" else 1
    loading = 2 * (sizes.frozen + sizes.trained * 4) * together
    writing = sizes.parameters * 4 + (resident + optimizer if device == "cpu" else 0)
    return Plan(
        device=device,
        forward=forward,
        checkpointing=checkpointing,
        parameters=sizes.parameters,
        trained=sizes.trained,
        weights=resident // shards,
        gradients=gradients // shards,
        optimizer=optimizer // shards,
        activations=activations,
        head=head,
        peak=int(SPARE * max(alone * together, loading if device == "cpu" else 0)) + together * BESIDE,
        writing=int(SPARE * writing) + BESIDE,
        available=available,
        host=host,
    )


def _head(sizes: Sizes, read: int, *, half: bool) -> int:
    from gristmill.train.loss import CHUNK, SPAN

    product = 2 if half else 4
    errors = SPAN if sizes.head_trained else CHUNK
    chunk = (min(CHUNK, read) * (product + 8) + min(errors, read) * product) * sizes.vocabulary
    trained = sizes.head * (product + 8) if sizes.head_trained else 0
    copy = sizes.head * 2 if half and sizes.head_trained else 0
    return chunk + trained + copy + read * sizes.hidden * 10


def _advice(config: TrainConfig, weights: Weights, labels: int, device: Any, free: int, host: int) -> str:
    """Changes of which each alone would make it fit."""
    changes: dict[str, dict[str, Any]] = {
        f"context: {config.context // n}": {"context": config.context // n} for n in (2, 4)
    }
    changes |= {f"forward: {config.row}": {"forward": config.row}} if config.forward else {}
    changes |= {"checkpointing: auto": {"checkpointing": "auto"}} if config.checkpointing == "off" else {}
    changes |= {"lora: {}": {"lora": type(config).model_fields["lora"].default}} if config.lora is None else {}
    changes |= {"optimizer: adamw_8bit": {"optimizer": "adamw_8bit"}} if config.lora is None else {}
    if config.lora is not None and getattr(config.lora, "base", "") == "bf16":
        changes |= {"lora.base: nf4": {"lora": config.lora.model_copy(update={"base": "nf4"})}}
    fit = []
    for said, change in changes.items():
        other = config.model_copy(update=change)
        sizes = measure(other, weights, labels=labels)
        if other.context >= 8 and choose(other, sizes, device=device, available=free, host=host):
            fit.append(said)
    return f"Any of these would fit: {'; '.join(fit)}." if fit else "Take a smaller model, or a larger machine."


def measure(config: TrainConfig, weights: Weights, *, labels: int = 0) -> Sizes:
    """Build the model of `weights` without storage, adapters and all, and count."""
    import torch

    base = torch.bfloat16 if config.lora is not None and config.dtype == "bf16" else torch.float32
    with torch.device("meta"), _still():
        model = _skeleton(weights, labels=labels, dtype=base)
        plain = sum(p.numel() for p in model.parameters())
        per_token = _per_token(model, config)
        adapted: Any = attach(model, config.lora) if config.lora is not None else model
    text = model.config.get_text_config()
    layers = [m for m in model.modules() if type(m).__name__ in (model._no_split_modules or ())]
    cast = config.lora is None and config.dtype == "bf16"
    return Sizes(
        parameters=plain,
        frozen=sum(_stored(name, p, config) for name, p in adapted.named_parameters() if not p.requires_grad),
        trained=sum(p.numel() for p in adapted.parameters() if p.requires_grad),
        fixed=2 * (plain - text.hidden_size * text.vocab_size) if cast else 0,
        per_token=per_token,
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        vocabulary=labels or text.vocab_size,
        head_trained=config.lora is None and model.get_output_embeddings() is not None,
        largest_layer=max((sum(p.numel() for p in m.parameters()) for m in layers), default=plain),
    )


def _per_token(model: Any, config: TrainConfig) -> int:
    """Bytes that a forward pass keeps of each token: the formula at the head of this file."""
    text = model.config.get_text_config()
    head = model.get_output_embeddings()
    heads = getattr(text, "num_attention_heads", 1)
    width = heads * (getattr(text, "head_dim", None) or text.hidden_size // heads)
    chosen = getattr(text, "num_experts_per_tok", None) or 1
    through = normed = 0
    for module in model.modules():
        own = [p for p in module.parameters(recurse=False) if p.ndim > 1]
        if module is head or hasattr(module, "num_embeddings"):
            continue
        through += sum(sum(p.shape[-2:]) * (chosen if p.ndim == 3 else 1) for p in own)
        if "norm" in type(module).__name__.lower() and not own:
            normed += max(text.hidden_size, *(p.numel() for p in module.parameters(recurse=False)), 0)
    act = str(getattr(text, "hidden_act", None) or getattr(text, "activation_function", ""))
    inner = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    composed = 24 * inner if act in COMPOSED else 0
    return (
        through * (2 if config.dtype == "bf16" else 4) + 8 * normed + text.num_hidden_layers * (16 * width + composed)
    )


def _skeleton(weights: Weights, *, labels: int, dtype: torch.dtype) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    if weights.form == "gguf":
        config = AutoConfig.for_model(**architecture.hf_config(read_gguf(weights.path)))
    else:
        config = AutoConfig.from_pretrained(weights.path, local_files_only=True, trust_remote_code=False)
    if labels:
        config.num_labels = labels
    maker: Any = AutoModelForSequenceClassification if labels else AutoModelForCausalLM
    return maker.from_config(config, dtype=dtype)


def _stored(name: str, parameter: torch.nn.Parameter, config: TrainConfig) -> int:
    """Bytes of a frozen weight. NF4: half a byte, and a scale in 8 bits for each 64 (QLoRA, section 3)."""
    quantised = (
        config.lora is not None
        and getattr(config.lora, "base", "") == "nf4"
        and parameter.ndim == 2
        and "base_layer" in name
    )
    return int(parameter.numel() * (0.5 + 1 / 64)) if quantised else parameter.nbytes


@contextmanager
def _still() -> Iterator[None]:
    """Building a model draws numbers; whoever asked for a plan must not see a difference."""
    import torch

    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)


def _device_memory() -> int:
    import torch

    return int(torch.cuda.mem_get_info()[0])


def host_memory(root: Path = Path("/")) -> int:
    """Bytes that this process may still take: what the machine has left, or its control group if that is less."""
    import psutil

    return min([psutil.virtual_memory().available, *_group_limits(root)])


def _group_limits(root: Path) -> Iterator[int]:
    """What each control group above this process leaves (version 2, or the memory controller of version 1). Cached
    files count as free: the kernel gives them back."""
    for line in (root / "proc/self/cgroup").read_text().splitlines() if (root / "proc/self/cgroup").exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top = root / "sys/fs/cgroup" / controllers
        names = ("memory.max", "memory.current", "inactive_file")
        if controllers:
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(top):
                break
            if (limit := _left(folder, *names)) is not None:
                yield limit


def _left(folder: Path, most: str, used: str, cached: str) -> int | None:
    try:
        limit = (folder / most).read_text().strip()
        taken = int((folder / used).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except OSError:
        return None
    return None if limit == "max" else int(limit) - taken + int(stat.get(cached, 0))
