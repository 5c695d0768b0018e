"""Every extra can be installed alone: its rooms import, and what it does not bring is named when it is asked for."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements.lock"
# The rooms that must import with an extra alone; with none, everything that needs no weights and no PDF.
ROOMS = {
    "": ("core", "curate", "generate", "tasks", "evaluate", "runs", "cli"),
    "docs": ("core", "ingest"),
    "local": ("core", "llm"),
    "postgres": ("core",),
    "train": ("core", "models", "train"),
    "quantized": ("core", "models", "train"),
    "monitor": ("core",),
    "tensorboard": ("core", "runs"),
    "mlflow": ("core", "runs"),
    "wandb": ("core", "runs"),
    "optuna": ("core", "runs"),
    "serve": ("core", "llm", "serve"),
}
# Modules that only their extra can import, in a room that stands without it.
TRACKING = ("quantized", "monitor", "tensorboard", "mlflow", "wandb", "optuna")
"""What a training may bring besides: each is installed alone too, among the slow tests."""
SLOW = pytest.mark.slow
APART = {"postgres": tuple(f"gristmill.core.store.{name}" for name in ("claims", "link", "postgres"))}
IMPORT_ROOMS = """
import importlib, pkgutil, sys
for room in sys.argv[2:]:
    package = importlib.import_module(f"gristmill.{room}")
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if module.name not in sys.argv[1].split():
            importlib.import_module(module.name)
"""


def uv(*arguments: str | Path) -> None:
    sys.path.insert(0, str(ROOT / ".ci"))
    try:
        from lock import pip_options
    finally:
        sys.path.remove(str(ROOT / ".ci"))
    command = [Path(sys.executable).with_name("uv"), *arguments, "--quiet", "--system-certs", *pip_options()]
    subprocess.run(command, check=True, cwd=ROOT)


def environment(folder: Path, extra: str) -> Path:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    project = folder.with_name("project")  # building leaves a folder behind: not in the working tree
    shutil.copytree(ROOT / "src", project / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, project)
    wanted = f"{project}[{extra}]" if extra else str(project)
    uv("pip", "install", "--python", folder / "bin" / "python", "--constraint", LOCK, wanted)
    return folder / "bin"


@pytest.mark.parametrize("extra", [pytest.param(name, marks=SLOW if name in TRACKING else ()) for name in ROOMS])
def test_an_extra_stands_alone(extra: str, tmp_path: Path) -> None:
    programs = environment(tmp_path / "venv", extra)
    apart = " ".join(module for other, modules in APART.items() if other != extra for module in modules)
    command = [programs / "python", "-W", "error", "-c", IMPORT_ROOMS, apart, *ROOMS[extra]]
    subprocess.run(command, check=True, cwd=tmp_path)
    subprocess.run([programs / "gristmill", "--help"], check=True, cwd=tmp_path, stdout=subprocess.DEVNULL)
