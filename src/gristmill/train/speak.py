"""What the model answers while it is being trained: a person sees what no loss says.

Greedy, with a key-value cache and the model's own attention, which is given back to packing afterwards. It draws no
random number and changes no weight: a training is the same to the bit with it and without.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import orjson
import torch

from gristmill.core.errors import ConfigError
from gristmill.core.records import Message
from gristmill.models.renderer import Renderer
from gristmill.train.learner import Learner
from gristmill.train.rows import cut_back

SAMPLES = "samples.ndjson"
LONGEST = 128
"""Tokens of an answer, at most."""


class Speaker:
    """Asks a training's `sample_prompts` of the model every `sample_every` steps."""

    def __init__(self, learner: Learner, renderer: Renderer, folder: Path, *, at: int) -> None:
        if learner.config.sample_every and learner.objective.head == "score":
            raise ConfigError("a model with a score head answers nothing", "Leave sample_every and sample_prompts out.")
        self.learner = learner
        self.renderer = renderer
        self.path = folder / SAMPLES
        self.every = learner.config.sample_every
        self.prompts = learner.config.sample_prompts
        self.asked = [self._ask(prompt) for prompt in self.prompts] if self.every else []
        if self.every:
            cut_back(self.path, at=at)

    def speak(self, step: int) -> None:
        if not self.every or step % self.every:
            return
        pairs = zip(self.prompts, self.asked, strict=True)
        said = [{"step": step, "prompt": prompt, **self._answer(ids)} for prompt, ids in pairs]
        with self.path.open("ab") as file:
            file.writelines(orjson.dumps(one) + b"\n" for one in said)

    def _ask(self, prompt: str) -> list[int]:
        """As a chat where the model has a template, else as a text to go on with, begun as texts are trained."""
        renderer = self.renderer
        if renderer.chats:
            ids = renderer.chat([Message(role="user", content=prompt)], generate=True).ids
        else:
            ids = [*([] if renderer.bos is None else [renderer.bos]), *renderer.encode(prompt)]
        if not 0 < len(ids) < renderer.context:
            raise ConfigError(
                f"a prompt of sample_prompts has {len(ids)} tokens, the model reads {renderer.context}: {prompt!r:.50}",
                "Ask something shorter." if ids else "Give a model without a chat template a text to go on with.",
            )
        return ids

    def _answer(self, ids: list[int]) -> dict[str, str | bool]:
        """`finished`: it stopped by itself."""
        answer = self._generate(ids)
        finished = bool(answer) and answer[-1] in self.renderer.stop_ids
        return {"text": self.renderer.decode(answer), "finished": finished}

    @torch.no_grad()
    def _generate(self, ids: list[int]) -> list[int]:
        from transformers import GenerationConfig

        learner = self.learner
        asked = torch.tensor([ids], device=learner.device)
        greedy = GenerationConfig(
            do_sample=False,
            max_new_tokens=min(LONGEST, self.renderer.context - len(ids)),
            eos_token_id=sorted(self.renderer.stop_ids),
            pad_token_id=self.renderer.eos,
            use_cache=True,
        )
        learner.model.eval()
        compiled = "torch._dynamo" in sys.modules  # for the shapes of training alone
        with learner.own_attention(), learner.autocast(), _eagerly() if compiled else nullcontext():
            out = learner.causal.generate(asked, attention_mask=torch.ones_like(asked), generation_config=greedy)
        return [int(token) for token in out[0, len(ids) :]]


def _eagerly() -> AbstractContextManager[Any]:
    return torch.compiler.set_stance("force_eager")
