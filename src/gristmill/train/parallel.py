"""How several processes share a training: what each reads of a step, and what they tell each other.

A step's forward passes are a function of (seed, step) and know nothing of processes; process r of n takes passes r,
r + n, ... Losses are divided by the total of the whole step, which every process knows from the examples' sizes, so
gradients are summed, never averaged. Whoever runs out of passes repeats a short one with weight zero: all take part in
equally many exchanges. `ddp` (Li et al. 2020, arXiv 2006.15704) holds all of the model in every process; `fsdp` (FSDP2,
torch's `fully_shard`; Zhao et al. 2023, arXiv 2304.11277) a shard of every layer, gathered while it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import distributed

from gristmill.train.packing import Packed


@dataclass(frozen=True)
class Share:
    """One forward pass of this process: which of the step's it is, and 0 where it only keeps step with the others."""

    index: int
    part: Packed
    weight: float


@dataclass(frozen=True)
class Ranks:
    """The processes of a training, seen from one of them. One process is a world of its own, and exchanges nothing."""

    rank: int = 0
    world: int = 1
    strategy: Literal["ddp", "fsdp"] = "ddp"

    @property
    def leads(self) -> bool:
        return self.rank == 0

    @property
    def shards(self) -> bool:
        return self.world > 1 and self.strategy == "fsdp"

    def share(self, parts: Sequence[Packed]) -> list[Share]:
        """What this process reads of a step's passes: as many as any other does."""
        own = [Share(index, part, 1.0) for index, part in enumerate(parts) if index % self.world == self.rank]
        if len(own) * self.world < len(parts):
            own.append(Share(0, min(parts, key=lambda part: len(part.ids)), 0.0))
        return own

    def wrap(self, module: torch.nn.Module, *, layers: Sequence[str]) -> torch.nn.Module:
        """The module as this strategy runs it. `layers`: names of the classes that fsdp gathers one at a time."""
        if self.world == 1:
            return module
        if self.strategy == "ddp":
            # Buffers (rotary frequencies) are the same everywhere from the start.
            return torch.nn.parallel.DistributedDataParallel(
                module, forward_sync_buffers=False, gradient_as_bucket_view=True
            )
        from torch.distributed.fsdp import fully_shard

        for layer in [m for m in module.modules() if type(m).__name__ in layers]:
            fully_shard(layer)
        sharded: Any = fully_shard(module)
        return sharded

    def syncing(self, module: Any, *, last: bool) -> AbstractContextManager[Any]:
        """Around a forward and backward pass: gradients are exchanged after a step's last one alone."""
        if self.shards:
            module.set_requires_gradient_sync(last)
        elif self.world > 1 and not last:
            return module.no_sync()  # type: ignore[no-any-return]
        return nullcontext()

    def summed(self, numbers: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, the same to the bit in each."""
        if self.world > 1:
            distributed.all_reduce(numbers)
        return numbers

    def told(self, thing: Any) -> list[Any]:
        """What each process says, by rank."""
        if self.world == 1:
            return [thing]
        found: list[Any] = [None] * self.world
        distributed.all_gather_object(found, thing)
        return found

    def any(self, flag: bool) -> bool:
        """Whether one of them says so: all get the same answer."""
        return bool(self.summed(torch.tensor(float(flag)))) if self.world > 1 else flag

    def wait(self) -> None:
        """Until all have come here."""
        if self.world > 1:
            distributed.barrier()


def whole(tensor: Any) -> torch.Tensor:
    """A tensor of which this process may hold a shard, complete and on the CPU. All processes take part."""
    full: torch.Tensor = tensor.full_tensor() if _sharded(tensor) else tensor
    return full.detach().cpu()


def gathered(tree: Any, ranks: Ranks) -> Any:
    """A dictionary of dictionaries with its tensors complete, in the first process; they are nothing in the others,
    which hold one of them at a time."""
    if isinstance(tree, dict):
        return {name: gathered(each, ranks) for name, each in tree.items()}
    if not isinstance(tree, torch.Tensor):
        return tree
    complete = whole(tree)
    return complete if ranks.leads else torch.empty(0)


def shard_like(full: torch.Tensor, tensor: Any) -> torch.Tensor:
    """This process's shard of a complete tensor, laid out as `tensor` is. Nothing is exchanged."""
    if not _sharded(tensor):
        return full
    from torch.distributed.tensor import distribute_tensor

    here = full.to(device=tensor.device, dtype=tensor.dtype)
    return distribute_tensor(here, tensor.device_mesh, tensor.placements, src_data_rank=None)


def _sharded(tensor: Any) -> bool:
    return hasattr(tensor, "full_tensor")
