"""The shape of the code: small files, small functions, telling names, and none of what is forbidden."""

from __future__ import annotations

import ast
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "gristmill"
MODULES = sorted(PACKAGE.rglob("*.py"))
ROWS_OF_A_FILE, ROWS_OF_A_FUNCTION, ROWS_OF_A_LOOP = 400, 60, 120
TRAINING_LOOPS = {("train/loop.py", "run"), ("train/loop.py", "train")}
CATCH_ALL = re.compile(r"(^|_)(utils?|helpers?|common|misc|managers?)(_|$)")
BROAD = {"Exception", "BaseException"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load"}
UNSANDBOXED = {"Template", "Environment", "NativeEnvironment"}
HELP_CPU_MS = 150


def name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def parsed() -> Iterator[tuple[str, ast.Module]]:
    for path in MODULES:
        yield name(path), ast.parse(path.read_text("utf-8"))


def nodes(*kinds: type[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    for module, tree in parsed():
        for node in ast.walk(tree):
            if isinstance(node, kinds):
                yield module, node


def dotted(node: ast.AST) -> str:
    """`a.b.c` of a chain of attributes; the last name of anything else."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}".lstrip(".")
    return node.id if isinstance(node, ast.Name) else ""


def test_files_are_short() -> None:
    rows = {name(p): len(p.read_text("utf-8").splitlines()) for p in MODULES}
    assert {p: n for p, n in rows.items() if n > ROWS_OF_A_FILE} == {}


def test_functions_are_short() -> None:
    long = []
    for module, node in nodes(ast.FunctionDef, ast.AsyncFunctionDef):
        assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
        ceiling = ROWS_OF_A_LOOP if (module, node.name) in TRAINING_LOOPS else ROWS_OF_A_FUNCTION
        if (rows := node.end_lineno - node.lineno + 1) > ceiling:
            long.append(f"{module}:{node.lineno} {node.name} has {rows} lines")
    assert long == []


def test_modules_say_what_they_hold() -> None:
    parts = {part.removesuffix(".py") for p in MODULES for part in p.relative_to(PACKAGE).parts}
    assert [part for part in sorted(parts) if CATCH_ALL.search(part)] == []


def test_every_module_says_what_it_is_for() -> None:
    assert [module for module, tree in parsed() if not ast.get_docstring(tree)] == []


def test_only_the_terminal_door_prints() -> None:
    calls = [(m, n) for m, n in nodes(ast.Call) if isinstance(n, ast.Call) and dotted(n.func) == "print"]
    assert [f"{m}:{n.lineno}" for m, n in calls if not m.startswith("cli/")] == []


def test_only_the_boundary_swallows_everything() -> None:
    """Cleaning up and raising again is no swallowing."""
    found = []
    for module, node in nodes(ast.ExceptHandler):
        assert isinstance(node, ast.ExceptHandler)
        caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        broad = any(kind is None or dotted(kind) in BROAD for kind in caught)
        raised_again = isinstance(last := node.body[-1], ast.Raise) and last.exc is None
        if broad and not raised_again and module != "core/errors.py":
            found.append(f"{module}:{node.lineno}")
    for module, call in nodes(ast.Call):
        if isinstance(call, ast.Call) and dotted(call.func).endswith("suppress"):
            found += [f"{module}:{call.lineno}" for kind in call.args if dotted(kind) in BROAD]
    assert found == []


def offences(call: ast.Call, templates: set[str]) -> Iterator[str]:
    function = dotted(call.func)
    options = {word.arg: word.value for word in call.keywords}
    if function in FORBIDDEN_CALLS:
        yield function
    if isinstance(call.func, ast.Attribute) and call.func.attr == "extractall":
        yield "extractall"
    if isinstance(shell := options.get("shell"), ast.Constant) and shell.value:
        yield "shell=True"
    if function == "torch.load":
        yield "torch.load: weights are safetensors"
    if function.removeprefix("jinja2.") in templates or (
        function.startswith("jinja2.") and function[7:] in UNSANDBOXED
    ):
        yield "an unsandboxed template"


def test_nothing_unsafe_is_called() -> None:
    found = []
    for module, tree in parsed():
        imports = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module == "jinja2"]
        templates = {alias.asname or alias.name for n in imports for alias in n.names if alias.name in UNSANDBOXED}
        calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call)]
        found += [f"{module}:{call.lineno} {offence}" for call in calls for offence in offences(call, templates)]
    assert found == []


def test_no_pickle_in_any_form() -> None:
    found = []
    for module, node in nodes(ast.Import, ast.ImportFrom):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", "") or ""]
        found += [f"{module}: {n}" for n in names if n.partition(".")[0] in FORBIDDEN_MODULES]
    assert found == []


def test_nothing_is_left_for_later() -> None:
    marks = re.compile(r"#.*\b(TODO|FIXME|XXX|HACK)\b")
    found = [
        f"{name(p)}:{i}"
        for p in MODULES
        for i, row in enumerate(p.read_text("utf-8").splitlines(), 1)
        if marks.search(row)
    ]
    assert found == []


def help_cpu_ms() -> float:
    """Processor time, user and system, of one `gristmill --help`."""
    command = Path(sys.executable).with_name("gristmill")
    child = subprocess.Popen([command, "--help"], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0
    return (used.ru_utime + used.ru_stime) * 1000


@pytest.mark.skipif(sys.gettrace() is not None or "coverage" in sys.modules, reason="measured without coverage")
def test_help_is_instant() -> None:
    help_cpu_ms()  # writes the bytecode
    times = [help_cpu_ms() for _ in range(5)]
    assert statistics.median(times) <= HELP_CPU_MS, times
