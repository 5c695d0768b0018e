"""TRL's SFTTrainer at its best: packing bfd, no gradient checkpointing, bf16; Liger's kernels where they install.

Forms of LoRA: `bf16`, frozen weights rounded; `autocast`, fp32 weights rounded in each pass. Adapters are fp32 in both.
"""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, TrainerCallback
from trl import SFTConfig, SFTTrainer

from bench.train_peers.work import ALPHA, CLIP, CONTEXT, RANK, RATE, Job, Meter


class _Counts(SFTTrainer):
    """Counts the tokens that a step really reads."""

    tokens = 0

    def training_step(self, model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
        kept = inputs.get("attention_mask")
        self.tokens += int(kept.sum()) if kept is not None else inputs["input_ids"].numel()
        return super().training_step(model, inputs, *rest, **more)  # type: ignore[no-untyped-call]


class _Times(TrainerCallback):
    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.trainer: Any = None

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.meter.begin()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.meter.stepped(self.trainer.tokens, 0.0)
        self.trainer.tokens = 0


def tokenizer() -> Any:
    """Never used on a text: the samples are tokens already."""
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    plain = Tokenizer(models.WordLevel({name: at for at, name in enumerate(names.values())}))
    made: Any = PreTrainedTokenizerFast
    return made(tokenizer_object=plain, **names)


def main() -> None:
    job = Job.read()
    rows = max(1, job.batch // CONTEXT)
    settings: dict[str, Any] = {"use_cpu": True} if job.device == "cpu" else {}
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder, packing=True, packing_strategy="bfd", max_length=CONTEXT, bf16=True,
            gradient_checkpointing=False, per_device_train_batch_size=rows, gradient_accumulation_steps=1,
            max_steps=job.steps + 1, learning_rate=RATE, lr_scheduler_type="constant", max_grad_norm=CLIP,
            optim="adamw_torch_fused", weight_decay=0.0, logging_strategy="no", save_strategy="no", report_to=[],
            dataloader_num_workers=0, disable_tqdm=True, seed=0,
            train_sampling_strategy="sequential",
            use_liger_kernel=job.device == "cuda" and find_spec("liger_kernel") is not None, **settings,
        )  # fmt: skip
        adapters = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
        model = job.model(torch.bfloat16 if job.form == "bf16" else torch.float32)
        meter = Meter(job)
        times = _Times(meter)
        trainer: Any = _Counts(
            model=model, args=config, train_dataset=Dataset.from_dict({"input_ids": job.samples()}),
            processing_class=tokenizer(), peft_config=adapters if job.lora else None, callbacks=[times],
        )  # fmt: skip
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        times.trainer = trainer
        trainer.train()
    meter.tell(trained=["torch.float32"], liger=config.use_liger_kernel)


main()
