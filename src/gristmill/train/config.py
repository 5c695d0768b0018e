"""The settings that every training shares. Import-light: torch is imported when a stage runs, not when it is checked.

The budget is epochs, steps or tokens, never time: a slower machine trains longer, not less.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from gristmill.core.records import Sample
from gristmill.core.stage import PACE, InputPath, Role, StageConfig
from gristmill.models.lora import LoraConfig

DEFAULT_EPOCHS = 4.0
LORA_RATE, FULL_RATE = 2e-3, 2e-4
"""Learning rates that taught a 135M model: measured with rank 32 on all linear layers, and with all weights."""


def _switched(value: object) -> object:
    """YAML reads on and off as true and false."""
    return ("on" if value else "off") if isinstance(value, bool) else value


Switch = Annotated[Literal["auto", "on", "off"], BeforeValidator(_switched)]


class Lora(LoraConfig):
    """Low-rank adapters beside frozen weights, of the size that taught a 135M model 100 facts in 50k tokens."""

    r: int = Field(32, ge=1, le=1024, description="Rank of each adapter")
    alpha: int = Field(64, gt=0, description="What the adapter adds is scaled by alpha / r (rslora: alpha / √r)")


class TrainConfig(StageConfig):
    """What is trained, on how much, in which steps, and how it is watched and kept."""

    rates: ClassVar[tuple[float, float]] = (LORA_RATE, FULL_RATE)
    """Learning rates when none is given: with adapters, and with all weights."""
    sequences: ClassVar[int] = 1
    """How many an example holds, each as long as the context at most: two of a pair."""

    model: Role = Field(description="The model to train: a role whose weights are at hand")
    lora: Lora | None = Field(Lora(), description="Adapters to train; null trains all weights")
    dtype: Literal["bf16", "fp32"] = Field("bf16", description="What is multiplied; sums and trained weights stay fp32")
    device: Annotated[Literal["auto", "cpu", "cuda"], PACE] = Field(
        "auto", description="Where; auto takes a CUDA device if there is one"
    )
    new_tokens: list[str] = Field(default_factory=list, description="Tokens to add to the model's vocabulary")
    chat_template: InputPath | None = Field(None, description="A Jinja file in place of the model's template")

    seed: int | None = Field(
        None, ge=0, description="Of the order, of dropout and of new weights; the recipe's, if not given"
    )
    context: int = Field(512, ge=8, description="Tokens of one packed row, and the longest sequence")
    truncation: Literal["drop", "cut"] = Field(
        "drop", description="What happens to a conversation longer than the context; texts are always cut into pieces"
    )
    packing: bool = Field(True, description="Several examples to a row; false gives each a row of its own")
    batch: int = Field(
        1024, ge=1, description="Tokens of one optimiser step, in rows of `context` (packing: false: an example each)"
    )
    forward: Annotated[int | None, PACE] = Field(
        None, ge=1, description="Tokens of one forward pass; the memory plan's choice, if not given"
    )
    workers: Annotated[int, PACE] = Field(2, ge=1, le=64, description="Threads that turn samples into tokens")

    epochs: float | None = Field(
        None, gt=0, description=f"Budget: times over the samples ({DEFAULT_EPOCHS:g} if none is given)"
    )
    steps: int | None = Field(None, ge=1, description="Budget: optimiser steps")
    tokens: int | None = Field(None, ge=1, description="Budget: tokens read; the step that reaches it is the last")

    learning_rate: float | None = Field(
        None, gt=0, description="Peak learning rate; if not given, what suits the objective, with adapters or without"
    )
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="How the rate falls after the warm-up"
    )
    warmup_steps: int = Field(10, ge=0, description="Steps over which the rate rises to its peak")
    final_rate: float = Field(0.1, ge=0, le=1, description="Share of the peak rate left at the last step")
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"] = Field(
        "adamw", description="AdamW; its 8-bit forms need bitsandbytes, and paging CUDA"
    )
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay, on matrices alone")
    betas: tuple[float, float] = Field((0.9, 0.98), description="AdamW's betas")
    clip: float = Field(1.0, gt=0, description="Largest norm of the gradient")

    eval_every: int | None = Field(None, ge=1, description="Steps between two losses on the validation samples")
    patience: int | None = Field(
        None, ge=1, description="Stop after so many evaluations without a better loss, and keep the best weights"
    )
    sample_every: int | None = Field(None, ge=1, description="Steps between two looks at what the model would answer")
    sample_prompts: list[str] = Field(default_factory=list, description="What it is asked then, answered greedily")

    save_every: Annotated[int, PACE] = Field(50, ge=1, description="Steps between two checkpoints to go on from")
    keep: Annotated[int, PACE] = Field(2, ge=1, description="Newest checkpoints to keep while training")
    keep_best: int = Field(0, ge=0, description="Models with the best validation losses to keep, beside the final one")
    threads: Annotated[int | None, PACE] = Field(None, ge=1, description="CPU threads; every core, if not given")
    checkpointing: Annotated[Switch, PACE] = Field(
        "auto",
        description="Recompute activations, a fifth slower; auto: when memory needs it",
    )
    compile: Annotated[Switch, PACE] = Field(
        "auto", description="torch.compile each layer; auto: on CUDA, where it pays"
    )
    processes: Annotated[int, PACE] = Field(1, ge=1, description="Processes that share each step (torchrun)")
    strategy: Annotated[Literal["ddp", "fsdp"], PACE] = Field(
        "ddp", description="Each process holds the whole model (ddp) or a shard of it (fsdp)"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        given = [name for name in ("epochs", "steps", "tokens") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give one budget, not {len(given)}: {', '.join(given)}")
        if self.patience is not None and self.eval_every is None:
            raise ValueError("patience counts evaluations: set eval_every too")
        if self.keep_best and self.eval_every is None:
            raise ValueError("keep_best compares evaluations: set eval_every too")
        if (self.sample_every is None) != (not self.sample_prompts):
            raise ValueError("sample_every and sample_prompts go together: when to ask, and what")
        if self.sample_every and self.processes > 1 and self.strategy == "fsdp":
            raise ValueError("sample_every needs the whole model in one process: set strategy: ddp")
        nf4 = self.lora is not None and self.lora.base == "nf4"
        unshared = [f"optimizer {self.optimizer}"] * (self.optimizer != "adamw") + ["lora.base nf4"] * nf4
        unshared += ["new_tokens beside adapters"] * bool(self.lora and self.new_tokens)
        if self.processes > 1 and self.strategy == "fsdp" and unshared:
            raise ValueError(f"{' and '.join(unshared)} cannot be sharded: set strategy: ddp")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError("betas lie between 0 and 1")
        return self

    @property
    def epochs_or_default(self) -> float:
        return DEFAULT_EPOCHS if self.epochs is None else self.epochs

    def steps_for(self, tokens: float) -> int:
        """Optimiser steps that samples of so many tokens come to, if the rows are packed full: rows are, nearly."""
        if self.steps is not None:
            return self.steps
        step = max(1, self.batch // self.context) * self.context
        return max(1, ceil((self.tokens or tokens * self.epochs_or_default) / step))

    @property
    def row(self) -> int:
        """Tokens that a packed row may hold: the context, or a longest example."""
        return self.context * self.sequences

    @property
    def rate(self) -> float:
        return self.learning_rate or self.rates[0 if self.lora else 1]

    def settled(self, samples: Iterable[Sample]) -> Self:  # noqa: ARG002
        """These settings with what only the training samples can say (a classifier's classes)."""
        return self

    @property
    def best_needed(self) -> int:
        """Of how many of the best evaluations the checkpoint is kept: the best one is what patience goes back to."""
        return max(self.keep_best, 1 if self.patience else 0)

    def learned(self) -> dict[str, Any]:
        """The settings that decide what is learned: part of a training's identity."""
        return self.model_dump(mode="json", exclude={"needs", "after", *self.paces()})

    @classmethod
    def paces(cls) -> set[str]:
        """The settings marked `PACE`."""
        return {name for name, field in cls.model_fields.items() if PACE in field.metadata}
