"""Training state as safetensors and JSON: tensors, optimizer, random generators. Never pickle, never torch.load."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
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


def rng_state() -> dict[str, torch.Tensor]:
    """The state of every generator that training may draw from (Python, numpy, torch, each GPU), as bytes."""
    import torch

    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    numpy_state = [name, [int(k) for k in keys], position, has_gauss, cached]
    found = {"python": _bytes(random.getstate()), "numpy": _bytes(numpy_state), "torch": torch.get_rng_state()}
    for number in range(torch.cuda.device_count()):
        found[f"cuda.{number}"] = torch.cuda.get_rng_state(number)
    return found


def restore_rng(state: Mapping[str, torch.Tensor]) -> None:
    import torch

    version, numbers, gauss = orjson.loads(state["python"].numpy().tobytes())
    random.setstate((version, tuple(numbers), gauss))
    name, keys, position, has_gauss, cached = orjson.loads(state["numpy"].numpy().tobytes())
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    for number in range(torch.cuda.device_count()):
        if f"cuda.{number}" in state:
            torch.cuda.set_rng_state(state[f"cuda.{number}"], number)


def _bytes(value: Any) -> torch.Tensor:
    import torch

    return torch.frombuffer(bytearray(orjson.dumps(value)), dtype=torch.uint8)
