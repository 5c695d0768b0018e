"""New tokens and another chat template for a model that is going to be trained.

    renderer = renderer_of(weights, new_tokens=["<|note|>", "Kilbrack"], template=text)
    model = load_model(weights)
    add_rows(model, renderer, seed=7, apart=True)      # apart: the base stays frozen, as with adapters
    model = attach(model, lora); train_rows(model)     # attach freezes all that is not an adapter

New rows begin as the mean of all rows, which bounds how far the model's other choices move (Hewitt 2021, "Initializing
New Word Embeddings for Pretrained Language Models"), plus noise of a hundredth of the rows' spread, so that two new
tokens are not the same; the noise is drawn from the seed.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import nn

from gristmill.core.errors import ConfigError
from gristmill.models.renderer import Renderer
from gristmill.models.weights import Weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NOISE = 0.01


def renderer_of(weights: Weights, *, new_tokens: Sequence[str] = (), template: str | None = None) -> Renderer:
    """The renderer that a training with these settings uses; its folder is saved beside what is trained."""
    base = Renderer.load(weights)
    return base.extended(new_tokens, template=template) if new_tokens or template is not None else base


def add_rows(model: PreTrainedModel, renderer: Renderer, *, seed: int, apart: bool) -> None:
    """Rows for the renderer's added tokens in embedding and head. `apart` keeps them as fp32 tensors of their own, the
    only ones of embedding and head that `train_rows` lets train; otherwise both matrices grow and train whole."""
    ids = renderer.vocabulary.added
    if not ids:
        return
    if ids != tuple(range(ids[0], ids[0] + len(ids))):
        raise ConfigError("the new tokens' ids do not follow one another", "Use the model's own tokenizer.json.")
    generator = torch.Generator().manual_seed(seed)
    whole: Any = model
    embedding, head = whole.get_input_embeddings(), whole.get_output_embeddings()
    tied = head is not None and head.weight is embedding.weight
    rows = [_begin(embedding.weight, len(ids), generator)]
    if head is not None and not tied:
        rows.append(_begin(head.weight, len(ids), generator))
    if apart:
        table = EmbeddingBeside(embedding, rows[0], ids[0])
        whole.set_input_embeddings(table)
        if head is not None:
            whole.set_output_embeddings(HeadBeside(head, table.rows if tied else nn.Parameter(rows[1]), ids[0]))
    else:
        if ids[-1] >= embedding.weight.shape[0]:
            model.resize_token_embeddings(ids[-1] + 1, mean_resizing=False)
        grown = [whole.get_input_embeddings(), *([] if tied else [whole.get_output_embeddings()])]
        with torch.no_grad():
            for module, begun in zip(grown, rows, strict=False):
                module.weight[ids[0] : ids[-1] + 1] = begun.to(module.weight)
    model.config.vocab_size = len(whole.get_input_embeddings().weight)


def train_rows(model: nn.Module) -> None:
    """Let the rows beside train; called after adapters are attached, which freezes everything else."""
    for _, module in beside(model):
        module.rows.requires_grad_(True)


def beside(model: nn.Module) -> Iterator[tuple[str, EmbeddingBeside | HeadBeside]]:
    """The embedding and head whose new rows stand apart, by their names in the model."""
    for name, module in model.named_modules():
        if isinstance(module, EmbeddingBeside | HeadBeside):
            yield name, module


class EmbeddingBeside(nn.Module):
    """An embedding [base rows, hidden] that stays as it is, and fp32 rows for the ids from `first` on."""

    def __init__(self, base: nn.Embedding, rows: torch.Tensor, first: int) -> None:
        super().__init__()
        self.base = base
        self.own = copy.copy(base)  # of the same class: some models scale what they look up
        self.own._parameters = {"weight": nn.Parameter(rows)}
        self.own.num_embeddings, self.own.padding_idx = len(rows), None
        self.first = first

    @property
    def rows(self) -> nn.Parameter:
        return cast("nn.Parameter", self.own.weight)

    @property
    def weight(self) -> torch.Tensor:
        """The whole matrix, new rows in place; differentiable in these."""
        return _whole(self.base.weight, self.rows, self.first)

    def exact(self) -> torch.Tensor:
        """The whole matrix in float32: the rows as they were trained, not as they are multiplied."""
        return _whole(self.base.weight.float(), self.rows, self.first)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        local = ids - self.first
        new = (local >= 0) & (local < len(self.rows))
        old: torch.Tensor = self.base(torch.where(new, 0, ids))
        own = self.own(torch.where(new, local, 0)).to(old.dtype)
        return torch.where(new[..., None], own, old)


class HeadBeside(nn.Module):
    """An output head whose matrix stays as it is, and fp32 rows for the ids from `first` on."""

    def __init__(self, base: nn.Linear, rows: nn.Parameter, first: int) -> None:
        super().__init__()
        self.base = base.weight  # not the layer: adapters go to every linear layer they find
        self.bias = base.bias
        self.rows = rows
        self.first = first

    @property
    def weight(self) -> torch.Tensor:
        return _whole(self.base, self.rows, self.first)

    def exact(self) -> torch.Tensor:
        return _whole(self.base.float(), self.rows, self.first)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Part by part: an answer asks this for each of its tokens, and the matrix is too large to copy each time."""
        parts = _parts(self.base, self.rows, self.first)
        biases: Sequence[torch.Tensor | None] = [None] * len(parts)
        if self.bias is not None:
            sizes = [len(part) for part in parts]
            biases = torch.split(F.pad(self.bias, (0, sum(sizes) - len(self.bias))), sizes)
        return torch.cat([F.linear(hidden, part, bias) for part, bias in zip(parts, biases, strict=True)], -1)


def _whole(base: torch.Tensor, rows: torch.Tensor, first: int) -> torch.Tensor:
    return torch.cat(_parts(base, rows, first))


def _parts(base: torch.Tensor, rows: torch.Tensor, first: int) -> list[torch.Tensor]:
    return [base[:first], rows.to(base.dtype), base[first + len(rows) :]]


def _begin(matrix: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    known = matrix.detach().float()
    noise = torch.randn((count, known.shape[1]), generator=generator).to(known.device)
    return known.mean(0) + _NOISE * known.std(0) * noise
