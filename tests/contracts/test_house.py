"""The files around the code: the lock, the extras, secrets, and nothing that belongs to one machine."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from gristmill.core.errors import ConfigError, boundary
from gristmill.core.extras import EXTRAS, extra_of, missing

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PIN = re.compile(r"^([a-z0-9-]+)==(\S+)$")
# Needed by a library we import, or imported by tests and hooks alone.
SILENT = {"lxml-html-clean", "pillow", "wordllama"}
# Spelled in pieces, so that this file does not contain them itself.
PRIVATE = [
    *(rf"(?<![\w.])/{folder}/" for folder in ("work", "root", "home/[a-z]", "opt/(wheels|pypi)", "Users/[A-Za-z]")),
    *(rf"\b{host}\b" for host in ("pypi" + r"\.org", "pytorch" + r"\.org/whl", "pythonhosted" + r"\.org")),
]


def normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~ ;]", distribution)[0]).lower()


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def pins() -> dict[str, str]:
    rows = [row for row in (ROOT / "requirements.lock").read_text("utf-8").splitlines() if not row.startswith("#")]
    found = [PIN.match(row) for row in rows]
    assert None not in found, [row for row, hit in zip(rows, found, strict=True) if hit is None]
    return {hit[1]: hit[2] for hit in found if hit}


def declared(*extras: str) -> set[str]:
    wanted = [w for extra in extras for w in PROJECT["optional-dependencies"][extra]]
    return {normal(w) for w in wanted if not w.startswith("gristmill[")}


def test_the_lock_pins_everything_and_names_no_place() -> None:
    locked = pins()
    wanted = {normal(w) for w in PROJECT["dependencies"]} | declared(*PROJECT["optional-dependencies"])
    assert wanted <= locked.keys()
    assert locked["torch"].endswith("+cpu")
    assert [p for p in locked if re.match(r"nvidia-(?!ml-py)|triton|cuda|pytorch-triton", p)] == []


@cache
def imported() -> dict[str, set[str]]:
    """Third-party modules that the package imports anywhere, each with the files that do."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            for top in {n.partition(".")[0] for n in names} - sys.stdlib_module_names - {"gristmill"}:
                found.setdefault(top, set()).add(path.relative_to(ROOT).as_posix())
    return found


def test_what_is_imported_is_declared() -> None:
    distributions = packages_distributions()
    core = {normal(w) for w in PROJECT["dependencies"]}
    undeclared = {}
    for module, files in imported().items():
        known = {normal(d) for d in distributions.get(module, [])}
        extra = extra_of(module)
        if not known & (declared(extra) if extra else core):
            undeclared[module] = sorted(files)
    assert undeclared == {}


def test_what_is_declared_is_imported() -> None:
    distributions = packages_distributions()
    used = {normal(d) for module in imported() for d in distributions.get(module, [])}
    wanted = {normal(w) for w in PROJECT["dependencies"]} | declared(*EXTRAS)
    assert wanted - used - SILENT == set()


def test_extras_bring_what_the_table_says() -> None:
    distributions = packages_distributions()
    for extra, modules in EXTRAS.items():
        assert {normal(d) for m in modules for d in distributions[m]} & declared(extra) == declared(extra)
        assert missing(extra) == []


def test_a_missing_extra_is_named_with_its_line() -> None:
    with pytest.raises(ConfigError) as caught, boundary("stage tune"):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")
    assert "stage tune" in caught.value.message
    assert caught.value.hint == "pip install 'gristmill[train]'"


def test_tracked_files_name_no_machine_and_no_registry() -> None:
    private = re.compile("|".join(PRIVATE).encode())
    found = {}
    for path in tracked():
        if hit := private.search(path.read_bytes()):
            found[path.relative_to(ROOT).as_posix()] = hit[0].decode()
    assert found == {}


def test_tracked_files_hold_no_secrets() -> None:
    scanned = [p for p in tracked() if p.name not in ("requirements.lock", ".secrets.baseline", "prices.json")]
    hook = Path(sys.executable).with_name("detect-secrets-hook")
    scan = subprocess.run(
        [hook, "--baseline", ".secrets.baseline", *(p.relative_to(ROOT) for p in scanned)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert scan.returncode == 0, scan.stdout + scan.stderr
