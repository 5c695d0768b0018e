"""The manifest of a run: what it ran on and with, so that a stranger can reproduce it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import yaml

from gristmill import __version__
from gristmill.core.files import atomic, write_text
from gristmill.core.records import digest_of
from gristmill.llm.prices import price_of, table_version
from gristmill.llm.spec import RemoteSpec
from gristmill.runs.folder import RunFolder
from gristmill.runs.plan import Plan

PACKAGES = (
    *("aiohttp", "uvloop", "orjson", "pydantic", "pyarrow", "tokenizers", "rensa", "pypdfium2"),
    *("torch", "transformers", "peft", "safetensors", "bitsandbytes", "xllamacpp"),
)

SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG")
"""Variables that say how many threads and which devices compute."""


def write_manifest(folder: RunFolder, plan: Plan, *, name: str | None, **hashes: Any) -> None:
    """At the start of an attempt. `hashes` say what the run depends on; every attempt says what it ran on."""
    path = folder.path / "manifest.json"
    old: dict[str, Any] = orjson.loads(path.read_bytes()) if path.exists() else {}
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    data = {
        "id": folder.path.name,
        "name": name or old.get("name") or plan.recipe.name,
        "created": old.get("created") or datetime.now(UTC).isoformat(timespec="microseconds"),  # an order of runs
        "started": now,
        "recipe": plan.recipe.name,
        "base": str(plan.recipe.base),
        "seed": plan.recipe.seed,
        "budget": plan.recipe.budget.model_dump(),
        "stages": stage_list(plan),
        "prices": prices(plan),
        "prompts": {f"{n.name}/{k}": p.ref for n in plan.nodes for k, p in n.prompts.items()},
        **hashes,
        "attempts": [*old.get("attempts", []), {"started": now, **machine()}],
    }
    _write(path, data)
    recipe = yaml.safe_dump(plan.recipe.source.data, sort_keys=False, allow_unicode=True)
    write_text(folder.path / "recipe.yaml", recipe)
    packages = installed()
    write_text(folder.path / "environment" / f"{lock_of(packages)}.txt", "".join(f"{line}\n" for line in packages))
    for node in plan.nodes:
        for prompt in node.prompts.values():
            write_text(folder.path / "prompts" / f"{prompt.name}@{prompt.hash}.md", prompt.text)


def stage_list(plan: Plan) -> list[dict[str, Any]]:
    """Every stage that will run, in order, for those who follow the run from outside."""
    return [
        {
            "name": node.name,
            "kind": node.kind,
            "roles": list(node.roles),
            "gives": [t.__name__ for t in node.config.given(node.stage.gives)],
        }
        for node in plan.nodes
    ]


def prices(plan: Plan) -> dict[str, Any]:
    """The price table's day, and what every model behind an address costs by it or by the recipe: nano-dollars for a
    million tokens, null where nobody has said it."""
    remote = {role: spec for role, spec in plan.recipe.models.items() if isinstance(spec, RemoteSpec)}
    found = {role: price_of(spec) for role, spec in remote.items()}
    return {"table": table_version(), "models": {role: price and asdict(price) for role, price in found.items()}}


def rename(folder: RunFolder, name: str) -> None:
    """Give a finished run another name; everything else in its manifest stays as it was."""
    _write(folder.path / "manifest.json", {**folder.manifest, "name": name})


def _write(path: Path, data: dict[str, Any]) -> None:
    with atomic(path) as file:
        file.write(orjson.dumps(data, option=orjson.OPT_INDENT_2))


def machine() -> dict[str, Any]:
    """What this process runs on and with."""
    return {
        "gristmill": __version__,
        "git": _git(),
        "lock": lock_of(installed()),  # names the file in environment/ that lists it all
        "packages": {p: v for p in PACKAGES if (v := _version(p))},
        "python": platform.python_version(),
        "os": platform.platform(),
        "hardware": {
            "cpu": _cpu(),
            "vectors": _vectors(),
            "cores": len(os.sched_getaffinity(0)),
            "memory_gib": _memory_gib(),
            "gpus": _gpus(),
        },
        "settings": {name: os.environ[name] for name in SETTINGS if name in os.environ},
    }


def installed() -> list[str]:
    """Every installed package as `name==version`: what a lock file pins, as it really is. By the names of their
    folders: to parse what is in them takes longer than all else at the start of a run."""
    folders = {path.name for place in sys.path for path in Path(place).glob("*.dist-info")}
    return sorted(name.removesuffix(".dist-info").replace("-", "==", 1) for name in folders)


def lock_of(packages: list[str]) -> str:
    return digest_of(packages)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git() -> str | None:
    """Commit of Gristmill's own checkout, and where files differ from it `+` and the hash of how they do; None when it
    is installed as a package."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return None

    def run(*args: str) -> str:
        command = ["git", "-C", str(root), *args]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    commit, changed = run("rev-parse", "HEAD"), run("diff", "HEAD")
    return f"{commit}+{digest_of(changed)[:12]}" if commit and changed else commit or None


def _cpu() -> str:
    return _of_cpu("model name") or platform.machine()


def _vectors() -> list[str]:
    """Which vector instructions there are: kernels choose by them, and so do the last bits of sums."""
    flags = _of_cpu("flags").split()
    return [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]


def _of_cpu(name: str) -> str:
    """The first processor's entry of that name; empty where the machine has none."""
    lines = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), "")


def _gpus() -> list[str]:
    """Models of NVIDIA cards by the driver's own files, and its version: torch is not imported for a run that needs
    none."""
    driver = Path("/proc/driver/nvidia")
    about = [path.read_text().splitlines() for path in sorted(driver.glob("gpus/*/information"))]
    models = [line.partition(":")[2].strip() for lines in about for line in lines if line.startswith("Model:")]
    version = [line.split(":", 1)[1].strip() for line in _lines(driver / "version") if line.startswith("NVRM")]
    return [*models, *version] if models else []


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _memory_gib() -> float:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
