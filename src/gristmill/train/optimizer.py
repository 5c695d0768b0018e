"""AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) over the trained parameters and no others.

`adamw` keeps two fp32 moments a parameter, updated in one fused pass. `adamw_8bit` keeps them in 8 bits, quantised in
blocks (Dettmers et al. 2022, arXiv 2110.02861): a quarter of the memory. `paged_adamw_8bit` lets CUDA move those to
the host when the device is full. Both are bitsandbytes'; on a CPU the 8-bit step is some 40 times as slow as the
fused one, and there is nothing to page out to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from types import MethodType
from typing import TYPE_CHECKING, Any

from gristmill.core.errors import ConfigError
from gristmill.core.extras import install_line
from gristmill.train.config import TrainConfig

if TYPE_CHECKING:
    import torch


def check_optimizer(config: TrainConfig, device: str) -> None:
    """Refuse what cannot run here, before any weight is loaded."""
    if config.optimizer == "adamw":
        return
    if find_spec("bitsandbytes") is None:
        raise ConfigError(f"optimizer {config.optimizer} needs bitsandbytes", install_line("quantized"))
    if config.optimizer == "paged_adamw_8bit" and device != "cuda":
        raise ConfigError(
            "paged_adamw_8bit pages a CUDA device's memory out, and this training runs on the CPU",
            "Set optimizer: adamw_8bit, or adamw.",
        )


def optimizer_of(trained: Iterable[torch.nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    """Decays matrices; leaves norms and biases alone."""
    import torch

    parameters = list(trained)
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.rate, betas=config.betas, fused=True)
    import bitsandbytes

    kinds: Mapping[str, Any] = {
        "adamw_8bit": bitsandbytes.optim.AdamW8bit,
        "paged_adamw_8bit": bitsandbytes.optim.PagedAdamW8bit,
    }
    optimizer: Any = kinds[config.optimizer](groups, lr=config.rate, betas=config.betas)
    optimizer.state_dict = MethodType(_flat_state, optimizer)
    return optimizer  # type: ignore[no-any-return]


def _flat_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """bitsandbytes' own would nest what is quantised one level deeper, and shares its tables of 256 values between
    parameters; in a checkpoint state lies flat and apart."""
    import torch

    whole = torch.optim.Optimizer.state_dict(optimizer)
    tables = ("qmap1", "qmap2")
    state = {
        at: {name: value.clone() if name in tables else value for name, value in values.items()}
        for at, values in whole["state"].items()
    }
    return {**whole, "state": state}
