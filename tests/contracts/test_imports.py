"""The import rule of pyproject.toml holds; what must start quickly imports nothing heavy; no import cycles."""

from __future__ import annotations

import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "gristmill"
HEAVY = (
    "torch",
    "transformers",
    "peft",
    "trafilatura",
    "aiohttp",
    "uvloop",
    "pyarrow",
    "fastapi",
    "xllamacpp",
    "numpy",
)


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("gristmill", cache_dir=None)


def test_imports_run_one_way() -> None:
    lint = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert lint.returncode == 0, lint.stdout


def cycle(edges: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_import_cycles_between_modules(graph: grimp.ImportGraph) -> None:
    edges = {module: set(graph.find_modules_directly_imported_by(module)) for module in graph.modules}
    assert cycle(edges) == []


def test_no_import_cycles_between_packages(graph: grimp.ImportGraph) -> None:
    """At every level: the children of a package, each with all that is below it, import each other one way."""
    packages = {m for m in graph.modules if graph.find_children(m)}
    for package in sorted(packages):
        depth = package.count(".") + 2
        edges: dict[str, set[str]] = {}
        for module in graph.find_descendants(package):
            child = ".".join(module.split(".")[:depth])
            for target in graph.find_modules_directly_imported_by(module):
                other = ".".join(target.split(".")[:depth])
                if target.startswith(f"{package}.") and other != child:
                    edges.setdefault(child, set()).add(other)
        assert cycle(edges) == [], package


def modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_naming_the_stages_imports_nothing_heavy() -> None:
    rooms = sorted(path.parent.name for path in PACKAGE.glob("*/stages.py"))
    assert rooms
    loaded = modules_after("".join(f"import gristmill.{room}.stages\n" for room in rooms))
    assert loaded.isdisjoint(HEAVY), sorted(loaded & set(HEAVY))


def test_the_command_imports_nothing_heavy() -> None:
    loaded = modules_after("import gristmill.cli")
    assert loaded.isdisjoint({*HEAVY, "pydantic", "rich"}), sorted(loaded & {*HEAVY, "pydantic", "rich"})
