"""Training state as safetensors and JSON: tensors and optimizer. Never pickle, never torch.load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    import torch


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write named tensors; they are copied to the CPU and made contiguous, so shared storage is no trouble."""
    from safetensors.torch import save_file

    save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors leaves it to its writer alone; a run's folder is made to be read


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return dict(load_file(path))


def save_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """`optimizer.safetensors` (tensors, by parameter number and name) and `optimizer.json` (everything else)."""
    import torch

    whole = optimizer.state_dict()
    tensors: dict[str, torch.Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for number, state in whole["state"].items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{number}.{name}"] = value
            else:
                plain.setdefault(str(number), {})[name] = value
    save_tensors(folder / "optimizer.safetensors", tensors)
    (folder / "optimizer.json").write_bytes(orjson.dumps({"groups": whole["param_groups"], "plain": plain}))


def load_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """Put back what `save_optimizer` wrote, into an optimizer over the same parameters in the same order."""
    rest = orjson.loads((folder / "optimizer.json").read_bytes())
    state: dict[int, dict[str, Any]] = {int(number): dict(values) for number, values in rest["plain"].items()}
    for key, tensor in load_tensors(folder / "optimizer.safetensors").items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": rest["groups"]})
