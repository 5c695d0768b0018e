"""Which extra brings which modules, so that a missing one is named with the line that installs it."""

from __future__ import annotations

from importlib.util import find_spec

EXTRAS: dict[str, tuple[str, ...]] = {
    "docs": (
        "lxml",
        "lxml_html_clean",
        "mammoth",
        "markdown_it",
        "openpyxl",
        "PIL",
        "pptx",
        "pypdfium2",
        "trafilatura",
    ),
    "local": ("xllamacpp",),
    "postgres": ("asyncpg",),
    "train": ("gguf", "huggingface_hub", "peft", "psutil", "safetensors", "torch", "transformers"),
    "quantized": ("bitsandbytes",),
    "monitor": ("pynvml",),
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow",),
    "wandb": ("wandb",),
    "optuna": ("optuna",),
    "serve": ("fastapi", "starlette", "uvicorn"),
}


def extra_of(module: str) -> str | None:
    """The extra that a module's import needs; None for what the core brings itself."""
    top = module.partition(".")[0]
    return next((extra for extra, modules in EXTRAS.items() if top in modules), None)


def install_line(*extras: str) -> str:
    return f"pip install 'gristmill[{','.join(extras)}]'"


def missing(extra: str) -> list[str]:
    """The modules of an extra that cannot be imported here. Looks; imports nothing."""
    return [module for module in EXTRAS[extra] if find_spec(module) is None]
