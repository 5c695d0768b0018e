"""The manifest of a run: what it ran on and with, so that a stranger can reproduce it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict
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
    *("torch", "transformers", "peft", "xllamacpp"),
)


def write_manifest(folder: RunFolder, plan: Plan, *, name: str | None, **hashes: Any) -> None:
    """At the start of an attempt. `hashes` say what the run depends on; every attempt says what it ran on."""
    path = folder.path / "manifest.json"
    old: dict[str, Any] = orjson.loads(path.read_bytes()) if path.exists() else {}
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    data = {
        "id": folder.path.name,
        "name": name or old.get("name") or plan.recipe.name,
        "created": old.get("created", now),
        "started": now,
        "recipe": plan.recipe.name,
        "base": str(plan.recipe.base),
        "seed": plan.recipe.seed,
        "budget": plan.recipe.budget.model_dump(),
        "stages": stage_list(plan),
        "prices": prices(plan),
        "prompts": {f"{n.name}/{k}": p.ref for n in plan.nodes for k, p in n.prompts.items()},
        **hashes,
        "attempts": [*old.get("attempts", []), {"started": now, **_machine()}],
    }
    _write(path, data)
    recipe = yaml.safe_dump(plan.recipe.source.data, sort_keys=False, allow_unicode=True)
    write_text(folder.path / "recipe.yaml", recipe)
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


def _machine() -> dict[str, Any]:
    return {
        "gristmill": __version__,
        "git": _git(),
        "lock": installed_hash(),
        "packages": {p: v for p in PACKAGES if (v := _version(p))},
        "python": platform.python_version(),
        "os": platform.platform(),
        "hardware": {"cpu": _cpu(), "cores": len(os.sched_getaffinity(0)), "memory_gib": _memory_gib()},
    }


def installed_hash() -> str:
    """Hash of every installed package and its version: what a lock file pins, as it really is. By the names of their
    folders: to parse what is in them takes longer than all else at the start of a run."""
    return digest_of(sorted({path.name for place in sys.path for path in Path(place).glob("*.dist-info")}))


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git() -> str | None:
    """Commit of Gristmill's own checkout, `+dirty` where it differs; None when it is installed as a package."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return None

    def run(*args: str) -> str:
        command = ["git", "-C", str(root), *args]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    commit = run("rev-parse", "HEAD")
    return f"{commit}+dirty" if commit and run("status", "--porcelain", "--untracked-files=no") else commit or None


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory_gib() -> float:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
