"""What every trainer is given, the same to the token, and how each step is measured."""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

CONTEXT, SEED, RATE, CLIP, RANK, ALPHA = 1024, 7, 1e-4, 1.0, 16, 32
SHAPES: dict[str, dict[str, Any]] = {
    "135M": {
        "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
    },
    "0.5B": {
        "model_type": "qwen2", "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864,
        "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "max_position_embeddings": 32768,
        "tie_word_embeddings": True,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """`batch`: tokens of one optimiser step. `steps`: measured ones; one before them is not counted."""

    trainer: str
    lora: bool
    form: str = ""  # what of several the trainer shall do
    shape: str = "135M"
    device: str = "cpu"
    batch: int = CONTEXT
    steps: int = 3
    threads: int = 1

    @classmethod
    def read(cls) -> Job:
        return cls(**json.loads(sys.argv[1]))

    def write(self) -> str:
        return json.dumps(asdict(self))

    def rows(self) -> list[list[list[int]]]:
        """Rows of samples, each row full: lengths are log-normal with a median of 150 tokens, the last is what is left
        of the row. A step's rows, then the next one's; twice as many as are read, so that a trainer that packs by
        itself reads full rows, too."""
        rng, rows = np.random.default_rng(SEED), list[list[list[int]]]()
        for _ in range(2 * max(1, self.batch // CONTEXT) * (self.steps + 1)):
            lengths, left = list[int](), CONTEXT
            while left:
                drawn = int(np.clip(rng.lognormal(np.log(150), 0.7), 16, CONTEXT))
                lengths.append(drawn if drawn + 16 <= left else left)
                left -= lengths[-1]
            rows.append([rng.integers(5, SHAPES[self.shape]["vocab_size"], n).tolist() for n in lengths])
        return rows

    def samples(self) -> list[list[int]]:
        return [sample for row in self.rows() for sample in row]

    def model(self, dtype: Any) -> Any:
        """Random weights, fp32 or rounded."""
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        torch.set_num_threads(self.threads)
        torch.manual_seed(SEED)
        config = AutoConfig.for_model(**SHAPES[self.shape], pad_token_id=0, bos_token_id=1, eos_token_id=2)
        return AutoModelForCausalLM.from_config(config).to(dtype=dtype, device=self.device)


@dataclass
class Meter:
    """Real tokens, CPU seconds of this process and seconds, step by step."""

    job: Job
    steps: list[tuple[int, float, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    _at: tuple[float, float] = (0.0, 0.0)

    def begin(self) -> None:
        self._wait()
        self._at = (time.process_time(), time.perf_counter())

    def stepped(self, tokens: int, loss: float) -> None:
        self._wait()
        now = (time.process_time(), time.perf_counter())
        self.steps.append((tokens, now[0] - self._at[0], now[1] - self._at[1]))
        self.losses.append(loss)
        self._at = now

    def _wait(self) -> None:
        if self.job.device == "cuda":
            import torch

            torch.cuda.synchronize()

    def tell(self, **more: Any) -> None:
        """The measured steps as one line of JSON, the last of the output."""
        tokens, busy, seconds = (sum(column) for column in zip(*self.steps[1:], strict=True))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if self.job.device == "cuda":
            import torch

            memory = torch.cuda.max_memory_allocated()
        told = {"tokens": tokens, "busy": busy, "seconds": seconds, "memory": memory, "losses": self.losses}
        print(json.dumps({**asdict(self.job), **told, **more}), flush=True)
