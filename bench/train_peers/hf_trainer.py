"""transformers' Trainer as its examples have it: padded batches of whole samples, bf16 autocast."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainerCallback, TrainingArguments

from bench.train_peers.work import ALPHA, CLIP, CONTEXT, RANK, RATE, Job, Meter


class _Times(TrainerCallback):
    def __init__(self, meter: Meter, read: list[int]) -> None:
        self.meter, self.read = meter, read

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.meter.begin()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.meter.stepped(self.read.pop(0), 0.0)


def main() -> None:
    job = Job.read()
    read: list[int] = []

    def collate(samples: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        longest = max(len(s["input_ids"]) for s in samples)
        read.append(sum(len(s["input_ids"]) for s in samples))
        ids = torch.zeros(len(samples), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, sample in enumerate(samples):
            ids[row, : len(sample["input_ids"])] = torch.tensor(sample["input_ids"])
            mask[row, : len(sample["input_ids"])] = 1
        return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}

    settings: dict[str, Any] = {"use_cpu": True} if job.device == "cpu" else {}
    with tempfile.TemporaryDirectory() as folder:
        config = TrainingArguments(
            output_dir=folder, bf16=True, per_device_train_batch_size=5 * max(1, job.batch // CONTEXT),
            max_steps=job.steps + 1, learning_rate=RATE, lr_scheduler_type="constant", max_grad_norm=CLIP,
            optim="adamw_torch_fused", weight_decay=0.0, logging_strategy="no", save_strategy="no", report_to=[],
            dataloader_num_workers=0, disable_tqdm=True, remove_unused_columns=False, seed=0, **settings,
        )  # fmt: skip
        model = job.model(torch.float32)
        if job.lora:
            adapters = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
            model = get_peft_model(model, adapters)
        meter = Meter(job)
        data: Any = [{"input_ids": ids} for ids in job.samples()]
        Trainer(
            model=model, args=config, train_dataset=data, data_collator=collate, callbacks=[_Times(meter, read)]
        ).train()
    meter.tell(trained=["torch.float32"])


main()
