"""What `train` offers a recipe. Import-light: torch is imported when a stage runs, not when it is checked."""

from __future__ import annotations

from math import ceil
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gristmill.core.records import Checkpoint, Sample
from gristmill.core.stage import PACE, Role, Stage, StageConfig
from gristmill.core.stage import STAGES as Stages
from gristmill.models.lora import LoraConfig

DEFAULT_EPOCHS = 4.0
LORA_RATE, FULL_RATE = 2e-3, 2e-4
"""Learning rates that taught a 135M model: measured with rank 32 on all linear layers, and with all weights."""


class Lora(LoraConfig):
    """Low-rank adapters beside frozen weights, of the size that taught a 135M model 100 facts in 50k tokens."""

    r: int = Field(32, ge=1, le=1024, description="Rank of each adapter")
    alpha: int = Field(64, gt=0, description="What the adapter adds is scaled by alpha / r")


class SftConfig(StageConfig):
    """Supervised fine-tuning on text and chat samples. The budget is epochs, steps or tokens, never time."""

    kind: Literal["train.sft"]
    model: Role = Field(description="The model to train: a role whose weights are at hand")
    lora: Lora | None = Field(Lora(), description="Adapters to train; null trains all weights")
    dtype: Literal["bf16", "fp32"] = Field("bf16", description="What is multiplied; sums and trained weights stay fp32")
    context: int = Field(512, ge=8, description="Tokens of one packed row, and the longest sample")
    batch: int = Field(1024, ge=1, description="Tokens of one optimiser step, in whole rows: at least one")

    epochs: float | None = Field(
        None, gt=0, description=f"Budget: times over the samples ({DEFAULT_EPOCHS:g} if none is given)"
    )
    steps: int | None = Field(None, ge=1, description="Budget: optimiser steps")
    tokens: int | None = Field(
        None, ge=1, description="Budget: tokens trained on; the step that reaches it is the last"
    )

    learning_rate: float | None = Field(
        None,
        gt=0,
        description=f"Peak learning rate; {LORA_RATE:g} with adapters and {FULL_RATE:g} without, if not given",
    )
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="How the rate falls after the warm-up"
    )
    warmup_steps: int = Field(10, ge=0, description="Steps over which the rate rises to its peak")
    final_rate: float = Field(0.1, ge=0, le=1, description="Share of the peak rate left at the last step")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay, on matrices alone")
    betas: tuple[float, float] = Field((0.9, 0.98), description="AdamW's betas")
    clip: float = Field(1.0, gt=0, description="Largest norm of the gradient")

    eval_every: int | None = Field(None, ge=1, description="Steps between two losses on the validation samples")
    patience: int | None = Field(
        None, ge=1, description="Stop after so many evaluations without a better loss, and keep the best weights"
    )
    save_every: Annotated[int, PACE] = Field(50, ge=1, description="Steps between two checkpoints to go on from")
    keep: Annotated[int, PACE] = Field(2, ge=1, description="Checkpoints to keep while training (the best one besides)")
    threads: int | None = Field(None, ge=1, description="CPU threads; every core that may be used, if not given")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        given = [name for name in ("epochs", "steps", "tokens") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give one budget, not {len(given)}: {', '.join(given)}")
        if self.patience is not None and self.eval_every is None:
            raise ValueError("patience counts evaluations: set eval_every too")
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
    def rate(self) -> float:
        return self.learning_rate or (LORA_RATE if self.lora else FULL_RATE)


STAGES: Stages = {
    "train.sft": (
        Stage(
            code="gristmill.train.sft:run",
            config=SftConfig,
            takes=(Sample,),
            gives=(Checkpoint,),
            shape="pass",
            artifacts=True,
            extras=("train",),
            libraries=("torch", "transformers", "peft"),
        ),
    ),
}
