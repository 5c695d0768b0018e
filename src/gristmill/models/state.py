"""Tensors and optimizers as safetensors and JSON. Never pickle, never torch.load.

What is larger than a file should be lies in several, with an index beside them, in the layout that transformers reads:
`model-00001-of-00002.safetensors`, ..., `model.safetensors.index.json`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from gristmill.core.errors import CheckpointError

if TYPE_CHECKING:
    import torch

SHARD = 5_000_000_000
"""Bytes of one file, at most (a larger tensor has a file of its own): what hubs take and memory holds."""

INDEX = ".index.json"


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], *, shard: int = SHARD) -> None:
    """Write named tensors at `path`, or in shards beside it. One shard at a time is copied to the CPU."""
    shards = list(_shards(tensors, shard))
    if len(shards) == 1:
        _save(path, shards[0])
        return
    names = [f"{path.stem}-{n:05d}-of-{len(shards):05d}{path.suffix}" for n in range(1, len(shards) + 1)]
    for name, part in zip(names, shards, strict=True):
        _save(path.with_name(name), part)
    places = {key: name for name, part in zip(names, shards, strict=True) for key in part}
    index = {"metadata": {"total_size": size_of(tensors.values())}, "weight_map": places}
    _index(path).write_bytes(orjson.dumps(index, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """What `save_tensors` wrote at `path`, on the CPU."""
    from safetensors.torch import load_file

    if not _index(path).is_file():
        return dict(load_file(path))
    places = orjson.loads(_index(path).read_bytes())["weight_map"]
    parts = [path.with_name(name) for name in sorted(set(places.values()))]
    if missing := next((part.name for part in parts if not part.is_file()), None):
        raise CheckpointError(f"{missing} is missing, which {_index(path).name} names", "Get the file again.")
    return {key: tensor for part in parts for key, tensor in load_file(part).items()}


def size_of(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes that some tensors take."""
    return sum(tensor.nbytes for tensor in tensors)


def _shards(tensors: Mapping[str, torch.Tensor], most: int) -> Iterator[dict[str, torch.Tensor]]:
    """In the order given, each as full as it gets."""
    part: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if part and size_of(part.values()) + tensor.nbytes > most:
            yield part
            part = {}
        part[name] = tensor
    yield part


def _save(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Contiguous copies, where a tensor is a view of others' memory. safetensors says what the system refused in words
    alone: it becomes the error that any other file would have given."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file({name: _own(tensor) for name, tensor in tensors.items()}, path, metadata={"format": "pt"})
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    path.chmod(0o644)  # safetensors leaves it to its writer alone; a run's folder is made to be read


def _own(tensor: torch.Tensor) -> torch.Tensor:
    here = tensor.detach().cpu().contiguous()
    return here if here.untyped_storage().nbytes() == here.nbytes else here.clone()


def _index(path: Path) -> Path:
    return path.with_name(path.name + INDEX)


def save_optimizer(folder: Path, state: Mapping[str, Any]) -> None:
    """An optimizer's `state_dict`: `optimizer.safetensors` (tensors, by parameter number and name) and
    `optimizer.json` (everything else)."""
    plain: dict[str, dict[str, Any]] = {}
    for number, values in state["state"].items():
        for name, value in values.items():
            if not _is_tensor(value):
                plain.setdefault(str(number), {})[name] = value
    save_tensors(folder / "optimizer.safetensors", optimizer_tensors(state))
    (folder / "optimizer.json").write_bytes(orjson.dumps({"groups": state["param_groups"], "plain": plain}))


def load_optimizer(folder: Path) -> dict[str, Any]:
    """The `state_dict` that `save_optimizer` wrote, for an optimizer over the same parameters in the same order."""
    rest = orjson.loads((folder / "optimizer.json").read_bytes())
    state: dict[int, dict[str, Any]] = {int(number): dict(values) for number, values in rest["plain"].items()}
    for key, tensor in load_tensors(folder / "optimizer.safetensors").items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = tensor
    return {"state": state, "param_groups": rest["groups"]}


def optimizer_tensors(state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors of an optimizer's `state_dict`, by parameter number and name."""
    return {
        f"{number}.{name}": value
        for number, values in state["state"].items()
        for name, value in values.items()
        if _is_tensor(value)
    }


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)
