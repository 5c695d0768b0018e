"""torch.compile, layer by layer: one graph serves all layers of a shape, and compiling takes seconds, not minutes.

Shapes are dynamic, so that packed passes of other sizes compile nothing again. Attention stays outside of the graph
(`attention`). On a CPU it is worth 5 to 7 % and some 30 s of compiling; there only when a recipe asks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gristmill.train.config import TrainConfig


def compiles(config: TrainConfig, device: str) -> bool:
    """Whether the config, or on `auto` the device, wants it."""
    return config.compile == "on" or (config.compile == "auto" and device == "cuda")


def compile_layers(causal: Any, config: TrainConfig) -> None:
    """Compile every layer of a causal model where that is wanted: in place, so that names of weights stay what they
    were."""
    if not compiles(config, next(causal.parameters()).device.type):
        return
    layers = set(causal._no_split_modules or ())
    for module in causal.modules():
        if type(module).__name__ in layers:
            module.compile(dynamic=True)
